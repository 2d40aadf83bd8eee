"""Differentiable operations, and the operators of Tensor.

Each operation is one screen: its Function, the check of its arrays, and the function or operator that users call.
In every backward, g is dL/d(output), and the return value is dL/d(input) for each input, by the chain rule.
Arrays broadcast as in NumPy; the engine sums the gradients back (`broadcasts = True`).
The engine puts the name of the operation and the shapes of its inputs before the text of a ValueError from forward.

A module has the operations of one kind. This file lists them all, Functions in capitals, and gives Tensor its methods.
"""
from ..tensor import Tensor
from .arguments import Axis, Pair, as_tensor, pair
from .arithmetic import (
    Add,
    AsType,
    Clip,
    Div,
    Maximum,
    Mul,
    Neg,
    Pow,
    Power,
    Sub,
    Where,
    clip,
    maximum,
    minimum,
    pow,
    where,
)
from .convolution import Conv2d, check_conv2d, conv2d
from .elementwise import (
    Abs,
    Dropout,
    Exp,
    Gelu,
    LeakyRelu,
    Log,
    Relu,
    Sigmoid,
    Sqrt,
    Tanh,
    abs,
    dropout,
    exp,
    gelu,
    leaky_relu,
    log,
    relu,
    sigmoid,
    sqrt,
    tanh,
)
from .losses import CrossEntropy, LogSoftmax, Softmax, cross_entropy, log_softmax, softmax
from .normalisation import (
    BatchNorm,
    BatchNormEval,
    BatchNormRelu,
    batch_norm,
    batch_norm_eval,
    batch_norm_relu,
    check_batch_norm,
)
from .pooling import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    MaxPool2d,
    SubsampleAndPad,
    adaptive_avg_pool2d,
    avg_pool2d,
    check_subsample_and_pad,
    global_avg_pool2d,
    max_pool2d,
    subsample_and_pad,
)
from .products import Linear, MatMul, linear, matmul
from .reductions import Max, Mean, Std, Sum, Var, max, mean, min, std, sum, var
from .shapes import (
    BroadcastTo,
    Concatenate,
    GetItem,
    Pad,
    Reshape,
    Transpose,
    broadcast_to,
    concatenate,
    pad,
    reshape,
    stack,
    transpose,
)

__all__ = ["Abs", "AdaptiveAvgPool2d", "Add", "AsType", "AvgPool2d", "Axis", "BatchNorm", "BatchNormEval",
           "BatchNormRelu", "BroadcastTo", "Clip", "Concatenate", "Conv2d", "CrossEntropy", "Div", "Dropout", "Exp",
           "Gelu", "GetItem", "LeakyRelu", "Linear", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool2d", "Maximum",
           "Mean", "Mul", "Neg", "Pad", "Pair", "Pow", "Power", "Relu", "Reshape", "Sigmoid", "Softmax", "Sqrt", "Std",
           "Sub", "SubsampleAndPad", "Sum", "Tanh", "Transpose", "Var", "Where", "abs", "adaptive_avg_pool2d",
           "as_tensor", "avg_pool2d", "batch_norm", "batch_norm_eval", "batch_norm_relu", "broadcast_to",
           "check_batch_norm", "check_conv2d", "check_subsample_and_pad", "clip", "concatenate", "conv2d",
           "cross_entropy", "dropout", "exp", "gelu", "global_avg_pool2d", "leaky_relu", "linear", "log",
           "log_softmax", "matmul", "max", "max_pool2d", "maximum", "mean", "min", "minimum", "pad", "pair", "pow",
           "relu", "reshape", "sigmoid", "softmax", "sqrt", "stack", "std", "subsample_and_pad", "sum", "tanh",
           "transpose", "var", "where"]

# Tensor's methods, and those of its operators that are not next to their Function
Tensor.__matmul__ = lambda a, b: matmul(a, as_tensor(b, a))
Tensor.__rmatmul__ = lambda a, b: matmul(as_tensor(b, a), a)
Tensor.__abs__ = Tensor.abs = abs
Tensor.exp, Tensor.log, Tensor.sqrt = exp, log, sqrt
Tensor.tanh, Tensor.sigmoid, Tensor.relu = tanh, sigmoid, relu
Tensor.sum, Tensor.mean, Tensor.var, Tensor.std = sum, mean, var, std
Tensor.max, Tensor.min, Tensor.clip = max, min, clip
Tensor.reshape, Tensor.transpose = reshape, transpose
Tensor.T = property(transpose)
