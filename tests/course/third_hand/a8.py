"""A third hand's answers to A8, and the bank's bugs planted in them by sentence: see named.py."""

PREACT = '''
class PreactBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both",
                 split_after_activation=False, rng):
        def three(before, step):
            return nn.Conv2d(before, out_channels, 3, step, 1, rng=rng)

        self.bn1, self.conv1 = nn.BatchNorm2d(in_channels), three(in_channels, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out_channels), three(out_channels, 1)
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        self.late = split_after_activation
        self.projects = shortcut == "B" and (stride, in_channels) != (1, out_channels)
        if self.projects:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng))

    def forward(self, x):
        start = ops.relu(self.bn1(x))
        inner = ops.relu(self.bn2(self.conv1(start)))
        branch = self.conv2(inner)
        if self.projects:
            side = self.downsample(start)
        else:
            side = option_a(start if self.late else x, self.stride, self.out_channels, self.pad)
        return side + branch
'''

BOTTLENECK = '''
class Bottleneck(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", version="v1", rng):
        k = out_channels // 4
        first, second = {"v1": (stride, 1), "v1.5": (1, stride)}[version]
        self.conv1 = nn.Conv2d(in_channels, k, 1, first, 0, rng=rng)
        self.bn1 = nn.BatchNorm2d(k)
        self.conv2 = nn.Conv2d(k, k, 3, second, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(k)
        self.conv3 = nn.Conv2d(k, out_channels, 1, 1, 0, rng=rng)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.fit = stride, out_channels, pad
        self.downsample = None
        if shortcut == "B" and not (stride == 1 and in_channels == out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),
                                            nn.BatchNorm2d(out_channels))

    def forward(self, x):
        t = x
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            t = ops.relu(bn(conv(t)))
        t = self.bn3(self.conv3(t))
        return ops.relu(t + (self.downsample(x) if self.downsample else option_a(x, *self.fit)))
'''

JOINS = '''
class Joined(nn.Module):
    """The branch and the shortcut; subclasses say how they join."""

    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride, self.out_channels = stride, out_channels
        self.more(in_channels, rng)

    def more(self, in_channels, rng):
        pass

    def forward(self, x):
        h = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        return ops.relu(self.join(x, option_a(x, self.stride, self.out_channels), h))


class ScaledBlock(Joined):
    def join(self, x, s, h):
        return 0.5 * (s + h)


class GatedBlock(Joined):
    def more(self, in_channels, rng):
        self.gate = nn.Conv2d(in_channels, self.out_channels, 1, self.stride, 0, bias=True, rng=rng)
        self.gate.bias = Tensor(init.constant((self.out_channels,), -6.0), True)

    def join(self, x, s, h):
        g = ops.sigmoid(self.gate(x))
        return (1 - g) * s + g * h
'''

COUNT = '''
def count(depth, width, block, shortcut):
    deep, early = block.endswith("bottleneck"), block.startswith("preact")
    n = (depth - 2) // (9 if deep else 6)
    weights, normed, macs = 0, 0, 0

    def layer(before, after, kernel, side, bn=True):
        nonlocal weights, normed, macs
        weights += before * after * kernel ** 2
        macs += before * after * kernel ** 2 * side ** 2
        if bn:
            normed += before if early else after

    layer(3, width, 3, 32, bn=not early)
    have = width
    for stage in range(3):
        thin, side = width * 2 ** stage, 32 // 2 ** stage
        out = 4 * thin if deep else thin
        for i in range(n):
            if deep:
                layer(have, thin, 1, side)
                layer(thin, thin, 3, side)
                layer(thin, out, 1, side)
            else:
                layer(have, thin, 3, side)
                layer(thin, thin, 3, side)
            changes = have != out or (stage > 0 and i == 0)
            if shortcut == "B" and changes:
                layer(have, out, 1, side, bn=not early)
            have = out
    if early:
        normed += have
    return weights + 2 * normed + 10 * have + 10, macs + 10 * have
'''

NET = PREACT + '''

class PreactNet(nn.Module):
    def __init__(self, depth, width, rng):
        n, have = (depth - 2) // 6, width
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, rng=rng)
        stages = []
        for number, out in enumerate((width, 2 * width, 4 * width)):
            stage = []
            for i in range(n):
                very_first = number == i == 0
                stage.append(PreactBlock(have, out, 2 if number and i == 0 else 1,
                                         split_after_activation=very_first, rng=rng))
                have = out
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(have)
        self.fc = nn.Linear(have, 10, rng=rng)

    def forward(self, x):
        t = self.conv1(x)
        for block in self.layer1 + self.layer2 + self.layer3:
            t = block(t)
        t = ops.relu(self.bn(t))
        return self.fc(ops.mean(t, (2, 3)))


def preact_net(depth, width, rng):
    return PreactNet(depth, width, rng)
'''

ANSWERS = {"a8.1": PREACT, "a8.2": BOTTLENECK, "a8.3": JOINS, "a8.4": COUNT, "a8.5": NET}

PLANTED = {
    "a8.1": [
        (1, ("return side + branch", "return ops.relu(side + branch)")),
        (3, ("option_a(start if self.late else x,", "option_a(start,")),
        (4, ("side = self.downsample(start)", "side = self.downsample(x)")),
        (5, ("start = ops.relu(self.bn1(x))", "start = self.bn1(ops.relu(x))"),
            ("inner = ops.relu(self.bn2(self.conv1(start)))", "inner = self.bn2(ops.relu(self.conv1(start)))")),
        (6, ("start = ops.relu(self.bn1(x))", "start = ops.relu(self.bn1(x))\n        x.data[...] = start.data")),
        (9, ("nn.Conv2d(before, out_channels, 3, step, 1, rng=rng)",
             "nn.Conv2d(before, out_channels, 3, step, 1, bias=True, rng=rng)")),
        (15, ("start = ops.relu(self.bn1(x))",
              "if self.late:\n            x = ops.relu(self.bn1(x))\n        start = ops.relu(self.bn1(x))")),
    ],
    "a8.2": [
        (7, ("k = out_channels // 4", "k = out_channels // 2")),
        (8, ('{"v1": (stride, 1), "v1.5": (1, stride)}', '{"v1": (1, stride), "v1.5": (stride, 1)}')),
        (9, ("nn.Conv2d(in_channels, k, 1, first, 0, rng=rng)",
             "nn.Conv2d(in_channels, k, 1, first, 0, bias=True, rng=rng)"),
            ("nn.Conv2d(k, k, 3, second, 1, rng=rng)", "nn.Conv2d(k, k, 3, second, 1, bias=True, rng=rng)"),
            ("nn.Conv2d(k, out_channels, 1, 1, 0, rng=rng)",
             "nn.Conv2d(k, out_channels, 1, 1, 0, bias=True, rng=rng)")),
    ],
    "a8.3": [
        (9, ("nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)",
             "nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=True, rng=rng)"),
            ("nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)",
             "nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=True, rng=rng)")),
        (11, ("return 0.5 * (s + h)", "return 0.5 * s + h")),
        (12, ("return (1 - g) * s + g * h", "return s + g * h")),
    ],
    "a8.4": [
        (7, ("thin, side = width * 2 ** stage, 32 // 2 ** stage\n        out = 4 * thin if deep else thin",
             "out, side = width * 2 ** stage * (4 if deep else 1), 32 // 2 ** stage\n"
             "        thin = out // 2 if deep else out")),
        (8, ("layer(have, thin, 1, side)", "layer(have, thin, 1, 2 * side if stage > 0 and i == 0 else side)")),
        (9, ("weights += before * after * kernel ** 2", "weights += before * after * kernel ** 2 + after")),
        (10, ("n = (depth - 2) // (9 if deep else 6)", "n = (depth - 2) // 6")),
        (13, ("32 // 2 ** stage", "32")),
        (16, ("layer(have, out, 1, side, bn=not early)", "layer(have, out, 1, 0, bn=not early)")),
    ],
    "a8.5": [
        (2, ("        t = ops.relu(self.bn(t))\n", "")),
        (3, ("split_after_activation=very_first", "split_after_activation=True")),
        (14, ("ops.mean(t, (2, 3))", "ops.mean(t, (1, 2))")),
        (15, ("t = self.conv1(x)\n        for", "t = ops.relu(self.conv1(x))\n        for")),
    ],
}
