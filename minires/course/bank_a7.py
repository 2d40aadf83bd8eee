"""The bugs of A7, reading a ResNet: changes of the solution in notebooks/course/a7.py."""
from __future__ import annotations

from .bank import Bug

THREE = "isinstance(module, nn.Conv2d) and module.weight.shape[2:] == (3, 3)"
STD = "float(out.data.std())"
NORM = f"elif isinstance(module, nn.BatchNorm2d) and inputs[0] is last[0]:\n    found[names[id(module)]] = {STD}"
AFTER_RELU = NORM.replace("out.data", "np.maximum(out.data, 0)")
AT_BLOCK = "elif isinstance(module, nn.Block):\n    found[names[id(module)] + '.bn2'] = float(out.data.std())"
SUM = """
    last[0] = out
elif isinstance(module, nn.Block) and module.residual:
    found[names[id(module)] + '.bn2'] = float((last[0] + module.shortcut(inputs[0])).data.std())
"""
WATCH = "with nn.watched(see), no_grad():"
LEFT = "nn.hooks.watchers.set((*nn.hooks.watchers.get(), see))\nwith no_grad():"
WRAPPED = """
def wrapped(module, forward):
    def run(*inputs):
        out = forward(*inputs)
        see(module, inputs, out)
        return out
    return run

for _, m in net.modules():
    m.forward = wrapped(m, m.forward)
with no_grad():
"""
SHORTCUT = "return ops.relu(block.shortcut(x))"
ZEROS = "return 0 * block.shortcut(x)"
RESTORED = "try:\n    yield\nfinally:\n    block.forward = forward"
WRONG, MISSED = "100 * float(wrong.mean())", "100 * float(missed.mean())"
ONE_LESS = "with without(net, name):\n    wrong = logits(net, x).argmax(1) != labels"
CUT = "stack.enter_context(without(net, name))\nwrong = logits(net, x).argmax(1) != labels"
AXES = "axes = tuple(range(1, t.ndim))"
SMALL = "if t.ndim < 2:\n    found[name] = np.zeros_like(t.data)\n    continue"
MOVED = "weights[name].data = w + float(a) * d1[name] + float(b) * d2[name]"
LOSS = "surface[i, j] = ops.cross_entropy(Tensor(logits(net, x)), labels).item()"
BACK = f"""
{LOSS}
for name in start:
    weights[name].data = weights[name].data - float(a) * d1[name] - float(b) * d2[name]
"""
FINALLY = "finally:\n    for name, w in start.items():\n        weights[name].data = w"
STATE = "state = rng.bit_generator.state\nfound = {}"

BUGS = [
    Bug(1, "the response is measured after the ReLU",
        {"a7.1": [[(STD, "float(np.maximum(out.data, 0).std())")],
                  [(NORM, f"{AFTER_RELU}\n{AT_BLOCK}")]]}),
    Bug(2, "the second response of a block is measured on the sum, after the shortcut was added",
        {"a7.1": [[(NORM, NORM + SUM.rstrip())]]}),
    Bug(3, "the response is a mean of several standard deviations, one per image or one per channel",
        {"a7.1": [[(STD, "float(out.data.std((1, 2, 3)).mean())")],
                  [(STD, "float(out.data.std((0, 2, 3)).mean())")]]}),
    Bug(4, "the responses are measured in eval mode",
        {"a7.1": [[("net.train()", "net.eval()")]]}),
    Bug(5, "the BN of a projection, which follows a 1x1 convolution, is included",
        {"a7.1": [[(THREE, "isinstance(module, nn.Conv2d)")]]}),
    Bug(6, "hooks stay after the measurement",
        {"a7.1": [[(WATCH, LEFT)], [(WATCH, WRAPPED)]]}),
    Bug(7, "gradients of the measurement stay in .grad",
        {"a7.4": [[("for t, grad in grads:\n    t.grad = grad", "pass")],
                  [("for t, grad in grads:\n    t.grad = grad", "pass"),
                   ("net.eval()", "net.eval()\nfor t in net.parameters():\n    t.grad = None")]]}),
    Bug(8, "the deleted block loses its shortcut too",
        {"a7.2": [[(SHORTCUT, ZEROS)]]}),
    Bug(9, "a block that changes the shape becomes zeros, not its shortcut",
        {"a7.2": [[(SHORTCUT, f"if block.stride != 1:\n    {ZEROS}\n{SHORTCUT}")]]}),
    Bug(10, "the block is not restored at the end, or not after an exception",
        {"a7.2": [[(RESTORED, "yield\nblock.forward = forward")], [(RESTORED, "yield")]],
         "a7.3": [[("found = {}", "found, stack = {}, ExitStack()"), (ONE_LESS, CUT)]]}),
    Bug(11, "a pass in train mode moves the running statistics, and nothing puts them back",
        {"a7.1": [[("for t, data in kept:\n    t.data = data", "pass")]],
         "a7.4": [[("net.eval()", "net.train()")]]}),
    Bug(12, "the k blocks are drawn with replacement, so that a block can be drawn twice",
        {"a7.3": [[("replace=False", "replace=True")]]}),
    Bug(13, "the accuracy, or a fraction, stands where the error in percent is asked for",
        {"a7.3": [[(WRONG, f"100 - {WRONG}"), (MISSED, f"100 - {MISSED}")],
                  [(WRONG, "float(wrong.mean())"), (MISSED, "float(missed.mean())")],
                  [(WRONG, "1 - float(wrong.mean())"), (MISSED, "1 - float(missed.mean())")]]}),
    Bug(14, "the direction is normalised per tensor, not filter by filter",
        {"a7.5": [[(AXES, "axes = tuple(range(t.ndim))")]]}),
    Bug(15, "BN and biases move too",
        {"a7.5": [[(SMALL, "pass")],
                  [(SMALL, "pass"), (AXES, "axes = tuple(range(min(1, t.ndim - 1), t.ndim))")],
                  [("np.zeros_like(t.data)", "rng.standard_normal(t.shape).astype(t.dtype)")]]}),
    Bug(16, "the weights are restored by subtraction, which leaves rounding errors in them",
        {"a7.6": [[(MOVED, MOVED.replace("= w +", "= weights[name].data +")), (LOSS, BACK),
                   (FINALLY, "finally:\n    pass")]]}),
    Bug(17, "both directions come from one state of the generator, so that they are equal",
        {"a7.5": [[("found = {}", "rng = np.random.default_rng(0)\nfound = {}")],
                  [("found = {}", STATE), ("return found", "rng.bit_generator.state = state\nreturn found")]]}),
    Bug(18, "the surface is transposed: alphas must count the rows",
        {"a7.6": [[("return surface", "return surface.T")],
                  [("return surface", "return surface.T.reshape(surface.shape)")]]}),
    Bug(19, "the number of paths of each length, a binomial coefficient, is forgotten",
        {"a7.4": [[("paths * norms", "norms")]]}),
]
