"""Answers to A8 in three styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# -------------------------------------------------------------------------------- 8.1 the pre-activation block

PREACT_PLAIN = '''
class PreactBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both",
                 split_after_activation=False, rng):
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        self.split_after_activation = split_after_activation
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.downsample = None
        if shortcut == "B" and (stride != 1 or in_channels != out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng))

    def forward(self, x):
        a = ops.relu(self.bn1(x))
        if self.downsample is not None:
            s = self.downsample(a)
        else:
            s = option_a(a if self.split_after_activation else x, self.stride, self.out_channels, self.pad)
        h = self.conv1(a)
        h = ops.relu(self.bn2(h))
        h = self.conv2(h)
        return s + h
'''
# The two halves of the branch are one function; the shortcut is chosen once, when the block is made.
PREACT_CHOSEN = '''
class PreactBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both",
                 split_after_activation=False, rng):
        self.stride, self.out_channels = stride, out_channels
        sizes = in_channels, out_channels, out_channels
        for i, step in enumerate((stride, 1)):
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(sizes[i]))
            setattr(self, f"conv{i + 1}", nn.Conv2d(sizes[i], sizes[i + 1], 3, step, 1, rng=rng))
        if shortcut == "B" and (in_channels, 1) != (out_channels, stride):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng))
            self.skip = lambda raw, active: self.downsample(active)
        elif split_after_activation:
            self.skip = lambda raw, active: option_a(active, stride, out_channels, pad)
        else:
            self.skip = lambda raw, active: option_a(raw, stride, out_channels, pad)

    def activated(self, bn, t):
        return ops.relu(bn(t))

    def forward(self, x):
        active = self.activated(self.bn1, x)
        branch = self.conv2(self.activated(self.bn2, self.conv1(active)))
        return branch + self.skip(x, active)
'''
PREACT_OPS = '''
class PreactBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both",
                 split_after_activation=False, rng):
        self.bn1, self.bn2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.stride, self.pad, self.early = stride, pad, not split_after_activation
        self.out_channels = out_channels
        if shortcut == "B" and not (stride == 1 and in_channels == out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng))

    def forward(self, x):
        a = ops.maximum(self.bn1(x), 0.0)
        first = ops.conv2d(a, self.conv1.weight, None, self.stride, 1)
        F = ops.conv2d(ops.maximum(self.bn2(first), 0.0), self.conv2.weight, None, 1, 1)
        projection = dict(self.children()).get("downsample")
        if projection is not None:
            (conv,) = [m for _, m in projection.children()]
            return F + ops.conv2d(a, conv.weight, None, self.stride, 0)
        start = x if self.early else a
        if start.shape == F.shape:
            return F + start
        return F + ops.subsample_and_pad(start, self.stride, F.shape[1], self.pad)
'''

# ----------------------------------------------------------------------------------------- 8.2 the bottleneck

BOTTLENECK_PLAIN = '''
class Bottleneck(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", version="v1", rng):
        k = out_channels // 4
        first, second = (stride, 1) if version == "v1" else (1, stride)
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        self.conv1 = nn.Conv2d(in_channels, k, 1, first, 0, rng=rng)
        self.bn1 = nn.BatchNorm2d(k)
        self.conv2 = nn.Conv2d(k, k, 3, second, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(k)
        self.conv3 = nn.Conv2d(k, out_channels, 1, 1, 0, rng=rng)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if shortcut == "B" and (stride != 1 or in_channels != out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),
                                            nn.BatchNorm2d(out_channels))

    def forward(self, x):
        h = ops.relu(self.bn1(self.conv1(x)))
        h = ops.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if self.downsample is None:
            s = option_a(x, self.stride, self.out_channels, self.pad)
        else:
            s = self.downsample(x)
        return ops.relu(h + s)
'''
BOTTLENECK_TABLE = '''
class Bottleneck(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", version="v1", rng):
        narrow = out_channels // 4
        strides = {"v1": (stride, 1, 1), "v1.5": (1, stride, 1)}[version]
        before, after = (in_channels, narrow, narrow), (narrow, narrow, out_channels)
        for i, kernel in enumerate((1, 3, 1)):
            setattr(self, f"conv{i + 1}", nn.Conv2d(before[i], after[i], kernel, strides[i], kernel // 2, rng=rng))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(after[i]))
        if shortcut == "B" and (stride, in_channels) != (1, out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),
                                            nn.BatchNorm2d(out_channels))
            self.skip = lambda x: self.downsample(x)
        else:
            self.skip = lambda x: option_a(x, stride, out_channels, pad)

    def forward(self, x):
        h = x
        for i in (1, 2, 3):
            h = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(h))
            h = ops.relu(h + self.skip(x) if i == 3 else h)
        return h
'''
BOTTLENECK_OPS = '''
class Bottleneck(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", version="v1", rng):
        k, conv = out_channels // 4, (lambda *a: nn.Conv2d(*a, rng=rng))
        self.late = version != "v1"
        self.conv1, self.bn1 = conv(in_channels, k, 1, 1, 0), nn.BatchNorm2d(k)
        self.conv2, self.bn2 = conv(k, k, 3, 1, 1), nn.BatchNorm2d(k)
        self.conv3, self.bn3 = conv(k, out_channels, 1, 1, 0), nn.BatchNorm2d(out_channels)
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        if shortcut == "B" and (stride > 1 or in_channels != out_channels):
            self.downsample = nn.Sequential(conv(in_channels, out_channels, 1, stride, 0),
                                            nn.BatchNorm2d(out_channels))

    def branch(self, x):
        s1, s2 = (1, self.stride) if self.late else (self.stride, 1)
        x = ops.maximum(self.bn1(ops.conv2d(x, self.conv1.weight, None, s1, 0)), 0.0)
        x = ops.maximum(self.bn2(ops.conv2d(x, self.conv2.weight, None, s2, 1)), 0.0)
        return self.bn3(ops.conv2d(x, self.conv3.weight, None, 1, 0))

    def forward(self, x):
        s = option_a(x, self.stride, self.out_channels, self.pad) if not hasattr(self, "downsample") \\
            else self.downsample(x)
        return ops.maximum(s + self.branch(x), 0.0)
'''

# ----------------------------------------------------------------------------- 8.3 something on the shortcut

JOINS_PLAIN = '''
class ScaledBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        self.stride, self.out_channels = stride, out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        h = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        s = option_a(x, self.stride, self.out_channels)
        return ops.relu(0.5 * s + 0.5 * h)


class GatedBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        self.stride, self.out_channels = stride, out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride, 0, bias=True, rng=rng)
        self.gate.bias = Tensor(init.constant((out_channels,), -6.0), True)

    def forward(self, x):
        h = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        s = option_a(x, self.stride, self.out_channels)
        g = ops.sigmoid(self.gate(x))
        return ops.relu((1 - g) * s + g * h)
'''
JOINS_SHARED = '''
class Branched(nn.Module):
    """v1's branch, and a join that the blocks fill in."""

    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.out_channels, self.stride = out_channels, stride

    def forward(self, x):
        h = ops.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        return ops.relu(self.join(x, option_a(x, self.stride, self.out_channels), h))


class ScaledBlock(Branched):
    def join(self, x, s, h):
        return (s + h) / 2


class GatedBlock(Branched):
    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        Branched.__init__(self, in_channels, out_channels, stride, rng=rng)
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride, 0, bias=True, rng=rng)
        self.gate.bias = Tensor(init.constant((out_channels,), -6.0), True)

    def join(self, x, s, h):
        return s + ops.sigmoid(self.gate(x)) * (h - s)
'''
JOINS_OPS = '''
def make(block, in_channels, out_channels, stride, rng):
    for i, before, step in (1, in_channels, stride), (2, out_channels, 1):
        setattr(block, f"conv{i}", nn.Conv2d(before, out_channels, 3, step, 1, rng=rng))
        setattr(block, f"bn{i}", nn.BatchNorm2d(out_channels))
    block.stride = stride


def paths(block, x):
    """Return s and h."""
    h = ops.conv2d(x, block.conv1.weight, None, block.stride, 1)
    h = ops.maximum(block.bn1(h), 0.0)
    h = block.bn2(ops.conv2d(h, block.conv2.weight, None, 1, 1))
    s = x if x.shape == h.shape else ops.subsample_and_pad(x, block.stride, h.shape[1], "both")
    return s, h


class ScaledBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        make(self, in_channels, out_channels, stride, rng)

    def forward(self, x):
        s, h = paths(self, x)
        return ops.maximum(s * 0.5 + h * 0.5, 0.0)


class GatedBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        make(self, in_channels, out_channels, stride, rng)
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride, 0, bias=True, rng=rng)
        self.gate.bias = Tensor(init.constant((out_channels,), -6.0), True)

    def forward(self, x):
        s, h = paths(self, x)
        closed = ops.sigmoid(-self.gate(x))
        opened = 1.0 - closed
        return ops.maximum(closed * s + opened * h, 0.0)
'''

# ------------------------------------------------------------------------------------------------- 8.4 counting

# A list of all convolutions and a list of all BNs.
COUNT_LISTS = '''
def count(depth, width, block, shortcut):
    deep = block in ("bottleneck", "preact_bottleneck")
    pre = block in ("preact", "preact_bottleneck")
    n = (depth - 2) // (9 if deep else 6)
    convolutions = [(3, width, 3, 32)]  # channels in, out, kernel, side of the output
    norms = [] if pre else [width]
    channels = width
    for stage in range(3):
        side = 32 >> stage
        narrow = width << stage
        out = 4 * narrow if deep else narrow
        for i in range(n):
            if deep:
                layers = [(channels, narrow, 1, side), (narrow, narrow, 3, side), (narrow, out, 1, side)]
            else:
                layers = [(channels, out, 3, side), (out, out, 3, side)]
            convolutions += layers
            norms += [c[0] if pre else c[1] for c in layers]
            if shortcut == "B" and (channels != out or (stage > 0 and i == 0)):
                convolutions.append((channels, out, 1, side))
                if not pre:
                    norms.append(out)
            channels = out
    if pre:
        norms.append(channels)
    weights = [a * b * k * k for a, b, k, _ in convolutions]
    macs = sum(w * side * side for w, (*_, side) in zip(weights, convolutions))
    linear = channels * 10
    return sum(weights) + 2 * sum(norms) + linear + 10, macs + linear
'''
# Two functions add to a purse as the network is walked through.
COUNT_WALK = '''
class Purse:
    def __init__(self):
        self.parameters = self.macs = 0

    def conv(self, before, after, kernel, pixels):
        self.parameters += before * after * kernel ** 2
        self.macs += before * after * kernel ** 2 * pixels

    def norm(self, channels):
        self.parameters += 2 * channels


def count(depth, width, block, shortcut):
    purse, v2 = Purse(), block.startswith("preact")
    expansion, per_block = (4, 3) if block.endswith("bottleneck") else (1, 2)
    blocks = (depth - 2) // (3 * per_block)
    purse.conv(3, width, 3, 32 * 32)
    if not v2:
        purse.norm(width)
    now, side = width, 32
    for stage in range(3):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            side //= stride
            k = width * 2 ** stage
            end = k * expansion
            if per_block == 3:
                plan = [(now, k, 1), (k, k, 3), (k, end, 1)]
            else:
                plan = [(now, k, 3), (k, k, 3)]
            for before, after, kernel in plan:
                purse.conv(before, after, kernel, side ** 2)
                purse.norm(before if v2 else after)
            if shortcut == "B" and (stride, now) != (1, end):
                purse.conv(now, end, 1, side ** 2)
                if not v2:
                    purse.norm(end)
            now = end
    if v2:
        purse.norm(now)
    purse.parameters += 11 * now - now + 10
    purse.macs += 10 * now
    return purse.parameters, purse.macs
'''
# Sums in closed form: each stage has one first block and n - 1 equal others.
COUNT_CLOSED = '''
def count(depth, width, block, shortcut):
    v2 = "preact" in block
    wide = "bottleneck" in block
    n = (depth - 2) // 9 if wide else (depth - 2) // 6
    ends = [width * e for e in ((4, 8, 16) if wide else (1, 2, 4))]
    starts = [width, *ends[:2]]
    pixels = [1024, 256, 64]
    parameters, macs = 27 * width, 27 * width * 1024
    for stage, (start, end, area) in enumerate(zip(starts, ends, pixels)):
        k = end // 4
        if wide:
            first, other = start * k + 9 * k * k + k * end, end * k + 9 * k * k + k * end
            bn_first, bn_other = (start + 2 * k, end + 2 * k) if v2 else (2 * k + end, 2 * k + end)
        else:
            first, other = 9 * start * end + 9 * end * end, 18 * end * end
            bn_first, bn_other = (start + end, 2 * end) if v2 else (2 * end, 2 * end)
        weights = first + (n - 1) * other
        projection = start * end if shortcut == "B" and start != end else 0
        parameters += weights + 2 * (bn_first + (n - 1) * bn_other) + projection
        if projection and not v2:
            parameters += 2 * end
        macs += (weights + projection) * area
    parameters += 2 * (ends[2] if v2 else width)
    return parameters + 10 * ends[2] + 10, macs + 10 * ends[2]
'''

# ----------------------------------------------------------------------------------- 8.5 a pre-activation network

NET = '''

def preact_net(depth, width, rng):
    return PreactNet(depth, width, rng)
'''
NET_PLAIN = '''
class PreactNet(nn.Module):
    def __init__(self, depth, width, rng):
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, rng=rng)
        self.layer1 = [nn.PreactBlock(width, width, 1, split_after_activation=i == 0, rng=rng) for i in range(n)]
        self.layer2 = [nn.PreactBlock(width * (2 if i else 1), 2 * width, 1 if i else 2, rng=rng) for i in range(n)]
        self.layer3 = [nn.PreactBlock(width * (4 if i else 2), 4 * width, 1 if i else 2, rng=rng) for i in range(n)]
        self.bn = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, 10, rng=rng)

    def forward(self, x):
        h = self.conv1(x)
        for block in [*self.layer1, *self.layer2, *self.layer3]:
            h = block(h)
        h = ops.relu(self.bn(h))
        return self.fc(ops.mean(h, (2, 3)))
''' + NET
NET_LOOP = '''
class PreactNet(nn.Module):
    def __init__(self, depth, width, rng):
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, rng=rng)
        before, very_first = width, True
        for stage in 1, 2, 3:
            blocks = []
            while len(blocks) < (depth - 2) // 6:
                stride = 2 if stage > 1 and not blocks else 1
                after = width * 2 ** (stage - 1)
                blocks.append(nn.PreactBlock(before, after, stride, split_after_activation=very_first, rng=rng))
                before, very_first = after, False
            setattr(self, f"layer{stage}", blocks)
        self.bn, self.fc = nn.BatchNorm2d(before), nn.Linear(before, 10, rng=rng)

    def forward(self, x):
        x = self.conv1(x)
        for stage in self.layer1, self.layer2, self.layer3:
            for block in stage:
                x = block(x)
        x = ops.relu(self.bn(x))
        x = ops.sum(ops.sum(x, 3), 2) / (x.shape[2] * x.shape[3])
        return self.fc(x)
''' + NET
NET_SEQUENTIAL = '''
class PreactNet(nn.Module):
    def __init__(self, depth, width, rng):
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, rng=rng)
        n = (depth - 2) // 6
        stage = lambda first, *others: nn.Sequential(first, *others)
        make = lambda a, b, step, **more: nn.PreactBlock(a, b, step, rng=rng, **more)
        self.layer1 = stage(make(width, width, 1, split_after_activation=True),
                            *[make(width, width, 1) for _ in range(1, n)])
        self.layer2 = stage(make(width, 2 * width, 2), *[make(2 * width, 2 * width, 1) for _ in range(1, n)])
        self.layer3 = stage(make(2 * width, 4 * width, 2), *[make(4 * width, 4 * width, 1) for _ in range(1, n)])
        self.bn = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, 10, rng=rng)

    def forward(self, x):
        sums = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(ops.global_avg_pool2d(ops.relu(self.bn(sums))))
''' + NET

ALTERNATES = {
    "a8.1": [PREACT_PLAIN, PREACT_CHOSEN, PREACT_OPS],
    "a8.2": [BOTTLENECK_PLAIN, BOTTLENECK_TABLE, BOTTLENECK_OPS],
    "a8.3": [JOINS_PLAIN, JOINS_SHARED, JOINS_OPS],
    "a8.4": [COUNT_LISTS, COUNT_WALK, COUNT_CLOSED],
    "a8.5": [NET_PLAIN, NET_LOOP, NET_SEQUENTIAL],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a8.1": [
        Planted(0, 1, ("return s + h", "return ops.relu(s + h)")),
        Planted(1, 1, ("return branch + self.skip(x, active)", "return ops.relu(branch + self.skip(x, active))")),
        Planted(2, 1, ("return F + start", "return ops.relu(F + start)"),
                ("return F + ops.conv2d(a, conv.weight, None, self.stride, 0)",
                 "return ops.relu(F + ops.conv2d(a, conv.weight, None, self.stride, 0))"),
                ("return F + ops.subsample_and_pad(start, self.stride, F.shape[1], self.pad)",
                 "return ops.relu(F + ops.subsample_and_pad(start, self.stride, F.shape[1], self.pad))")),
        Planted(0, 3, ("a if self.split_after_activation else x", "a")),
        Planted(1, 3, ("option_a(raw, stride, out_channels, pad)", "option_a(active, stride, out_channels, pad)")),
        Planted(2, 3, ("start = x if self.early else a", "start = a")),
        Planted(0, 4, ("s = self.downsample(a)", "s = self.downsample(x)")),
        Planted(1, 4, ("self.downsample(active)", "self.downsample(raw)")),
        Planted(2, 4, ("ops.conv2d(a, conv.weight", "ops.conv2d(x, conv.weight")),
        Planted(0, 5, ("a = ops.relu(self.bn1(x))", "a = self.bn1(ops.relu(x))"),
                ("h = ops.relu(self.bn2(h))", "h = self.bn2(ops.relu(h))")),
        Planted(1, 5, ("return ops.relu(bn(t))", "return bn(ops.relu(t))")),
        Planted(2, 5, ("ops.maximum(self.bn1(x), 0.0)", "self.bn1(ops.maximum(x, 0.0))"),
                ("ops.maximum(self.bn2(first), 0.0)", "self.bn2(ops.maximum(first, 0.0))")),
        Planted(0, 5, ("a = ops.relu(self.bn1(x))", "a = self.bn1(ops.relu(x))")),
        Planted(0, 6, ("a = ops.relu(self.bn1(x))", "np.maximum(x.data, 0, out=x.data)\na = ops.relu(self.bn1(x))")),
        Planted(1, 6, ("active = self.activated(self.bn1, x)", "active = self.activated(self.bn1, x)\n"
                                                               "np.maximum(x.data, 0, out=x.data)")),
        Planted(2, 6, ("start = x if self.early else a", "start = ops.maximum(x, 0.0) if self.early else a")),
        Planted(0, 9, ("out_channels, 3, stride, 1, rng=rng", "out_channels, 3, stride, 1, bias=True, rng=rng"),
                ("out_channels, 3, 1, 1, rng=rng", "out_channels, 3, 1, 1, bias=True, rng=rng")),
        Planted(1, 9, ("3, step, 1, rng=rng", "3, step, 1, bias=True, rng=rng")),
        Planted(2, 9, ("out_channels, 3, stride, 1, rng=rng", "out_channels, 3, stride, 1, bias=True, rng=rng"),
                ("None, self.stride, 1)", "self.conv1.bias, self.stride, 1)")),
        Planted(0, 9, ("out_channels, 1, stride, 0, rng=rng", "out_channels, 1, stride, 0, bias=True, rng=rng")),
    ],
    "a8.2": [
        Planted(0, 7, ("k = out_channels // 4", "k = out_channels // 2")),
        Planted(1, 7, ("narrow = out_channels // 4", "narrow = in_channels // 4")),
        Planted(2, 7, ("k, conv = out_channels // 4", "k, conv = out_channels")),
        Planted(1, 7, ("(in_channels, narrow, narrow), (narrow, narrow, out_channels)",
                       "(in_channels, in_channels, narrow), (in_channels, narrow, out_channels)")),
        Planted(0, 7, ("k, 1, first, 0, rng", "out_channels, 1, first, 0, rng"),
                ("self.bn1 = nn.BatchNorm2d(k)", "self.bn1 = nn.BatchNorm2d(out_channels)"),
                ("nn.Conv2d(k, k, 3", "nn.Conv2d(out_channels, k, 3")),
        Planted(0, 8, ('version == "v1"', 'version != "v1"')),
        Planted(1, 8,
                ('{"v1": (stride, 1, 1), "v1.5": (1, stride, 1)}', '{"v1.5": (stride, 1, 1), "v1": (1, stride, 1)}')),
        Planted(2, 8, ('self.late = version != "v1"', 'self.late = version == "v1"')),
        Planted(0, 8, ('(stride, 1) if version == "v1" else (1, stride)', "(stride, 1)")),
        Planted(1, 8, ('"v1": (stride, 1, 1)', '"v1": (1, stride, 1)')),
        Planted(0, 9, ("k, 3, second, 1, rng=rng", "k, 3, second, 1, bias=True, rng=rng")),
        Planted(1, 9, ("kernel // 2, rng=rng", "kernel // 2, bias=True, rng=rng")),
        Planted(0, 9, ("k, 1, first, 0, rng=rng", "k, 1, first, 0, bias=True, rng=rng"),
                ("k, 3, second, 1, rng=rng", "k, 3, second, 1, bias=True, rng=rng"),
                ("k, out_channels, 1, 1, 0, rng=rng", "k, out_channels, 1, 1, 0, bias=True, rng=rng")),
    ],
    "a8.3": [
        Planted(0, 11, ("0.5 * s + 0.5 * h", "0.5 * s + h")),
        Planted(0, 11, ("0.5 * s + 0.5 * h", "s + 0.5 * h")),
        Planted(1, 11, ("(s + h) / 2", "s / 2 + h")),
        Planted(2, 11, ("s * 0.5 + h * 0.5", "s + h * 0.5")),
        Planted(0, 12, ("(1 - g) * s + g * h", "s + g * h")),
        Planted(1, 12, ("* (h - s)", "* h")),
        Planted(2, 12, ("closed * s + opened * h", "s + opened * h")),
        Planted(0, 12, ("g = ops.sigmoid(self.gate(x))", "g = ops.sigmoid(ops.mean(self.gate(x), (1, 2, 3), True))")),
        Planted(2, 12, ("closed = ops.sigmoid(-self.gate(x))",
                        "closed = ops.sigmoid(ops.mean(-self.gate(x), (1, 2, 3), keepdims=True))")),
        Planted(1, 12, ("s + ops.sigmoid(self.gate(x)) * (h - s)",
                        "s + ops.sigmoid(ops.mean(self.gate(x), (1, 2, 3), True)) * (h - s)")),
        Planted(1, 9, ("3, stride, 1, rng", "3, stride, 1, bias=True, rng"),
                ("3, 1, 1, rng", "3, 1, 1, bias=True, rng")),
        Planted(2, 9, ("3, step, 1, rng", "3, step, 1, bias=True, rng")),
    ],
    "a8.4": [
        Planted(0, 10, ("(9 if deep else 6)", "6")),
        Planted(1, 10, ("blocks = (depth - 2) // (3 * per_block)", "blocks = (depth - 2) // 6")),
        Planted(2, 10, ("(depth - 2) // 9 if wide", "(depth - 2) // 6 if wide")),
        Planted(0, 13, ("side = 32 >> stage", "side = 32")),
        Planted(1, 13, ("side //= stride", "side //= 1")),
        Planted(2, 13, ("pixels = [1024, 256, 64]", "pixels = [1024, 1024, 1024]")),
        Planted(0, 13, ("sum(w * side * side for", "sum(w * 32 * 32 for")),
        Planted(0, 16, ("convolutions.append((channels, out, 1, side))", "convolutions.append((channels, out, 1, 0))")),
        Planted(1, 16, ("purse.conv(now, end, 1, side ** 2)", "purse.conv(now, end, 1, 0)")),
        Planted(2, 16, ("macs += (weights + projection) * area", "macs += weights * area")),
        Planted(0, 7, ("out = 4 * narrow if deep else narrow", "out = narrow")),
        Planted(1, 7, ("k = width * 2 ** stage", "k = width * 2 ** stage * expansion"),
                ("end = k * expansion", "end = k")),
        Planted(2, 7, ("k = end // 4", "k = end // 2")),
        Planted(0, 9, ("+ 2 * sum(norms)", "+ sum(c[1] for c in convolutions) + 2 * sum(norms)")),
        Planted(1, 9,
                ("self.parameters += before * after * kernel ** 2", "self.parameters += before * after * kernel ** 2"
                       " + after")),
        Planted(0, 8,
                ("layers = [(channels, narrow, 1, side), (", "layers = [(channels, narrow, 1, side << (stage > 0 and"
                       " i == 0)), (")),
    ],
    "a8.5": [
        Planted(0, 2, ("h = ops.relu(self.bn(h))", "pass")),
        Planted(1, 2, ("x = ops.relu(self.bn(x))", "pass")),
        Planted(2, 2, ("ops.relu(self.bn(sums))", "sums")),
        Planted(0, 2, ("self.bn = nn.BatchNorm2d(4 * width)", "pass"), ("h = ops.relu(self.bn(h))", "pass")),
        Planted(0, 14, ("ops.mean(h, (2, 3))", "ops.mean(h, (1, 2))"), ),
        Planted(1, 14, ("x = ops.sum(ops.sum(x, 3), 2) / (x.shape[2] * x.shape[3])",
                        "x = ops.sum(ops.sum(x, 2), 1) / (x.shape[1] * x.shape[2])")),
        Planted(0, 14, ("ops.mean(h, (2, 3))", "ops.mean(h, (0, 2))"), ),
        Planted(0, 15, ("h = self.conv1(x)", "h = ops.relu(self.conv1(x))")),
        Planted(1, 15, ("x = self.conv1(x)", "x = ops.relu(self.conv1(x))")),
        Planted(2, 15, ("self.layer1(self.conv1(x))", "self.layer1(ops.relu(self.conv1(x)))")),
        Planted(0, 3, ("split_after_activation=i == 0", "split_after_activation=True")),
        Planted(2, 3, ("rng=rng, **more)", "rng=rng, **{'split_after_activation': True, **more})")),
        Planted(1, 3, ("before, very_first = after, False", "before = after")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a8.1": [Other(0, ("return s + h", "return s - h")),
             Other(1, ("return ops.relu(bn(t))", "return ops.sigmoid(bn(t))"))],
    "a8.2": [Other(0, ("return ops.relu(h + s)", "return ops.relu(h - s)")),
             Other(2, ("s + self.branch(x)", "s + s * self.branch(x)"))],
    "a8.3": [Other(1, ("(s + h) / 2", "(s - h) / 2"), ("* (h - s)", "* (h + s)")), Other(0, ("-6.0", "-3.0"))],
    "a8.4": [Other(0, ("+ linear + 10, macs", "+ linear, macs")), Other(1, ("purse.macs += 10 * now", "pass"))],
    "a8.5": [Other(0, ("ops.relu(self.bn(h))", "self.bn(ops.relu(h))")),
             Other(1, ("ops.relu(self.bn(x))", "self.bn(x)")),
             Other(0, ("split_after_activation=i == 0, ", ""))],
}
