"""The bugs of A8: pre-activation, bottleneck, shortcuts."""
from __future__ import annotations

from .bank import Bug

FIRST = "a = ops.relu(self.bn1(x))"
SECOND = "h = ops.relu(self.bn2(h))"
START = "start = a if self.split_after_activation else x"
CONV1 = "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)"
CONV2 = "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)"
DOWN = "nn.Conv2d(in_channels, out_channels, 1, stride, rng=rng)"
STRIDES = 'first, second = (stride, 1) if version == "v1" else (1, stride)'
NARROW1 = "self.conv1 = nn.Conv2d(in_channels, width, 1, first, rng=rng)"
NARROW2 = "self.conv2 = nn.Conv2d(width, width, 3, second, 1, rng=rng)"
NARROW3 = "self.conv3 = nn.Conv2d(width, out_channels, 1, rng=rng)"
WIDTH = "width = out_channels // 4"
INSIDE, OUTSIDE = "inside = outside // 4", "outside = width * 2**stage * (4 if bottleneck else 1)"
STAGE2 = "PreactBlock(width * (2 if i else 1), 2 * width, 1 if i else 2, rng=rng)"
STAGE3 = "PreactBlock(width * (4 if i else 2), 4 * width, 1 if i else 2, rng=rng)"
SCALED = '''class ScaledBlock(nn.Module):
    """v1's block with 0.5 on the shortcut and 0.5 on the branch."""

    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        self.stride, self.out_channels = stride, out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
'''
GATED = SCALED.replace("ScaledBlock", "GatedBlock").replace(
    "0.5 on the shortcut and 0.5 on the branch", "a gate g on the branch and 1 - g on the shortcut")
GATE = "g = ops.sigmoid(self.gate(x))"
AGAIN = "ops.relu(self.bn1(a)) if self.split_after_activation else a"
CLIP = "np.maximum(x.data, 0, out=x.data)"


def biased(convolution: str) -> tuple[str, str]:
    """Return the change that gives a convolution a bias."""
    return convolution, convolution.replace("rng=rng", "bias=True, rng=rng")


BUGS = [
    Bug(1, "a ReLU stays after the addition, so the sum is not carried on as it is",
        {"a8.1": [[("return h + s", "return ops.relu(h + s)")]]}),
    Bug(2, "the last BN and ReLU, between the last block and the pooling, are missing",
        {"a8.5": [[("h = ops.relu(self.bn(h))", "")]]}),
    Bug(3, "the identity starts at relu(bn1(x)) and not at x",
        {"a8.1": [[(START, "start = a")]],
         "a8.5": [[(STAGE2, STAGE2.replace("rng=", "split_after_activation=True, rng=")),
                   (STAGE3, STAGE3.replace("rng=", "split_after_activation=True, rng="))]]}),
    Bug(4, "the projection reads x and not relu(bn1(x))",
        {"a8.1": [[("s = self.downsample(a)", "s = self.downsample(x)")]]}),
    Bug(5, "ReLU stands before BN",
        {"a8.1": [[(FIRST, "a = self.bn1(ops.relu(x))"), (SECOND, "h = self.bn2(ops.relu(h))")],
                  [(FIRST, "a = self.bn1(ops.relu(x))")],
                  [(SECOND, "h = self.bn2(ops.relu(h))")]]}),
    Bug(6, "a ReLU in place changes x, which the identity still needs",
        {"a8.1": [[(FIRST, f"{CLIP}; a = self.bn1(x)")],
                  [(FIRST, f"{CLIP}; a = ops.relu(self.bn1(x))")],
                  [(FIRST, f"{FIRST}; {CLIP}")],
                  [(FIRST, f"{FIRST}; x.data[...] = a.data")]]}),
    Bug(7, "the bottleneck's width is not out_channels / 4, or the wrong convolution has it",
        {"a8.2": [[(WIDTH, "width = out_channels // 2")],
                  [(WIDTH, "width = in_channels // 4")],
                  [(WIDTH, "width = in_channels")],
                  [(WIDTH, "width = out_channels")],
                  [(NARROW1, NARROW1.replace("width", "in_channels")),
                   ("self.bn1 = nn.BatchNorm2d(width)", "self.bn1 = nn.BatchNorm2d(in_channels)"),
                   (NARROW2, NARROW2.replace("Conv2d(width", "Conv2d(in_channels"))],
                  [(NARROW1, NARROW1.replace("width", "out_channels")),
                   ("self.bn1 = nn.BatchNorm2d(width)", "self.bn1 = nn.BatchNorm2d(out_channels)"),
                   (NARROW2, NARROW2.replace("Conv2d(width", "Conv2d(out_channels"))],
                  [(NARROW2, NARROW2.replace("width, 3", "out_channels, 3")),
                   ("self.bn2 = nn.BatchNorm2d(width)", "self.bn2 = nn.BatchNorm2d(out_channels)"),
                   (NARROW3, NARROW3.replace("width", "out_channels"))]],
         "a8.4": [[(INSIDE, "inside = outside // 2")], [(INSIDE, "inside = outside")],
                  [(OUTSIDE, "outside = width * 2**stage")],
                  [(OUTSIDE, "outside = width * 2**stage"), (INSIDE, "inside = outside")]]}),
    Bug(8, "the other convolution has the stride: v1 has it in the first 1x1, v1.5 in the 3x3",
        {"a8.2": [[(STRIDES, 'first, second = (1, stride) if version == "v1" else (stride, 1)')],
                  [(STRIDES, "first, second = stride, 1")],
                  [(STRIDES, "first, second = 1, stride")]],
         "a8.4": [[("convolutions.append((channels, inside, 1, size))",
                    "convolutions.append((channels, inside, 1, size * stride))")]]}),
    Bug(9, "convolutions have biases, next to a BN that has one already",
        {"a8.1": [[biased(CONV1), biased(CONV2), biased(DOWN)], [biased(CONV1), biased(CONV2)], [biased(DOWN)],
                  [biased(CONV1)], [biased(CONV2)]],
         "a8.2": [[biased(NARROW1), biased(NARROW2), biased(NARROW3), biased(DOWN)],
                  [biased(NARROW1), biased(NARROW2), biased(NARROW3)], [biased(DOWN)],
                  [biased(NARROW1)], [biased(NARROW2)], [biased(NARROW3)]],
         "a8.3": [[(SCALED, SCALED.replace("rng=rng", "bias=True, rng=rng")),
                   (GATED, GATED.replace("1, rng=rng", "1, bias=True, rng=rng"))]],
         "a8.4": [[("sum(a * b * k * k for", "sum(a * b * k * k + b for")]]}),
    Bug(10, "9n + 2 layers are counted as 6n + 2: a bottleneck has three layers, not two",
        {"a8.4": [[("layers = 3 if bottleneck else 2", "layers = 2")]]}),
    Bug(11, "0.5 scales only one side of the addition",
        {"a8.3": [[("0.5 * s + 0.5 * h", "0.5 * s + h")], [("0.5 * s + 0.5 * h", "s + 0.5 * h")]]}),
    Bug(12, "the shortcut lacks its factor 1 - g, or the gate is one number for a whole image",
        {"a8.3": [[("(1 - g) * s + g * h", "s + g * h")],
                  [(GATE, "g = ops.sigmoid(ops.mean(self.gate(x), (1, 2, 3), keepdims=True))")],
                  [(GATE, "g = ops.mean(ops.sigmoid(self.gate(x)), (1, 2, 3), keepdims=True)")]]}),
    Bug(13, "the MACs ignore the stride: every convolution is counted on the whole 32 x 32 map",
        {"a8.4": [[("size = size // stride", "size = 32")]]}),
    Bug(14, "the pooling averages over the wrong axes; the map's are 2 and 3",
        {"a8.5": [[("ops.mean(h, (2, 3))", "ops.mean(h, (1, 2))")], [("ops.mean(h, (2, 3))", "ops.mean(h, (1, 3))")],
                  [("ops.mean(h, (2, 3))", "ops.mean(h, (0, 2))")], [("ops.mean(h, (2, 3))", "ops.mean(h, (0, 3))")]]}),
    Bug(15, "the first block is activated twice",
        {"a8.1": [[(FIRST, f"{FIRST}; a = {AGAIN}")], [("h = self.conv1(a)", f"h = self.conv1({AGAIN})")]],
         "a8.5": [[("h = self.conv1(x)", "h = ops.relu(self.conv1(x))")]]}),
    Bug(16, "the projections' MACs are left out",
        {"a8.4": [[("convolutions.append((channels, outside, 1, size))",
                    "convolutions.append((channels, outside, 1, 0))")]]}),
]
