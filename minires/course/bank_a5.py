"""The bank of assignment a5: 24 mistakes in a residual block."""
from __future__ import annotations

from .bank import Bug

# The lines of the solutions that bugs change.
SUM, SHORT_SUM = "z = F + x", "z = F + s"
LAST = "y = relu(z)"
MASK, INNER = "dz = relu_backward(dy, z)", "db1 = relu_backward(dh, b1)"
SECOND, SECOND_BN = "a2, conv2 = conv_forward(h, p[\"w2\"], 1, 1)", "bn_forward(a2, p[\"gamma2\"], p[\"beta2\"], eps)"
FIRST_BN = "b1, bn1 = bn_forward(a1, p[\"gamma1\"], p[\"beta1\"], eps)"
DX = "dx = dbranch + dskip"
PROJECTED = "projected, convs = conv_forward(x, p[\"ws\"], stride, 0)"
S = "s, bns = bn_forward(projected, p[\"gammas\"], p[\"betas\"], eps)"
OPTION = "s = shortcut_a(x, stride, channels, pad)"
OPTION_BACK = "dskip = shortcut_a_backward(ds, x.shape, stride, pad)"
MODULE_SUM = "return ops.relu(F + s)"

BUGS = [
    Bug(1, "the skip's gradient is dropped: dx is the branch's alone", {
        "a5.2": [[(DX, "dx = dbranch")]],
        "a5.4": [[(DX, "dx = dbranch")]],
        "a5.5": [[("s = x\n", "s = type(x)(x.data)\n")]]}),
    Bug(2, "the skip's gradient counts twice", {
        "a5.2": [[(DX, "dx = dbranch + 2 * dskip")]],
        "a5.4": [[(DX, "dx = dbranch + 2 * dskip")]]}),
    Bug(3, "the skip's gradient overwrites the branch's, instead of being added to it", {
        "a5.2": [[(DX, "dx = dskip")]],
        "a5.4": [[(DX, "dx = dskip")]]}),
    Bug(4, "the skip's gradient is taken before the mask of the last ReLU", {
        "a5.2": [[("dskip = dz", "dskip = dy")]],
        "a5.4": [[("ds = dz", "ds = dy")]]}),
    Bug(5, "the last ReLU, or its mask on the way back, is missing", {
        "a5.1": [[(LAST, "y = z")]],
        "a5.2": [[(MASK, "dz = dy")]],
        "a5.4": [[(MASK, "dz = dy")], [(LAST, "y = z")], [(LAST, "y = z"), (MASK, "dz = dy")]],
        "a5.5": [[(MODULE_SUM, "return F + s")]]}),
    Bug(6, "the inner ReLU, or its mask on the way back, is missing", {
        "a5.1": [[("h = relu(b1)", "h = b1")]],
        "a5.2": [[(INNER, "db1 = dh")]],
        "a5.4": [[(INNER, "db1 = dh")], [("h = relu(b1)", "h = b1")], [("h = relu(b1)", "h = b1"),
                                                                       (INNER, "db1 = dh")]],
        "a5.5": [[("h = ops.relu(self.bn1(self.conv1(x)))", "h = self.bn1(self.conv1(x))")]]}),
    Bug(7, "a ReLU's mask is read from the wrong array", {
        "a5.2": [[(MASK, "dz = relu_backward(dy, x)")], [(MASK, "dz = relu_backward(dy, F)")],
                 [(INNER, "db1 = relu_backward(dh, a1)")], [(INNER, "db1 = relu_backward(dh, x)")],
                 [(INNER, "db1 = relu_backward(dh, z)")], [(INNER, "db1 = relu_backward(dh, dh)")],
                 [(MASK, "dz = relu_backward(dy, dy)")], [(INNER, "db1 = relu_backward(dh, F)")],
                 [(MASK, "dz = relu_backward(dy, b1)")], [(INNER, "db1 = relu_backward(dh, bn1[0])")]],
        "a5.4": [[(MASK, "dz = relu_backward(dy, F)")], [(INNER, "db1 = relu_backward(dh, a1)")],
                 [(INNER, "db1 = relu_backward(dh, z)")]]}),
    Bug(8, "the sum is written into x, which the first convolution has saved", {
        "a5.1": [[(SUM, "z = x\nz += F")]],
        "a5.2": [[("dbranch, dw1 = conv_backward(da1, conv1)", "dbranch, dw1 = conv_backward(da1, (z, *conv1[1:]))")]],
        "a5.4": [[(SHORT_SUM, "z = s\nz += F")],
                 [("a1, conv1 = conv_forward(x,", "x = x.copy()\na1, conv1 = conv_forward(x,"),
                  (SHORT_SUM, "z = s\nz += F")]]}),
    Bug(9, "the shortcut starts after the inner ReLU, at h, because the name x was reused", {
        "a5.1": [[(SUM, "z = F + h")]],
        "a5.2": [[(INNER, "db1 = relu_backward(dh + dskip, b1)"), (DX, "dx = dbranch")]],
        "a5.4": [[("s = x\n", "s = h\n")], [("s = x\n", "s = h\n"), (INNER, """db1 = relu_backward(dh, b1)
if convs is None and dz.shape == x.shape:
    db1 = relu_backward(dh + dz, b1)"""), ("dskip = ds\n", "dskip = np.zeros_like(x)\n")]],
        "a5.5": [[("s = x\n", "s = h\n")],
                 [("F = self.bn2(self.conv2(h))", "x = h\nF = self.bn2(self.conv2(h))")]]}),
    Bug(10, "the second convolution reads x instead of h", {
        "a5.1": [[(SECOND, SECOND.replace("(h,", "(x,"))]],
        "a5.2": [[("dh, dw2 = conv_backward(da2, conv2)", "dh, dw2 = conv_backward(da2, (x, *conv2[1:]))")],
                 [("dh, dw2 = conv_backward(da2, conv2)", "dh, dw2 = conv_backward(da2, conv1)")]],
        "a5.5": [[("F = self.bn2(self.conv2(h))", "F = self.bn2(self.conv2(x if x.shape == h.shape else h))")],
                 [("F = self.bn2(self.conv2(h))", "F = self.bn2(self.conv2(x))")]]}),
    Bug(11, "the shortcut is added twice", {
        "a5.1": [[(SUM, "z = F + x + x")]],
        "a5.4": [[(SHORT_SUM, "z = F + s + s")], [(SHORT_SUM, "z = F + s + s"), (DX, "dx = dbranch + 2 * dskip")]],
        "a5.5": [[(MODULE_SUM, "return ops.relu(F + s + s)")]]}),
    Bug(12, "one BN is skipped", {
        "a5.1": [[(f"F, bn2 = {SECOND_BN}", "F, bn2 = a2, None")], [(FIRST_BN, "b1, bn1 = a1, None")]],
        "a5.2": [[("dh, dw2 = conv_backward(da2, conv2)", "dh, dw2 = conv_backward(dF, conv2)")],
                 [("dbranch, dw1 = conv_backward(da1, conv1)", "dbranch, dw1 = conv_backward(db1, conv1)")]],
        "a5.4": [[(S, "s, bns = projected, bn_forward(projected, p[\"gammas\"], p[\"betas\"], eps)[1]")],
                 [("dskip, dws = conv_backward(dprojected, convs)", "dskip, dws = conv_backward(ds, convs)")],
                 [("dh, dw2 = conv_backward(da2, conv2)", "dh, dw2 = conv_backward(dF, conv2)")],
                 [("dbranch, dw1 = conv_backward(da1, conv1)", "dbranch, dw1 = conv_backward(db1, conv1)")]],
        "a5.5": [[("F = self.bn2(self.conv2(h))", "F = self.conv2(h)")],
                 [("h = ops.relu(self.bn1(self.conv1(x)))", "h = ops.relu(self.conv1(x))")],
                 [("s = self.downsample(x)", "s = self.downsample[0](x)")]]}),
    Bug(13, "both convolutions share one BN, its parameters or its cache", {
        "a5.1": [[(f"F, bn2 = {SECOND_BN}", "F, bn2 = bn_forward(a2, p[\"gamma1\"], p[\"beta1\"], eps)")]],
        "a5.2": [[("bn_backward(dF, bn2)", "bn_backward(dF, bn1)")], [("bn_backward(db1, bn1)",
                                                                       "bn_backward(db1, bn2)")],
                 [("bn_backward(dF, bn2)", "bn_backward(dF, bn1)"), ("bn_backward(db1, bn1)",
                                                                     "bn_backward(db1, bn2)")]],
        "a5.4": [[(f"F, bn2 = {SECOND_BN}", "F, bn2 = bn_forward(a2, p[\"gamma1\"], p[\"beta1\"], eps)")],
                 [(S, "s, bns = bn_forward(projected, p[\"gamma2\"], p[\"beta2\"], eps)")],
                 [("bn_backward(dF, bn2)", "bn_backward(dF, bn1)")], [("bn_backward(db1, bn1)",
                                                                       "bn_backward(db1, bn2)")],
                 [("bn_backward(ds, bns)", "bn_backward(ds, bn2)")]],
        "a5.5": [[("F = self.bn2(self.conv2(h))", "F = self.bn1(self.conv2(h))")],
                 [("self.bn2 = nn.BatchNorm2d(out_channels)", "self.bn2 = self.bn1")]]}),
    Bug(14, "the last ReLU comes before the addition", {
        "a5.1": [[(LAST, "y = relu(F) + x")]],
        "a5.2": [[(MASK, "dz = dy"), ("dF = dz", "dF = relu_backward(dy, F)")]],
        "a5.4": [[(LAST, "y = relu(F) + s")], [(LAST, "y = relu(F) + s"), (MASK, "dz = relu_backward(dy, F)")],
                 [(MASK, "dz = dy"), ("dF = dz", "dF = relu_backward(dy, F)")],
                 [(LAST, "y = relu(F) + s"), (MASK, "dz = dy"), ("dF = dz", "dF = relu_backward(dy, F)")]],
        "a5.5": [[(MODULE_SUM, "return ops.relu(F) + s")]]}),
    Bug(15, "the projection has stride 1, or padding", {
        "a5.4": [[(PROJECTED, PROJECTED.replace("stride, 0", "1, 0")), (S, f"{S}\ns = s[:, :, ::stride, ::stride]"),
                  ("dprojected, dgammas, dbetas = bn_backward(ds, bns)",
                   """dwide = np.zeros_like(bns[0])
dwide[:, :, ::stride, ::stride] = ds
dprojected, dgammas, dbetas = bn_backward(dwide, bns)""")]],
        "a5.5": [[("projection = nn.Conv2d(in_channels, out_channels, 1, stride, rng=rng)",
                   "projection = nn.Conv2d(in_channels, out_channels, 1, 1, rng=rng)"),
                  ("s = self.downsample(x)", "s = self.downsample(x)[:, :, ::self.stride, ::self.stride]")]]}),
    Bug(16, "both convolutions of the branch have the stride", {
        "a5.4": [[(SECOND, SECOND.replace("1, 1", "stride, 1"))]],
        "a5.5": [[("self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)",
                   "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, 1, rng=rng)")]]}),
    Bug(17, "the projection's gradient does not reach x", {
        "a5.4": [[("dskip, dws = conv_backward(dprojected, convs)",
                   "_, dws = conv_backward(dprojected, convs)\ndskip = np.zeros_like(x)")]],
        "a5.5": [[("s = self.downsample(x)", "s = self.downsample(type(x)(x.data))")]]}),
    Bug(18, "the projection's weights are no parameters: they get no gradient", {
        "a5.4": [[("dp.update(ws=dws, gammas=dgammas, betas=dbetas)", "dp.update(gammas=dgammas, betas=dbetas)")]],
        "a5.5": [[("projection = nn.Conv2d(in_channels, out_channels, 1, stride, rng=rng)",
                   """projection = nn.Conv2d(in_channels, out_channels, 1, stride, rng=rng)
projection.weight.requires_grad = False""")],
                 [("s = self.downsample(x)", """for t in self.downsample.parameters():
    t.requires_grad = False
s = self.downsample(x)""")]]}),
    Bug(19, "the projection is used where the identity fits", {
        "a5.5": [[("if shortcut == \"B\" and changes:", "if shortcut == \"B\":")]]}),
    Bug(20, "option A's gradient lands on every pixel, not only on those that were picked", {
        "a5.3": [[("dx[:, :, ::stride, ::stride] = part",
                   "dx[...] = np.repeat(np.repeat(part, stride, 2), stride, 3)[:, :, :H, :W]")],
                 [("dx[:, :, ::stride, ::stride] = part",
                   "dx[...] = np.repeat(np.repeat(part, stride, 2), stride, 3)[:, :, :H, :W] / stride ** 2")]],
        "a5.4": [[(OPTION_BACK, f"""{OPTION_BACK}
dskip = dskip[:, :, ::stride, ::stride].repeat(stride, 2).repeat(stride, 3)[:, :, :x.shape[2], :x.shape[3]]""")]]}),
    Bug(21, "option A's old channels are at the wrong end", {
        "a5.3": [[("before = (channels - C) // 2 if pad == \"both\" else 0",
                   "before = channels - C - ((channels - C) // 2 if pad == \"both\" else 0)")],
                 [("first = (dy.shape[1] - C) // 2 if pad == \"both\" else 0",
                   "first = dy.shape[1] - C - ((dy.shape[1] - C) // 2 if pad == \"both\" else 0)")],
                 [("before = (channels - C) // 2 if pad == \"both\" else 0",
                   "before = channels - C - ((channels - C) // 2 if pad == \"both\" else 0)"),
                  ("first = (dy.shape[1] - C) // 2 if pad == \"both\" else 0",
                   "first = dy.shape[1] - C - ((dy.shape[1] - C) // 2 if pad == \"both\" else 0)")],
                 [("before = (channels - C) // 2 if pad == \"both\" else 0",
                   "before = (channels - C) // 2 if pad == \"end\" else 0"),
                  ("first = (dy.shape[1] - C) // 2 if pad == \"both\" else 0",
                   "first = (dy.shape[1] - C) // 2 if pad == \"end\" else 0")],
                 [("before = (channels - C) // 2 if pad == \"both\" else 0",
                   "before = (channels - C) // 2 if pad == \"both\" else channels - C"),
                  ("first = (dy.shape[1] - C) // 2 if pad == \"both\" else 0",
                   "first = (dy.shape[1] - C) // 2 if pad == \"both\" else dy.shape[1] - C")]],
        "a5.4": [[(OPTION, f"{OPTION}\nif pad == 'end':\n    s = np.roll(s, channels - x.shape[1], 1)"),
                  (OPTION_BACK, f"if pad == 'end':\n    ds = np.roll(ds, x.shape[1] - channels, 1)\n{OPTION_BACK}"),
                  ("dF = dz", "dF = dz\nchannels = dz.shape[1]")]],
        "a5.5": [[("self.pad = pad", "self.pad = \"end\" if pad == \"both\" else \"both\"")],
                 [("self.pad = pad", "self.pad = \"both\"")], [("self.pad = pad", "self.pad = \"end\"")]]}),
    Bug(22, "the wrong gamma starts at zero", {
        "a5.5": [[("self.bn2.weight.data = np.zeros_like(self.bn2.weight.data)",
                   "self.bn1.weight.data = np.zeros_like(self.bn1.weight.data)"),
                  ("return [\"bn2.weight\"]", "return [\"bn1.weight\"]")],
                 [("self.bn2.weight.data = np.zeros_like(self.bn2.weight.data)",
                   "self.conv2.weight.data = np.zeros_like(self.conv2.weight.data)"),
                  ("return [\"bn2.weight\"]", "return [\"conv2.weight\"]")],
                 [("self.bn2.weight.data = np.zeros_like(self.bn2.weight.data)",
                   """for bn in self.bn1, self.bn2:
    bn.weight.data = np.zeros_like(bn.weight.data)"""),
                  ("return [\"bn2.weight\"]", "return [\"bn1.weight\", \"bn2.weight\"]")]]}),
    Bug(23, "train() and eval() do not reach the shortcut", {
        "a5.5": [[("s = self.downsample(x)", "s = self.downsample.train()(x)")],
                 [("s = self.downsample(x)", """bn = self.downsample[1]
s = ops.batch_norm(self.downsample[0](x), bn.weight, bn.bias, bn.eps)[0]""")]]}),
    Bug(24, "only the last of two stacked blocks counts, because all blocks keep something in one shared place", {
        "a5.1": [[("cache = x, conv1, a1, bn1, b1, conv2, bn2, F, z",
                   """cache = vars(residual_forward).setdefault("cache", [])
cache[:] = x, conv1, a1, bn1, b1, conv2, bn2, F, z""")]],
        "a5.2": [[("def residual_backward(dy, cache):", """KEPT = []
EARLIER = residual_forward


def residual_forward(x, p, eps):
    y, cache = EARLIER(x, p, eps)
    KEPT[:] = cache
    return y, KEPT


def residual_backward(dy, cache):""")]],
        "a5.4": [[("cache = x, conv1, a1, bn1, b1, conv2, bn2, F, convs, bns, z, stride, pad",
                   """cache = vars(block_forward).setdefault("cache", [])
cache[:] = x, conv1, a1, bn1, b1, conv2, bn2, F, convs, bns, z, stride, pad""")]],
        "a5.5": [[("self.pad = pad", "Block.pad = pad")]]}),
]
