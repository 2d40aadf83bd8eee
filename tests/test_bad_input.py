"""Wrong input: every error names the operation, what was expected and what was given."""

import numpy as np
import pytest
from helpers import normal

from minires import Tensor, models, nn, ops
from minires.optim import SGD
from minires.train import NotFinite, step


def t(*shape):
    return Tensor(normal(*shape))


def rng():
    return np.random.default_rng(0)


SHAPES = [  # (what is wrong, the call, texts that the message must contain)
    ("add", lambda: t(2, 3) + t(4), ["Add(float64(2, 3), float64(4,))", "(2,3) (4,)"]),
    ("maximum", lambda: ops.maximum(t(2), t(3)), ["Maximum(float64(2,), float64(3,))"]),
    ("matmul", lambda: t(2, 3) @ t(4, 5), ["MatMul(float64(2, 3), float64(4, 5))", "4 is different from 3"]),
    ("linear", lambda: ops.linear(t(2, 3), t(4, 5)), ["Linear(float64(2, 3), float64(4, 5))",
                                                      "expected x (..., I), w (O, I) and bias (O,)"]),
    ("linear, bias", lambda: ops.linear(t(2, 3), t(4, 3), t(3)), ["float64(3,))", "bias (O,)"]),
    ("linear, images", lambda: nn.Linear(3, 2, rng=rng()).astype(np.float64)(t(2, 3, 4, 4)),
     ["Linear(float64(2, 3, 4, 4)", "expected x (..., I)"]),
    ("reshape", lambda: t(2, 3).reshape(4, 2), ["Reshape(float64(2, 3))", "size 6 into shape (4,2)"]),
    ("transpose", lambda: t(2, 3).transpose(0, 0),
     ["Transpose(float64(2, 3))", "axis (0, 0) does not name distinct axes"]),
    ("axis", lambda: t(2, 3).sum(2), ["Sum(float64(2, 3))", "axis 2 does not name distinct axes of a 2-dimensional"]),
    ("axis twice", lambda: t(2, 3).mean((0, -2)), ["Mean(float64(2, 3))", "axis (0, -2)"]),
    ("softmax axis", lambda: ops.softmax(t(2, 3), 2),
     ["Softmax(float64(2, 3))", "axis: expected an integer from -2 to 1, got 2"]),
    ("softmax, two axes", lambda: ops.log_softmax(t(2, 3), (0, 1)), ["LogSoftmax(float64(2, 3))", "got (0, 1)"]),
    ("concatenate numbers", lambda: ops.concatenate([t(), t()]), ["axis: expected an array with axes, got one"]),
    ("axis of half", lambda: t(2, 3).min(0.5),
     ["Max(float64(2, 3))", "axis: expected an integer or a tuple of integers, got 0.5"]),
    ("axis as text", lambda: t(2, 3).std("0"), ["Std(float64(2, 3))", "axis: expected an integer", "got '0'"]),
    ("index", lambda: t(3)[5], ["GetItem(float64(3,))", "index 5 is out of bounds"]),
    ("index array", lambda: t(3)[np.array([0, 7])], ["GetItem(float64(3,))", "index 7 is out of bounds"]),
    ("index by a Tensor", lambda: t(3)[t(1)], ["GetItem(float64(3,))", "not a Tensor"]),
    ("concatenate", lambda: ops.concatenate([t(2, 3), t(2, 4)]), ["Concatenate(float64(2, 3), float64(2, 4))"]),
    ("concatenate, axis", lambda: ops.concatenate([t(2, 3), t(2, 3)], 2),
     ["Concatenate(float64(2, 3), float64(2, 3))", "axis: expected an integer from -2 to 1, got 2"]),
    ("concatenate, no axis", lambda: ops.concatenate([t(2), t(2)], None), ["axis: expected an integer", "got None"]),
    ("concatenate a Tensor", lambda: ops.concatenate(t(2, 3)), ["concatenate: expected a list of Tensors, got Tensor"]),
    ("concatenate arrays", lambda: ops.concatenate([t(2), normal(2)]),
     ["concatenate: expected a list of Tensors, got ndarray in it; wrap it: Tensor(array)"]),
    ("concatenate nothing", lambda: ops.concatenate([]), ["concatenate: expected at least one Tensor, got none"]),
    ("stack", lambda: ops.stack([t(2, 3), t(2, 4)]), ["stack: expected Tensors of one shape, got (2, 3), (2, 4)"]),
    ("stack nothing", lambda: ops.stack([]), ["stack: expected at least one Tensor, got none"]),
    ("stack, axis", lambda: ops.stack([t(2), t(2)], 2), ["stack, axis: expected an integer from -2 to 1, got 2"]),
    ("stack, two axes", lambda: ops.stack([t(2)], (0, 1)), ["stack, axis: expected an integer", "got (0, 1)"]),
    ("stack a Tensor", lambda: ops.stack(t(2, 3)), ["stack: expected a list of Tensors, got Tensor"]),
    ("stack numbers", lambda: ops.stack([1.0, 2.0]), ["stack: expected a list of Tensors, got float in it"]),
    ("minimum", lambda: ops.minimum(t(2), t(3)), ["Maximum(float64(2,), float64(3,))"]),
    ("power", lambda: t(2) ** t(3), ["Power(float64(2,), float64(3,))"]),
    ("where, shapes", lambda: ops.where(np.ones(2, bool), t(3), t(3)), ["Where(float64(3,), float64(3,))", "(2,)"]),
    ("clip, no bound", lambda: t(2).clip(), ["clip: expected a bound, got low=None and high=None"]),
    ("clip, bounds exchanged", lambda: t(2).clip(2, 1), ["clip: expected low <= high, got 2.0 and 1.0"]),
    ("gelu", lambda: ops.gelu(t(2), "fast"), ['gelu, approximate: expected "none" or "tanh", got \'fast\'']),
    ("leaky_relu", lambda: ops.leaky_relu(t(2), "x"), ["leaky_relu, slope: expected a number, got 'x'"]),
    ("pad", lambda: ops.pad(t(2, 3), [(1, 1)]),
     ["Pad(float64(2, 3))", "one (before, after) pair >= 0 for each of 2 axes"]),
    ("pad, negative", lambda: ops.pad(t(2), [(-1, 1)]), ["Pad(float64(2,))", "got ((-1, 1),)"]),
    ("broadcast_to", lambda: ops.broadcast_to(t(2, 3), (3, 2)), ["BroadcastTo(float64(2, 3))"]),
    ("conv2d, no image", lambda: ops.conv2d(t(3, 4, 5), t(2, 3, 1, 1)),
     ["Conv2d(float64(3, 4, 5), float64(2, 3, 1, 1))", "expected x (N, C, H, W) and w (O, C, kh, kw)"]),
    ("conv2d, channels", lambda: ops.conv2d(t(2, 3, 4, 5), t(6, 4, 1, 1)),
     ["Conv2d(float64(2, 3, 4, 5), float64(6, 4, 1, 1))", "the input has 3 channels, the weight expects 4"]),
    ("conv2d, one image", lambda: ops.conv2d(t(3, 4, 5), t(2, 3, 1, 1)), ["x.reshape(1, *x.shape)"]),
    ("conv2d, groups", lambda: ops.conv2d(t(2, 6, 4, 5), t(4, 3, 1, 1), groups=3),
     ["Conv2d(", "groups: expected a divisor of 6 input and 4 output channels, got 3"]),
    ("conv2d, channels of groups", lambda: ops.conv2d(t(2, 6, 4, 5), t(4, 2, 1, 1), groups=2),
     ["the input has 6 channels, the weight expects 4"]),
    ("conv2d, groups of half", lambda: ops.conv2d(t(2, 6, 4, 5), t(4, 2, 1, 1), groups=1.5),
     ["conv2d, groups: expected an integer, got 1.5"]),
    ("conv2d, dilation 0", lambda: ops.conv2d(t(1, 1, 4, 4), t(1, 1, 2, 2), dilation=0), ["dilation >= 1"]),
    ("max_pool2d, dilation", lambda: ops.max_pool2d(t(1, 1, 4, 4), 2, dilation=(1, 2, 3)),
     ["max_pool2d, dilation: expected an integer or a pair"]),
    ("Conv2d, groups", lambda: nn.Conv2d(6, 4, 1, groups=3, rng=rng()),
     ["Conv2d, groups: expected a divisor of 6 input and 4 output channels, got 3"]),
    ("Bottleneck, groups", lambda: nn.Bottleneck(8, 8, groups=32, width_per_group=4, rng=rng()),
     ["Bottleneck: expected one channel or more in each of 1 or more groups, got groups=32 and 2 * width_per_group=4"]),
    ("imagenet, groups", lambda: models.imagenet(18, groups=2),
     ["imagenet: groups=2 and width_per_group=64 need the bottlenecks", "got depth 18"]),
    ("avg_pool2d, nothing counts", lambda: ops.avg_pool2d(t(1, 1, 4, 4), 2, 2, 2, count_include_pad=False),
     ["avg_pool2d: padding (2, 2) is more than half of the kernel (2, 2)", "count_include_pad=True or less padding"]),
    ("adaptive_avg_pool2d, size 0", lambda: ops.adaptive_avg_pool2d(t(1, 1, 4, 4), (1, 0)),
     ["adaptive_avg_pool2d, size: expected at least 1, got (1, 0)"]),
    ("adaptive_avg_pool2d, no image", lambda: ops.adaptive_avg_pool2d(t(2, 3), 1),
     ["AdaptiveAvgPool2d(float64(2, 3))", "expected x (N, C, H, W)"]),
    ("adaptive_avg_pool2d, array", lambda: ops.adaptive_avg_pool2d(normal(1, 1, 4, 4), 4),
     ["AdaptiveAvgPool2d: expected Tensors, got ndarray"]),
    ("max_pool2d, kernel -1", lambda: ops.max_pool2d(t(1, 1, 4, 4), -1), ["MaxPool2d(", "expected kernel >= 1"]),
    ("conv2d, no weight", lambda: ops.conv2d(t(1, 1, 4, 4), t(2, 1, 0, 3)), ["Conv2d(", "the weight is empty"]),
    ("adaptive_avg_pool2d, None", lambda: ops.adaptive_avg_pool2d(t(1, 1, 4, 4), (None, 2)),
     ["adaptive_avg_pool2d, size: expected an integer or a pair of integers"]),
    ("AdaptiveAvgPool2d, size 0", lambda: nn.AdaptiveAvgPool2d(0), ["AdaptiveAvgPool2d, size: expected at least 1"]),
    ("conv2d, bias", lambda: ops.conv2d(t(2, 3, 4, 5), t(6, 3, 1, 1), t(3)),
     ["Conv2d(", "expected a bias of shape (6,)"]),
    ("conv2d, stride of three", lambda: ops.conv2d(t(1, 1, 4, 4), t(1, 1, 1, 1), stride=(1, 2, 3)),
     ["conv2d", "stride", "expected an integer or a pair of integers", "got (1, 2, 3)"]),
    ("conv2d, padding of half", lambda: ops.conv2d(t(1, 1, 4, 4), t(1, 1, 1, 1), padding=0.5),
     ["conv2d", "padding", "expected an integer or a pair of integers", "0.5"]),
    ("conv2d, stride 0", lambda: ops.conv2d(t(1, 1, 4, 4), t(1, 1, 1, 1), stride=0), ["Conv2d(", "stride >= 1"]),
    ("max_pool2d, stride 0", lambda: ops.max_pool2d(t(1, 1, 4, 4), 2, 0), ["MaxPool2d(", "stride >= 1"]),
    ("avg_pool2d, stride 0", lambda: ops.avg_pool2d(t(1, 1, 4, 4), 2, 0), ["AvgPool2d(", "stride >= 1"]),
    ("conv2d, negative padding", lambda: ops.conv2d(t(1, 1, 4, 4), t(1, 1, 1, 1), padding=-1), ["padding >= 0"]),
    ("max_pool2d, padding", lambda: ops.max_pool2d(t(1, 1, 4, 4), 2, 2, 2),
     ["MaxPool2d(float64(1, 1, 4, 4))", "more than half of the kernel (2, 2)"]),
    ("global_avg_pool2d", lambda: ops.global_avg_pool2d(t(2, 3)),
     ["global_avg_pool2d: expected a Tensor x (N, C, H, W), got (2, 3)"]),
    ("global_avg_pool2d, array", lambda: ops.global_avg_pool2d(normal(2, 3, 4, 4)), ["got ndarray"]),
    ("batch_norm, three axes", lambda: ops.batch_norm(t(2, 3, 4), t(3), t(3)),
     ["BatchNorm(float64(2, 3, 4), ", "expected x (N, C) or (N, C, H, W)"]),
    ("batch_norm, gamma", lambda: ops.batch_norm(t(2, 3), t(4), t(3)),
     ["BatchNorm(", "of shape (3,), one for each channel, got (4,), (3,)"]),
    ("batch_norm_eval, statistics", lambda: ops.batch_norm_eval(t(2, 3), t(3), t(3), np.zeros(2), np.ones(3)),
     ["BatchNormEval(", "of shape (3,), one for each channel, got (3,), (3,), (2,), (3,)"]),
    ("BatchNorm2d of a vector", lambda: nn.BatchNorm2d(3)(t(2, 3)),
     ["BatchNorm2d: expected a 4-dimensional input, got (2, 3)"]),
    ("BatchNorm1d of an image", lambda: nn.BatchNorm1d(3)(t(2, 3, 4, 5)),
     ["BatchNorm1d: expected a 2-dimensional input"]),
    ("BatchNorm1d of one", lambda: nn.BatchNorm1d(3)(Tensor(np.ones((1, 3), np.float32))),
     ["BatchNorm1d: expected more than one value per channel in train mode, got 1", ".eval()"]),
    ("BatchNorm2d, momentum", lambda: nn.BatchNorm2d(3, momentum=None),
     ["BatchNorm2d: expected a number as momentum, got None", "set bn.momentum = 1 / n before batch number n"]),
    ("BatchNorm2d, statistics", lambda: nn.BatchNorm2d(3, track_running_stats=False),
     ["BatchNorm2d: expected track_running_stats=True", "call bn.train() after model.eval()"]),
    ("biases by hand", lambda: models.resnet20(width=2, bias=True, by_hand=True),
     ["cifar: by_hand=True supports only convolutions without a bias, got bias=True"]),
    ("subsample_and_pad", lambda: ops.subsample_and_pad(t(2, 3, 4, 4), 1, 2),
     ["SubsampleAndPad(float64(2, 3, 4, 4))", "at least the input's 3, got 2"]),
    ("subsample_and_pad, pad", lambda: ops.subsample_and_pad(t(2, 3, 4, 4), 1, 4, "left"),
     ["SubsampleAndPad(", 'expected "both" or "end", got \'left\'']),
    ("std", lambda: t(2, 3).std(0, correction=2),
     ["Std(float64(2, 3))", "expected more elements than correction=2, got 2"]),
    ("std, correction", lambda: t(2, 3).std(0, correction=float("nan")), ["correction: expected a number, got nan"]),
    ("var", lambda: t(1, 3).var(0, correction=1),
     ["Var(float64(1, 3))", "expected more elements than correction=1, got 1"]),
    ("dropout", lambda: ops.dropout(t(3), 1.0, rng=rng()), ["dropout: expected a probability 0 <= p < 1, got 1.0"]),
    ("dropout, negative", lambda: ops.dropout(t(3), -0.1, rng=rng()), ["got -0.1"]),
    ("item", lambda: t(2).item(), ["item(): expected one element, got shape (2,)"]),
]

KERNEL_LARGER = [
    ("conv2d", lambda: ops.conv2d(t(2, 3, 4, 5), t(6, 3, 5, 1)),
     ["Conv2d(float64(2, 3, 4, 5), float64(6, 3, 5, 1))",
      "a kernel of 5x1 is larger than the input of 4x5 padded by (0, 0)"]),
    ("conv2d, padded", lambda: ops.conv2d(t(2, 3, 4, 5), t(6, 3, 3, 8), padding=(0, 1)), ["3x8", "padded by (0, 1)"]),
    ("max_pool2d", lambda: ops.max_pool2d(t(2, 3, 4, 5), 5), ["MaxPool2d(float64(2, 3, 4, 5))", "5x5 is larger"]),
    ("avg_pool2d", lambda: ops.avg_pool2d(t(2, 3, 4, 5), (1, 6)), ["AvgPool2d(float64(2, 3, 4, 5))", "1x6 is larger"]),
]

NOTHING = np.empty((0, 3, 4, 4))
EMPTY = [
    ("conv2d", lambda: ops.conv2d(Tensor(NOTHING), t(2, 3, 1, 1)),
     ["Conv2d(float64(0, 3, 4, 4)", "the batch is empty"]),
    ("max_pool2d", lambda: ops.max_pool2d(Tensor(NOTHING), 2), ["MaxPool2d(", "the batch is empty"]),
    ("adaptive_avg_pool2d", lambda: ops.adaptive_avg_pool2d(Tensor(NOTHING[:, :, :0]), 2), ["with H, W >= 1"]),
    ("avg_pool2d", lambda: ops.avg_pool2d(Tensor(NOTHING), 2), ["AvgPool2d(", "the batch is empty"]),
    ("global_avg_pool2d", lambda: ops.global_avg_pool2d(Tensor(NOTHING[:, :, :0])), ["nothing to reduce"]),
    ("batch_norm", lambda: ops.batch_norm(Tensor(NOTHING), t(3), t(3)), ["BatchNorm(", "the batch is empty"]),
    ("batch_norm_eval", lambda: ops.batch_norm_eval(Tensor(NOTHING), t(3), t(3), np.zeros(3), np.ones(3)),
     ["BatchNormEval(", "the batch is empty"]),
    ("mean", lambda: ops.mean(Tensor(NOTHING)), ["Mean(float64(0, 3, 4, 4))", "nothing to reduce"]),
    ("max", lambda: ops.max(Tensor(NOTHING), 0), ["Max(float64(0, 3, 4, 4))", "nothing to reduce"]),
    ("cross_entropy", lambda: ops.cross_entropy(Tensor(np.empty((0, 5))), np.empty(0, int)),
     ["cross_entropy: expected logits (N, K, ...) with N >= 1, got (0, 5)", "the batch is empty"]),
    ("a network", lambda: models.cifar(8, width=2)(Tensor(np.empty((0, 3, 8, 8), np.float32))), ["the batch is empty"]),
    ("a network by hand", lambda: models.cifar(8, width=2, by_hand=True)(Tensor(np.empty((0, 3, 8, 8), np.float32))),
     ["the batch is empty"]),
]

LABELS = [
    ("too large", [0, 3], ["expected labels in 0..2, got 3"]),
    ("negative", [-1, 0], ["expected labels in 0..2, got -1"]),
    ("too few", [0], ["labels", "(2,)", "(1,)"]),
    ("two axes", [[0], [1]], ["labels", "(2,)", "(2, 1)"]),
    ("floats", [0.0, 1.0], ["labels", "integer", "float64"]),
    ("one-hot", np.eye(3)[:2], ["labels", "float64(2, 3)"]),
    ("booleans", [True, False], ["labels", "bool"]),
]
LABELS = [(name, lambda labels=labels: ops.cross_entropy(t(2, 3), labels), ["cross_entropy: expected", *texts])
          for name, labels, texts in LABELS] + [
    ("logits of three axes", lambda: ops.cross_entropy(t(2, 3, 4), [0, 1]),
     ["expected integer labels of shape (2, 4), got int64(2,)"]),
    ("logits of one axis", lambda: ops.cross_entropy(t(3), 0), ["expected logits (N, K, ...) with N >= 1, got (3,)"]),
    ("probabilities", lambda: ops.cross_entropy(t(2, 3), normal(2, 3)),
     ["for probabilities p write -(p * log_softmax(logits, 1)).sum(1).mean()"]),
    ("-100", lambda: ops.cross_entropy(t(2, 3), [0, -100]), ["got -100; is it ignore_index?"]),
    ("all ignored", lambda: ops.cross_entropy(t(2, 3), [1, 1], ignore_index=1),
     ["cross_entropy: every label is ignore_index=1, so there is no mean"]),
    ("reduction", lambda: ops.cross_entropy(t(2, 3), [0, 1], reduction="average"),
     ['cross_entropy, reduction: expected "mean", "sum" or "none", got \'average\'']),
    ("smoothing", lambda: ops.cross_entropy(t(2, 3), [0, 1], label_smoothing=1.5),
     ["cross_entropy, label_smoothing: expected a number from 0 to 1, got 1.5"]),
    ("weights", lambda: ops.cross_entropy(t(2, 3), [0, 1], weight=[1, 2]),
     ["cross_entropy, weight: expected 3 numbers, one for each class, got int64(2,)"]),
    ("weights as text", lambda: ops.cross_entropy(t(2, 3), [0, 1], weight=["a", "b", "c"]),
     ["cross_entropy, weight: expected 3 numbers"]),
    ("complex weights", lambda: ops.cross_entropy(t(2, 3), [0, 1], weight=[1j, 1, 1]), ["got complex128(3,)"]),
    ("weights of 0", lambda: ops.cross_entropy(t(2, 3), [0, 1], weight=[0, 0, 1]),
     ["the weights of all labels add up to 0, so there is no mean"]),
    ("weights with a gradient", lambda: ops.cross_entropy(t(2, 3), [0, 1], weight=Tensor(normal(3), True)),
     ["cross_entropy, weight: it has no gradient here; give weight.detach()"]),
    ("a list to ignore", lambda: ops.cross_entropy(t(2, 3), [0, 1], ignore_index=[0, 1]),
     ["cross_entropy, ignore_index: expected an integer, got [0, 1]"]),
    ("smoothing as text", lambda: ops.cross_entropy(t(2, 3), [0, 1], label_smoothing="much"),
     ["cross_entropy, label_smoothing: expected a number from 0 to 1, got 'much'"]),
    ("logits as an array", lambda: ops.cross_entropy(normal(2, 3), [0, 1]),
     ["cross_entropy: expected logits as a Tensor, got ndarray"])]

OPTIONS = [  # of layers: refused when the layer is made, not when it runs
    ("Conv2d, stride", lambda: nn.Conv2d(3, 4, 1, 0, rng=rng()), ["Conv2d, stride: expected at least 1, got 0"]),
    ("Conv2d, padding", lambda: nn.Conv2d(3, 4, 1, 1, (0, -1), rng=rng()), ["Conv2d, padding: expected at least 0"]),
    ("Conv2d, groups", lambda: nn.Conv2d(4, 4, 1, groups=2.0, rng=rng()), ["Conv2d: expected groups as an integer"]),
    ("Conv2d, channels", lambda: nn.Conv2d(3.0, 4, 1, rng=rng()), ["Conv2d: expected in_channels as an integer >= 1"]),
    ("Conv2d, seed", lambda: nn.Conv2d(3, 4, 1, rng=0),
     ["rng: expected a numpy.random.Generator, got int; numpy.random.default_rng(0) makes one"]),
    ("Linear", lambda: nn.Linear(0, 3, rng=rng()), ["Linear: expected in_features as an integer >= 1, got 0"]),
    ("Linear, seed", lambda: nn.Linear(2, 3, rng=None), ["rng: expected a numpy.random.Generator, got NoneType"]),
    ("BatchNorm2d", lambda: nn.BatchNorm2d(0), ["BatchNorm2d: expected channels as an integer >= 1, got 0"]),
    ("BatchNorm2d, eps", lambda: nn.BatchNorm2d(3, eps=-1), ["BatchNorm2d, eps: expected a number >= 0, got -1"]),
    ("BatchNorm2d, momentum", lambda: nn.BatchNorm2d(3, momentum=2), ["BatchNorm2d, momentum: expected a number from"]),
    ("MaxPool2d", lambda: nn.MaxPool2d(0), ["MaxPool2d, kernel: expected at least 1, got 0"]),
    ("MaxPool2d, dilation", lambda: nn.MaxPool2d(2, dilation=0), ["MaxPool2d, dilation: expected at least 1, got 0"]),
    ("AvgPool2d", lambda: nn.AvgPool2d(2, padding=1.5), ["AvgPool2d, padding: expected an integer or a pair"]),
    ("Dropout", lambda: nn.Dropout("half", rng=rng()), ["Dropout: expected a probability 0 <= p < 1, got 'half'"]),
    ("GELU", lambda: nn.GELU("fast"), ['GELU, approximate: expected "none" or "tanh", got \'fast\'']),
    ("LeakyReLU", lambda: nn.LeakyReLU(None), ["LeakyReLU, slope: expected a number, got None"]),
]

NUMBERS = [
    ("None", lambda: Tensor(None), ["Tensor(data): expected numbers, nested in lists, got NoneType"]),
    ("None in a list", lambda: Tensor([1.0, None]), ["Tensor(data): expected numbers", "got a list with NoneType"]),
    ("text", lambda: Tensor("3.5"), ["got str"]),
    ("complex numbers", lambda: Tensor([1j]), ["got a list with complex"]),
    ("dates", lambda: Tensor([np.datetime64("2020-01-01")]), ["got a list with date"]),
    ("lists of several lengths", lambda: Tensor([[1], [1, 2]]), ["Tensor(data): expected lists of equal lengths"]),
    ("plus None", lambda: t(2) + None, ["Tensor(data): expected numbers", "NoneType"]),
    ("text times", lambda: "3" * t(2), ["Tensor(data): expected numbers", "str"]),
    ("maximum of None", lambda: ops.maximum(None, t(2)), ["Tensor(data): expected numbers", "NoneType"]),
]


@pytest.mark.parametrize("call, texts", [pytest.param(call, texts, id=f"{group}: {name}")
                                         for group, cases in [("shape", SHAPES), ("kernel", KERNEL_LARGER),
                                                              ("empty", EMPTY), ("labels", LABELS),
                                                              ("options", OPTIONS), ("numbers", NUMBERS)]
                                         for name, call, texts in cases])
def test_values_that_do_not_fit(call, texts):
    with pytest.raises((ValueError, IndexError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert [text for text in texts if text not in message] == [], message


DTYPES = [
    ("integers", lambda: Tensor(np.arange(3)),
     ["Tensor(data): expected floating-point numbers, got int64(3,)", "astype"]),
    ("images as bytes", lambda: Tensor(np.zeros((1, 3, 2, 2), np.uint8)), ["got uint8(1, 3, 2, 2)"]),
    ("float32 with float64", lambda: Tensor(np.ones(2, np.float32)) + t(2),
     ["Add: all inputs must have one dtype, got float32(2,), float64(2,)", "astype"]),
    ("a float64 image in a float32 network", lambda: models.cifar(8, width=2)(t(2, 3, 8, 8)),
     ["Conv2d: all inputs must have one dtype, got float64(2, 3, 8, 8), float32(2, 3, 3, 3)"]),
    ("an integer array as an operand", lambda: t(3) * np.arange(3), ["expected floating-point numbers, got int64(3,)"]),
    ("no Tensor in a power", lambda: ops.pow(2.0, 3.0),
     ["pow: expected at least one Tensor, got float and float", "Tensor(array)"]),
    ("no Tensor in a maximum", lambda: ops.maximum(np.ones(2), 1.0),
     ["maximum: expected at least one Tensor, got ndarray and float"]),
    ("numbers as a condition", lambda: ops.where([1, 0], t(2), t(2)),
     ["where: expected an array of booleans as condition, such as x > 0, got int64"]),
    ("a Tensor as a condition", lambda: ops.where(t(2), t(2), t(2)),
     ["where: expected an array of booleans as condition, such as x > 0, got float64"]),
    ("a Tensor as a bound", lambda: t(2).clip(t(2)),
     ["clip: expected numbers as bounds, got Tensor and NoneType", "write minimum(maximum(x, low), high)"]),
    ("an array where a Tensor belongs", lambda: nn.Linear(3, 2, rng=rng())(np.ones((4, 3), np.float32)),
     ["Linear", "Tensor", "ndarray"]),
    ("an array in a convolution", lambda: nn.Conv2d(3, 2, 1, rng=rng())(np.ones((1, 3, 4, 4), np.float32)),
     ["Conv2d", "Tensor", "ndarray"]),
]


@pytest.mark.parametrize("call, texts", [pytest.param(*case[1:], id=case[0]) for case in DTYPES])
def test_types_that_do_not_fit(call, texts):
    with pytest.raises(TypeError) as caught:
        call()
    message = str(caught.value)
    assert [text for text in texts if text not in message] == [], message


def test_backward_from_a_non_scalar_and_backward_twice():
    x = Tensor(normal(2, 3), True)
    with pytest.raises(ValueError, match=r"backward\(\): expected a scalar, got shape \(2, 3\); .*or pass the "
                                         r"gradient to start from: backward\(g\)"):
        (x * 2).backward()
    loss = (x * 2).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match=r"backward\(\): this graph was already consumed by an earlier backward\(\); "
                                           r"run the forward pass again, or add the losses and call backward\(\) once"):
        loss.backward()


def test_a_tensor_mixed_with_an_array_on_another_device():
    elsewhere = np.ones(3).view(type("ndarray", (np.ndarray,), {"__module__": "cupy"}))
    with pytest.raises(TypeError, match=r"Add: all arrays must be on one device, got \(3,\) on the cpu, \(3,\) on the "
                                        r'gpu; move them with \.to\("cpu"\) or \.to\("gpu"\)'):
        t(3) + elsewhere


# ---------------------------------------------------------------------------------- NaN in the loss


def network_and_batch():
    net = models.cifar(8, width=2, rng=rng())
    images = normal(4, 3, 8, 8, dtype=np.float32)
    return net, SGD(net.parameters(), 0.1, 0.9), images, np.array([0, 1, 2, 3])


@pytest.mark.parametrize("poison, where", [
    ("layer2.0.conv2.weight", r"the output of layer 'layer2\.0\.conv2' \(Conv2d\)"),
    ("conv1.weight", r"the output of layer 'conv1' \(Conv2d\)"),
    ("bn1.bias", r"the output of layer 'bn1' \(BatchNorm2d\)"),
    ("fc.bias", r"the output of layer 'fc' \(Linear\)")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("by_hand", [False, True])
def test_training_stops_at_a_loss_that_is_not_finite(poison, where, value, by_hand):
    net, sgd, images, labels = network_and_batch()
    for block in (*net.layer1, *net.layer2, *net.layer3):
        block.by_hand = by_hand
    step(net, sgd, images, labels, 1)
    weight = net.state()[poison]
    weight.data = weight.data.copy()
    weight.data.flat[0] = value
    before = {n: s.data for n, s in net.state().items()}
    copies = {n: s.copy() for n, s in before.items()}
    with pytest.raises(NotFinite, match=rf"^step 2: the loss is (nan|inf), expected a finite number; the first "
                                        rf"non-finite values are in {where}\..*learning rate than 0\.1"):
        step(net, sgd, images, labels, 2)
    for n, s in net.state().items():
        assert s.data is before[n]
        np.testing.assert_array_equal(s.data, copies[n])


def test_an_input_that_is_not_finite_is_named():
    net, sgd, images, labels = network_and_batch()
    images[1, 2, 3, 4] = np.nan
    with pytest.raises(NotFinite, match=r"step 7: the loss is nan, expected a finite number; .* are in the input "
                                        r"itself"):
        step(net, sgd, images, labels, 7)
