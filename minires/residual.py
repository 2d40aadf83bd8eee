r"""This module has the residual block with its backward pass written by hand.

    x ---- conv1 -- bn1 -- relu ---- conv2 -- bn2 ----(+)---- relu ----> y         v1, Fig. 2
      \                                               /
       `------------------ shortcut -----------------'

Let F be the branch, s the shortcut, and z = F(x) + s(x) the sum before the last ReLU, so that y = relu(z). Then

    dL/dz = dL/dy * [z > 0]                            first, the mask of the last ReLU
    dL/dx = J_F^T dL/dz + J_s^T dL/dz                  = (J_F + I)^T dL/dz  for the identity shortcut

The backward pass follows two rules. Where two values are ADDED, both get the same gradient: dL/dz goes into the
branch and, unchanged, into the shortcut. Where one value is USED TWICE, its gradients are added: x gets the sum of
the gradients from the branch and from the shortcut. On the identity shortcut, dL/dz reaches x unchanged, whatever
the branch does. A name that ends in _s belongs to the shortcut: w_s are the weights of its projection (W_s in
equation 2 of v1).

Autograd computes the same gradients for the block composed of operations (nn.Block). With the reference kernels,
the two agree bit for bit.
"""
from __future__ import annotations

from typing import Any

from .ops import check_batch_norm, check_conv2d, check_subsample_and_pad
from .tensor import Function

ONE, NONE = (1, 1), (0, 0)  # ONE is stride 1, and the padding of every 3x3 convolution here; NONE is no padding


class Residual(Function):
    """Residual is the block of v1 as one step.

    With C input and O output channels, the inputs are:
    x: (N, C, H, W)
    w1, gamma1, beta1: (O, C, 3, 3), (O,), (O,)
    w2, gamma2, beta2: (O, O, 3, 3), (O,), (O,)
    projection: w_s (O, C, 1, 1), gamma_s, beta_s (O,) for option B; else nothing. Without a projection the shortcut
        is the identity if the shapes allow it, else option A with `pad`.
    eps: one number for each BatchNorm.
    stats: a list that receives (mean, variance, number of values per channel) of each BatchNorm.
    """

    def forward(self, x, w1, gamma1, beta1, w2, gamma2, beta2, *projection, stride, pad, eps, stats):
        K = self.K
        check_conv2d(x, w1)
        self.stride, self.pad = stride, pad
        a1 = K.conv2d(x, w1, (stride, stride), ONE)
        h, mean1, var1, self.bn1 = K.batch_norm_relu(a1, gamma1, beta1, eps[0])
        a2 = K.conv2d(h, w2, ONE, ONE)
        if projection:
            w_s, gamma_s, beta_s = projection
            a_s = K.conv2d(x, w_s, (stride, stride), NONE)
            skip, mean_s, var_s, self.bn_s = K.batch_norm(a_s, gamma_s, beta_s, eps[2])
        else:
            skip = parameter_free_shortcut(K, x, stride, len(w2), pad)
        y, mean2, var2, self.bn2 = K.batch_norm_relu(a2, gamma2, beta2, eps[1], skip=skip)

        count = y.size // y.shape[1]
        stats += [(mean1, var1, count), (mean2, var2, count)] + ([(mean_s, var_s, count)] if projection else [])
        self.saved = x, w1, gamma1, h, w2, gamma2, projection
        return y

    def backward(self, g):
        K = self.K
        x, w1, gamma1, h, w2, gamma2, projection = self.saved
        # Through the last ReLU and bn2. gz = dL/dz is also the gradient that the addition gives to the shortcut.
        ga2, ggamma2, gbeta2, gz = K.batch_norm_relu_backward(g, gamma2, self.bn2)
        gh, gw2 = K.conv2d_backward(ga2, h, w2, ONE, ONE)
        ga1, ggamma1, gbeta1, _ = K.batch_norm_relu_backward(gh, gamma1, self.bn1)
        gx, gw1 = K.conv2d_backward(ga1, x, w1, (self.stride, self.stride), ONE, need_x=self.needs[0])
        gprojection: tuple[Any, ...] = ()
        if projection:
            w_s, gamma_s, _ = projection
            ga_s, ggamma_s, gbeta_s = K.batch_norm_backward(gz, gamma_s, self.bn_s)
            gx_s, gw_s = K.conv2d_backward(ga_s, x, w_s, (self.stride, self.stride), NONE, need_x=self.needs[0])
            gprojection = gw_s, ggamma_s, gbeta_s
        else:
            gx_s = parameter_free_shortcut_backward(K, gz, x.shape, self.stride, self.pad)
        if self.needs[0]:
            gx = K.add(gx, gx_s)  # x was used twice
        return gx, gw1, ggamma1, gbeta1, gw2, ggamma2, gbeta2, *gprojection


class PreactResidual(Function):
    r"""PreactResidual is the full pre-activation block of v2 (Fig. 1b) as one step.

    y = x + conv2(relu(bn2(conv1(relu(bn1(x)))))):

        x ---- bn1 -- relu -- conv1 -- bn2 -- relu -- conv2 ----(+)----> y
          \                                                     /
           `---------------------- shortcut --------------------'

    Nothing follows the addition, so the shortcut receives dL/dy itself.

    With C input and O output channels, the inputs are:
    x: (N, C, H, W)
    gamma1, beta1, w1: (C,), (C,), (O, C, 3, 3)
    gamma2, beta2, w2: (O,), (O,), (O, O, 3, 3)
    projection: w_s (O, C, 1, 1), or nothing.
    split_after_activation: if True, the shortcut starts after relu(bn1(x)), as in the first block of a network
        (v2, appendix on implementation) and at every projection.
    eps, stats: as for Residual.
    """

    def forward(self, x, gamma1, beta1, w1, gamma2, beta2, w2, *projection, stride, pad, split_after_activation,
                eps, stats):
        K = self.K
        check_batch_norm(x, gamma1, beta1)
        check_conv2d(x, w1)
        self.stride, self.pad, self.split_after_activation = stride, pad, split_after_activation
        h1, mean1, var1, self.bn1 = K.batch_norm_relu(x, gamma1, beta1, eps[0])
        h2, mean2, var2, self.bn2 = K.batch_norm_relu(K.conv2d(h1, w1, (stride, stride), ONE), gamma2, beta2, eps[1])
        start = h1 if split_after_activation else x
        skip = (K.conv2d(start, projection[0], (stride, stride), NONE) if projection
                else parameter_free_shortcut(K, start, stride, len(w2), pad))
        stats += [(mean1, var1, x.size // x.shape[1]), (mean2, var2, h2.size // h2.shape[1])]
        self.saved = x, gamma1, h1, w1, gamma2, h2, w2, projection
        return K.add(K.conv2d(h2, w2, ONE, ONE), skip)

    def backward(self, g):
        K = self.K
        x, gamma1, h1, w1, gamma2, h2, w2, projection = self.saved
        gh2, gw2 = K.conv2d_backward(g, h2, w2, ONE, ONE)
        ga2, ggamma2, gbeta2, _ = K.batch_norm_relu_backward(gh2, gamma2, self.bn2)
        gh1, gw1 = K.conv2d_backward(ga2, h1, w1, (self.stride, self.stride), ONE)
        gprojection = ()
        if projection:
            gstart, *gprojection = K.conv2d_backward(g, h1 if self.split_after_activation else x, projection[0],
                                                     (self.stride, self.stride), NONE)
        else:
            gstart = parameter_free_shortcut_backward(K, g, x.shape, self.stride, self.pad)
        if self.split_after_activation:
            gh1 = K.add(gh1, gstart)  # here h1 was used twice
        gx, ggamma1, gbeta1, _ = K.batch_norm_relu_backward(gh1, gamma1, self.bn1)
        if not self.split_after_activation:
            gx = K.add(gx, gstart)    # here x was used twice
        return gx, ggamma1, gbeta1, gw1, ggamma2, gbeta2, gw2, *gprojection


def parameter_free_shortcut(K, x, stride, channels, pad):
    """Return the shortcut without weights: x itself if the shape allows it, else option A."""
    check_subsample_and_pad(x, channels, pad)
    return x if stride == 1 and channels == x.shape[1] else K.shortcut(x, stride, channels, pad)


def parameter_free_shortcut_backward(K, g, shape, stride, pad):
    """Return dL/dx of the shortcut without weights."""
    return g if g.shape == shape else K.shortcut_backward(g, shape, stride, pad)
