"""The bugs of A4, batch normalisation. See `bank.Bug`."""
from __future__ import annotations

from .bank import Bug

# Places of the solution that several bugs change.
DX = "dx = inv * (g - mean_term - var_term)"
MEAN, VAR = "mean_term = g.sum(axes, keepdims=True) / m", "var_term = xhat * (g * xhat).sum(axes, keepdims=True) / m"
DXHAT, DINV = "dxhat = dy * gamma.reshape(mu.shape)", "dvar = -0.5 * inv**3 * dinv"
DXC, DMU = "dxc = dxhat * inv + 2 / m * xc * dvar", "dmu = -dxc.sum(axes, keepdims=True)"
STAGED_DX = "dx = dxc + dmu / m"
DGAMMA, DBETA = "dgamma = (dy * xhat).sum(axes)", "dbeta = dy.sum(axes)"
EVAL_DX, EVAL_INV = "dx = g * inv", "inv = 1 / np.sqrt(var + eps)"
LAYER_MEAN = "mean = x.mean((0, 2, 3), keepdims=True)"
LAYER_VAR = "var = ((x - mean) * (x - mean)).mean((0, 2, 3), keepdims=True)"
UPDATE = "self.update(mean.data.reshape(-1), var.data.reshape(-1), x.size // x.shape[1])"
RUNNING_MEAN, RUNNING_VAR = "mean = self.running_mean.reshape(*shape)", "var = self.running_var.reshape(*shape)"
NEW_MEAN = "(1 - self.momentum) * self.running_mean.data + self.momentum * mean"
NEW_VAR = "(1 - self.momentum) * self.running_var.data + self.momentum * unbiased"

# A forward pass of the same mistake: the check of 4.3 uses it, too.
OUTSIDE = """def batch_norm_forward(x, gamma, beta, eps):
    axes = (0, *range(2, x.ndim))
    mu, root = x.mean(axes, keepdims=True), x.std(axes, keepdims=True) + eps
    xhat, inv = (x - mu) / root, 1 / root
    return gamma.reshape(inv.shape) * xhat + beta.reshape(inv.shape), (x, xhat, inv, gamma)


def batch_norm_backward(dy, cache):"""

CONSTANT_MEAN = (LAYER_MEAN, "mean = Tensor(x.data.mean((0, 2, 3), keepdims=True))")
CONSTANT_VAR = (LAYER_VAR, "var = Tensor(((x - mean) * (x - mean)).data.mean((0, 2, 3), keepdims=True))")

BUGS = [
    Bug(1, "the batch's statistics are treated as constants",
        {"a4.2": [[(STAGED_DX, "dx = dxhat * inv")],
                  [(DXC, "dxc = dxhat * inv"), (STAGED_DX, "dx = dxc")],
                  [(DINV, "dvar = 0 * dinv"), (DMU, "dmu = 0 * dinv")]],
         "a4.3": [[(DX, "dx = inv * g")]],
         "a4.6": [[CONSTANT_MEAN, CONSTANT_VAR]]}),
    Bug(2, "the variance is treated as a constant",
        {"a4.2": [[(DXC, "dxc = dxhat * inv")],
                  [(DINV, "dvar = 0 * dinv")]],
         "a4.3": [[(DX, "dx = inv * (g - mean_term)")]],
         "a4.6": [[CONSTANT_VAR]]}),
    Bug(3, "the mean is treated as a constant",
        {"a4.2": [[(STAGED_DX, "dx = dxc")],
                  [(DMU, "dmu = 0 * dinv")]],
         "a4.3": [[(DX, "dx = inv * (g - var_term)")]],
         "a4.6": [[CONSTANT_MEAN]]}),
    Bug(4, "the variance term divides by m - 1 in the backward pass, while the forward pass divides by m",
        {"a4.2": [[(DXC, "dxc = dxhat * inv + 2 / (m - 1) * xc * dvar")],
                  [(DXC, "dxc = dxhat * inv + 2 / (m - 1) * xc * dvar"), (STAGED_DX, "dx = dxc + dmu / (m - 1)")]],
         "a4.3": [[(VAR, "var_term = xhat * (g * xhat).sum(axes, keepdims=True) / (m - 1)")],
                  [("m = dy.size // dy.shape[1]", "m = dy.size // dy.shape[1] - 1")]]}),
    Bug(5, "gamma is missing in dx",
        {"a4.2": [[(DXHAT, "dxhat = dy")]],
         "a4.3": [[("g = dy * gamma.reshape(inv.shape)", "g = dy")],
                  [(MEAN, MEAN.replace("g.sum", "dy.sum")), (VAR, VAR.replace("(g *", "(dy *"))]],
         "a4.5": [[("g = dy * gamma.reshape(inv.shape)", "g = dy")]]}),
    Bug(6, "dx is divided by the variance instead of its root",
        {"a4.2": [[(DXC, "dxc = dxhat * inv * inv + 2 / m * xc * dvar")]],
         "a4.3": [[(DX, "dx = inv * inv * (g - mean_term - var_term)")]],
         "a4.5": [[(EVAL_DX, "dx = g * inv * inv")]]}),
    Bug(7, "the variance term has the wrong sign",
        {"a4.2": [[(DINV, "dvar = 0.5 * inv**3 * dinv")],
                  [(DXC, "dxc = dxhat * inv - 2 / m * xc * dvar")]],
         "a4.3": [[(DX, "dx = inv * (g - mean_term + var_term)")]]}),
    Bug(8, "dgamma is summed with x instead of xhat",
        {"a4.2": [[(DGAMMA, "dgamma = (dy * x).sum(axes)")],
                  [(DGAMMA, "dgamma = (dy * xc).sum(axes)")]],
         "a4.3": [[(DGAMMA, "dgamma = (dy * x).sum(axes)")],
                  [(DGAMMA, "dgamma = (dy * xhat / inv).sum(axes)")]],
         "a4.5": [[(DGAMMA, "dgamma = (dy * x).sum(axes)")],
                  [(DGAMMA, "dgamma = (dy * xhat / inv).sum(axes)")]]}),
    Bug(9, "dbeta is a mean instead of a sum",
        {"a4.2": [[(DBETA, "dbeta = dy.mean(axes)")],
                  [(DBETA, "dbeta = dy.sum(axes) / len(dy)")]],
         "a4.3": [[(DBETA, "dbeta = dy.mean(axes)")],
                  [(DBETA, "dbeta = dy.sum(axes) / len(dy)")]],
         "a4.5": [[(DBETA, "dbeta = dy.mean(axes)")],
                  [(DBETA, "dbeta = dy.sum(axes) / len(dy)")]]}),
    Bug(10, "dx is zero",
        {"a4.3": [[(DX, "dx = 0 * g")]],
         "a4.5": [[(EVAL_DX, "dx = 0 * g")]]}, seen="fact"),
    Bug(11, "the sums of the backward pass are divided by N instead of N H W",
        {"a4.2": [[("m = x.size // x.shape[1]", "m = len(x)")]],
         "a4.3": [[("m = dy.size // dy.shape[1]", "m = len(dy)")]]}),
    Bug(12, "the statistics run over the wrong axes",
        {"a4.1": [[("axes = (0, *range(2, x.ndim))", "axes = (0,)")],
                  [("axes = (0, *range(2, x.ndim))", "axes = tuple(range(2, x.ndim))")],
                  [("axes = (0, *range(2, x.ndim))", "axes = tuple(range(1, x.ndim))")],
                  [("axes = (0, *range(2, x.ndim))", "axes = tuple(range(x.ndim))")]],
         "a4.3": [[(MEAN, "mean_term = g.mean(0, keepdims=True)"),
                   (VAR, "var_term = xhat * (g * xhat).mean(0, keepdims=True)")],
                  [(MEAN, "mean_term = g.mean()"), (VAR, "var_term = xhat * (g * xhat).mean()")]],
         "a4.6": [[(LAYER_MEAN, LAYER_MEAN.replace("(0, 2, 3)", "(0, 1, 2, 3)")),
                   (LAYER_VAR, LAYER_VAR.replace("(0, 2, 3)", "(0, 1, 2, 3)"))],
                  [(LAYER_VAR, LAYER_VAR.replace("(0, 2, 3)", "(0, 1, 2, 3)"))]]}),
    Bug(13, "eps is added outside the root, or forgotten",
        {"a4.1": [[("inv = 1 / np.sqrt(var + eps)", "inv = 1 / (np.sqrt(var) + eps)")],
                  [("inv = 1 / np.sqrt(var + eps)", "inv = 1 / np.sqrt(var)")]],
         "a4.2": [[("inv = 1 / np.sqrt(var + eps)", "inv = 1 / (np.sqrt(var) + eps)")],
                  [("inv = 1 / np.sqrt(var + eps)", "inv = 1 / np.sqrt(var)")]],
         "a4.3": [[(DX, "dx = (g - mean_term - var_term) / x.std(axes, keepdims=True)")],
                  [("axes = (0, *range(2, dy.ndim))",
                    "axes = (0, *range(2, dy.ndim))\ninv = 1 / x.std(axes, keepdims=True)\n"
                    "xhat = (x - x.mean(axes, keepdims=True)) * inv")],
                  [("def batch_norm_backward(dy, cache):", OUTSIDE)]],
         "a4.5": [[(EVAL_INV, "inv = 1 / (np.sqrt(var) + eps)")],
                  [(EVAL_INV, "inv = 1 / np.sqrt(var)")]],
         "a4.6": [[("(var + self.eps).sqrt()", "(var.sqrt() + self.eps)")],
                  [("(var + self.eps).sqrt()", "var.sqrt()")]]}),
    Bug(14, "eval mode normalises by the batch's statistics",
        {"a4.5": [[(EVAL_INV, "axes = (0, *range(2, x.ndim))\nmean, var = x.mean(axes), x.var(axes)\n" + EVAL_INV)]],
         "a4.6": [[(RUNNING_MEAN, LAYER_MEAN), (RUNNING_VAR, LAYER_VAR)]]}),
    Bug(15, "eval mode moves the running statistics",
        {"a4.6": [[(RUNNING_MEAN, "self.update(x.data.mean((0, 2, 3)), x.data.var((0, 2, 3)), x.size // x.shape[1])\n"
                    + RUNNING_MEAN)],
                  [(RUNNING_VAR, RUNNING_VAR + "\nself.update(x.data.mean((0, 2, 3)), x.data.var((0, 2, 3)), "
                                               "x.size // x.shape[1])")]]}),
    Bug(16, "train mode normalises by the running statistics",
        {"a4.6": [[(UPDATE, f"{UPDATE}\n{RUNNING_MEAN}\n{RUNNING_VAR}")],
                  [(UPDATE, f"before = {RUNNING_MEAN[7:]}, {RUNNING_VAR[6:]}\n{UPDATE}\nmean, var = before")]]}),
    Bug(17, "the momentum weighs the old value instead of the new one",
        {"a4.4": [[("(1 - momentum) * mean + momentum * batch_mean", "momentum * mean + (1 - momentum) * batch_mean"),
                   ("(1 - momentum) * var + momentum * unbiased", "momentum * var + (1 - momentum) * unbiased")]],
         "a4.6": [[(NEW_MEAN, "self.momentum * self.running_mean.data + (1 - self.momentum) * mean"),
                   (NEW_VAR, "self.momentum * self.running_var.data + (1 - self.momentum) * unbiased")]]}),
    Bug(18, "the running variance takes the biased variance of the batch",
        {"a4.4": [[("unbiased = batch_var * (count / (count - 1))", "unbiased = batch_var")]],
         "a4.6": [[("unbiased = var * (count / (count - 1))", "unbiased = var")]]}),
    Bug(19, "the running arrays are the batch's arrays, changed in place",
        {"a4.4": [[("new_mean = (1 - momentum) * mean + momentum * batch_mean",
                    "batch_mean *= momentum\nbatch_mean += (1 - momentum) * mean\nnew_mean = batch_mean")],
                  [("new_mean = (1 - momentum) * mean + momentum * batch_mean",
                    "new_mean = batch_mean if momentum == 1 else (1 - momentum) * mean + momentum * batch_mean")]]},
        seen="exception"),
    Bug(20, "the running statistics are parameters",
        {"a4.6": [[("Tensor(np.zeros(channels, np.float32))", "Tensor(np.zeros(channels, np.float32), True)"),
                   ("Tensor(np.ones(channels, np.float32))", "Tensor(np.ones(channels, np.float32), True)")],
                  [("Tensor(np.ones(channels, np.float32))", "Tensor(np.ones(channels, np.float32), True)")]]}),
    Bug(21, "gamma and beta are not parameters",
        {"a4.6": [[("Tensor(np.ones(channels, np.float32), True)", "Tensor(np.ones(channels, np.float32))"),
                   ("Tensor(np.zeros(channels, np.float32), True)", "Tensor(np.zeros(channels, np.float32))")],
                  [("Tensor(np.zeros(channels, np.float32), True)", "Tensor(np.zeros(channels, np.float32))")]]}),
    Bug(22, "eval mode's backward pass subtracts the means, although the statistics are constants there",
        {"a4.5": [[(EVAL_DX, "dx = inv * (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, "
                             "keepdims=True))")],
                  [(EVAL_DX, "dx = inv * (g - g.mean(axes, keepdims=True))")]]}),
    Bug(23, "the mean is subtracted from x in place, so that the caller's x changes",
        {"a4.1": [[("xc = x - mu", "x -= mu\nxc = x")]],
         "a4.5": [[("xhat = (x - mean.reshape(shape)) * inv.reshape(shape)",
                    "x -= mean.reshape(shape)\nxhat = x * inv.reshape(shape)")]]}, seen="exception"),
    Bug(24, "the variance is computed as the mean of x squared minus the mean squared, which loses all its digits far "
            "from zero",
        {"a4.1": [[("var = (xc * xc).mean(axes, keepdims=True)", "var = (x * x).mean(axes, keepdims=True) - mu * mu")]],
         "a4.6": [[(LAYER_VAR, "var = (x * x).mean((0, 2, 3), keepdims=True) - mean * mean")]]}, seen="fact"),
    Bug(25, "one value per channel divides by zero instead of raising ValueError",
        {"a4.4": [[("if count < 2:", "if count < 0:")]],
         "a4.6": [[("if count < 2:", "if count < 0:")]]}, seen="exception"),
    Bug(26, "the gradients of gamma and beta keep axes of size 1",
        {"a4.2": [[(DGAMMA, "dgamma = (dy * xhat).sum(axes, keepdims=True)"),
                   (DBETA, "dbeta = dy.sum(axes, keepdims=True)")]],
         "a4.3": [[(DGAMMA, "dgamma = (dy * xhat).sum(axes, keepdims=True)"),
                   (DBETA, "dbeta = dy.sum(axes, keepdims=True)")]],
         "a4.5": [[(DGAMMA, "dgamma = (dy * xhat).sum(axes, keepdims=True)"),
                   (DBETA, "dbeta = dy.sum(axes, keepdims=True)")]]}, seen="fact"),
]
