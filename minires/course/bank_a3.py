"""The bank of assignment a3: 25 mistakes in convolution by im2col and in pooling."""
from __future__ import annotations

from .bank import Bug

ROWS, COLUMNS = "rows = slice(i, i + sh * Ho, sh)", "columns = slice(j, j + sw * Wo, sw)"
COPY = "cols[:, i, j] = padded[:, :, rows, columns].transpose(1, 0, 2, 3)"
ADD = "padded[:, :, rows, columns] += parts[:, i, j].transpose(1, 0, 2, 3)"
SCATTER = f"""for i in range(kh):
    for j in range(kw):
        {ROWS}
        {COLUMNS}
        {ADD}"""
ZEROS = "padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)"
CROP = "return padded[:, :, ph:ph + H, pw:pw + W]"
DX = "dx = col2im(dcols, shape, (kh, kw), stride, padding)"
INSIDE = "im2col(np.ones((N * C, 1, H, W), x.dtype), kernel, stride, padding).sum(0)"  # pixels of each window
# A convolution's own scatter, where `%s` stands for the assignment.
OWN_SCATTER = """(N, C, H, W), (sh, sw), (ph, pw), (Ho, Wo) = shape, stride, padding, dy.shape[2:]
parts = dcols.reshape(C, kh, kw, N, Ho, Wo)
padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw), dy.dtype)
for i in range(kh):
    for j in range(kw):
        %s parts[:, i, j].transpose(1, 0, 2, 3)
dx = padded[:, :, ph:ph + H, pw:pw + W]"""
POOL_DX = "dx = col2im(dcols, (N * C, 1, H, W), kernel, stride, padding)"

# A scatter of pooling windows that assigns: by element of the kernel, and window by window.
OVERWRITE = """places = col2im(np.zeros_like(dcols), (N * C, 1, H, W), kernel, stride, padding)
padded = np.pad(places, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
Ho, Wo = output_size((H, W), kernel, stride, padding)
parts = dcols.reshape(kernel[0], kernel[1], N * C, Ho, Wo)
for i in range(kernel[0]):
    for j in range(kernel[1]):
        padded[:, 0, i:i + stride[0] * Ho:stride[0], j:j + stride[1] * Wo:stride[1]] = parts[i, j]
dx = padded[:, :, padding[0]:padding[0] + H, padding[1]:padding[1] + W]"""
OVERWRITE_WINDOWS = """padded = np.zeros((N * C, H + 2 * padding[0], W + 2 * padding[1]), dy.dtype)
Ho, Wo = output_size((H, W), kernel, stride, padding)
parts = dcols.reshape(kernel[0], kernel[1], N * C, Ho, Wo)
for i in range(Ho):
    for j in range(Wo):
        top, left = i * stride[0], j * stride[1]
        padded[:, top:top + kernel[0], left:left + kernel[1]] = parts[:, :, :, i, j].transpose(2, 0, 1)
dx = padded[:, padding[0]:padding[0] + H, padding[1]:padding[1] + W]"""
OVERWRITE_WINNERS = """Ho, Wo = output_size((H, W), kernel, stride, padding)
plane, top, left = np.unravel_index(np.arange(winner.size), (N * C, Ho, Wo))
row = top * stride[0] + winner // kernel[1]
column = left * stride[1] + winner % kernel[1]
padded = np.zeros((N * C, H + 2 * padding[0], W + 2 * padding[1]), dy.dtype)
padded[plane, row, column] += dy.reshape(-1)
dx = padded[:, padding[0]:padding[0] + H, padding[1]:padding[1] + W]"""

OVERWRITE_TURNS = OVERWRITE_WINNERS.replace(
    "padded[plane, row, column] += dy.reshape(-1)", """for turn in np.unique(winner):
    won = winner == turn
    padded[plane[won], row[won], column[won]] = dy.reshape(-1)[won]""")

LAST_COLUMNS = """own_forward = conv2d_forward


def conv2d_forward(x, w, b, stride, padding):
    y, cache = own_forward(x, w, b, stride, padding)
    conv2d_forward.cols = cache[2]
    return y, cache


def conv2d_backward(dy, cache):"""
LOOPS = """padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
cols = np.empty((C, kh, kw, N, Ho, Wo), x.dtype)
for n in range(N):
    for c in range(C):
        for i in range(Ho):
            for j in range(Wo):
                top, left = i * stride[0], j * stride[1]
                for u in range(kh):
                    for v in range(kw):
                        cols[c, u, v, n, i, j] = padded[n, c, top + u, left + v]
cols = cols.reshape(C * kh * kw, N * Ho * Wo)"""

VIEW = """if (kh, kw, sh, sw, ph, pw) == (1, 1, 1, 1, 0, 0):
    return x.transpose(1, 0, 2, 3).reshape(C, N * H * W)
return cols.reshape(C * kh * kw, N * Ho * Wo)"""
ELEMENT_STRIDES = """padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))) if ph or pw else x
size, one = x.itemsize, (W + 2 * pw) * x.itemsize
plane = one * (H + 2 * ph)
steps = plane, one, size, plane * C, one * sh, size * sw
return np.lib.stride_tricks.as_strided(padded, (C, kh, kw, N, Ho, Wo), steps).reshape(C * kh * kw, N * Ho * Wo)"""

BUGS = [
    Bug(1, "overlapping windows overwrite each other instead of adding up (= for +=)", {
        "a3.3": [[(ADD, ADD.replace("+=", "="))],
                 [(SCATTER, """for i in range(Ho):
    for j in range(Wo):
        top, left = i * sh, j * sw
        padded[:, :, top:top + kh, left:left + kw] = parts[:, :, :, :, i, j].transpose(3, 0, 1, 2)""")]],
        "a3.5": [[(DX, OWN_SCATTER % "padded[:, :, i:i + sh * Ho:sh, j:j + sw * Wo:sw] =")]]}),
    Bug(2, "the stride is missing, so that neighbouring windows are one pixel apart", {
        "a3.2": [[(ROWS, "rows = slice(i, i + Ho)"), (COLUMNS, "columns = slice(j, j + Wo)")]],
        "a3.3": [[(ROWS, "rows = slice(i, i + Ho)"), (COLUMNS, "columns = slice(j, j + Wo)")]],
        "a3.5": [[(DX, OWN_SCATTER % "padded[:, :, i:i + Ho, j:j + Wo] +=")]]}),
    Bug(3, "the kernel is rotated by 180 degrees on the way back", {
        "a3.3": [[("parts[:, i, j]", "parts[:, kh - 1 - i, kw - 1 - j]")]],
        "a3.5": [[("dcols = w.reshape(O, C * kh * kw).T @ G", "dcols = w[:, :, ::-1, ::-1].reshape(O, -1).T @ G")]]}),
    Bug(4, "the kernel is rotated by 180 degrees, as in a convolution of signal processing", {
        "a3.2": [[("cols[:, i, j] =", "cols[:, kh - 1 - i, kw - 1 - j] =")]],
        "a3.4": [[("w.reshape(O, C * kh * kw) @ cols", "w[:, :, ::-1, ::-1].reshape(O, C * kh * kw) @ cols")]],
        "a3.5": [[("dcols = w.reshape(O, C * kh * kw).T @ G", "dcols = w[:, :, ::-1, ::-1].reshape(O, -1).T @ G"),
                  ("dw = dW.reshape(O, C, kh, kw)", "dw = dW.reshape(O, C, kh, kw)[:, :, ::-1, ::-1]")]]}),
    Bug(5, "the vertical and the horizontal direction are exchanged", {
        "a3.1": [[("return high, wide", "return wide, high")]],
        "a3.2": [[("cols = np.empty((C, kh, kw, N, Ho, Wo), x.dtype)",
                   "cols = np.empty((C, kh, kw, N, Wo, Ho), x.dtype)"),
                  (COPY, COPY.replace("(1, 0, 2, 3)", "(1, 0, 3, 2)"))]],
        "a3.3": [[("parts = cols.reshape(C, kh, kw, N, Ho, Wo)", "parts = cols.reshape(C, kh, kw, N, Wo, Ho)"),
                  (ADD, ADD.replace("(1, 0, 2, 3)", "(1, 0, 3, 2)"))]],
        "a3.4": [[("y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)",
                   "y = Y.reshape(O, N, Wo, Ho).transpose(1, 0, 3, 2)")],
                 [("y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)",
                   "y = Y.reshape(O, N, Wo, Ho).transpose(1, 0, 2, 3)")]],
        "a3.5": [[("dy.transpose(1, 0, 2, 3)", "dy.transpose(1, 0, 3, 2)")]]}),
    Bug(6, "the height of the kernel is used for its width, or its rows and columns are exchanged", {
        "a3.1": [[("kernel[1]", "kernel[0]")], [("kernel[0]", "kernel[1]"), ("2 * padding[1] - kernel[1]",
                                                                             "2 * padding[1] - kernel[0]")]],
        "a3.2": [[("kh, kw = kernel", "kh, kw = kernel[0], kernel[0]")],
                 [("return cols.reshape", "return cols.swapaxes(1, 2).reshape")]],
        "a3.3": [[("parts = cols.reshape(C, kh, kw, N, Ho, Wo)",
                   "parts = cols.reshape(C, kw, kh, N, Ho, Wo).swapaxes(1, 2)")]],
        "a3.4": [[("w.reshape(O, C * kh * kw) @ cols", "w.swapaxes(2, 3).reshape(O, C * kh * kw) @ cols")]],
        "a3.5": [[("dw = dW.reshape(O, C, kh, kw)", "dw = dW.reshape(O, C, kw, kh).swapaxes(2, 3)")],
                 [("dw = dW.reshape(O, C, kh, kw)", "dw = dW.reshape(O, C, kw, kh)")],
                 [("dcols = w.reshape(O, C * kh * kw).T @ G",
                   "dcols = w.swapaxes(2, 3).reshape(O, C * kh * kw).T @ G")]],
        "a3.7": [[("area = kernel[0] * kernel[1]", "area = kernel[0] * kernel[0]"),
                  ("share = dy.reshape(1, -1) / elements", "share = dy.reshape(1, -1) / kernel[0] ** 2")]]}),
    Bug(7, "the padding is not cut off, or only at the far end", {
        "a3.3": [[(CROP, "return padded")], [(CROP, "return padded[:, :, :H, :W]")]]}),
    Bug(8, "the padding is cut off with [p:-p], which is empty for p = 0", {
        "a3.3": [[(CROP, "return padded[:, :, ph:-ph, pw:-pw]")]]}, seen="fact"),
    Bug(9, "dx is only as large as the windows reach, so that the rows and columns left over are missing", {
        "a3.3": [[(ZEROS, "padded = np.zeros((N, C, (Ho - 1) * sh + kh, (Wo - 1) * sw + kw), cols.dtype)"),
                  (CROP, "return padded[:, :, ph:padded.shape[2] - ph, pw:padded.shape[3] - pw]")]]}, seen="fact"),
    Bug(10, "the output size lacks its + 1, or is not rounded down", {
        "a3.1": [[("// stride[0] + 1", "// stride[0]"), ("// stride[1] + 1", "// stride[1]")],
                 [("high = (size[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1",
                   "high = -(-(size[0] + 2 * padding[0] - kernel[0]) // stride[0]) + 1"),
                  ("wide = (size[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1",
                   "wide = -(-(size[1] + 2 * padding[1] - kernel[1]) // stride[1]) + 1")],
                 [("high = (size[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1",
                   "high = -(-(size[0] + 2 * padding[0] - kernel[0]) // stride[0])"),
                  ("wide = (size[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1",
                   "wide = -(-(size[1] + 2 * padding[1] - kernel[1]) // stride[1])")],
                 [("high = (size[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1",
                   "high = round((size[0] + 2 * padding[0] - kernel[0]) / stride[0]) + 1"),
                  ("wide = (size[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1",
                   "wide = round((size[1] + 2 * padding[1] - kernel[1]) / stride[1]) + 1")],
                 [("high = (size[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1",
                   "high = (size[0] + 2 * padding[0] - kernel[0]) / stride[0] + 1"),
                  ("wide = (size[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1",
                   "wide = (size[1] + 2 * padding[1] - kernel[1]) / stride[1] + 1")]]}, seen="fact"),
    Bug(11, "dw is averaged, although the loss is a sum", {
        "a3.5": [[("dW = G @ cols.T", "dW = G @ cols.T / shape[0]")],
                 [("dW = G @ cols.T", "dW = G @ cols.T / G.shape[1]")]]}),
    Bug(12, "db is summed over the images only, not over the pixels", {
        "a3.5": [[("db = G.sum(1)", "db = dy.sum(0)")],
                 [("db = G.sum(1)", "db = dy.sum(0)[:, 0, 0]")]]}, seen="fact"),
    Bug(13, "db is averaged, although the loss is a sum", {
        "a3.5": [[("db = G.sum(1)", "db = G.mean(1)")],
                 [("db = G.sum(1)", "db = G.sum(1) / shape[0]")]]}),
    Bug(14, "the columns are in the order (kh, kw, C), and the weights in the order (C, kh, kw)", {
        "a3.2": [[("return cols.reshape", "return cols.transpose(1, 2, 0, 3, 4, 5).reshape")]],
        "a3.3": [[("parts = cols.reshape(C, kh, kw, N, Ho, Wo)",
                   "parts = cols.reshape(kh, kw, C, N, Ho, Wo).transpose(2, 0, 1, 3, 4, 5)")]],
        "a3.4": [[("w.reshape(O, C * kh * kw) @ cols", "w.transpose(0, 2, 3, 1).reshape(O, C * kh * kw) @ cols")],
                 [("w.reshape(O, C * kh * kw) @ cols",
                   "w.reshape(O, kh, kw, C).transpose(0, 3, 1, 2).reshape(O, -1) @ cols")]],
        "a3.5": [[("dw = dW.reshape(O, C, kh, kw)", "dw = dW.reshape(O, kh, kw, C).transpose(0, 3, 1, 2)")],
                 [("dcols = w.reshape(O, C * kh * kw).T @ G",
                   "dcols = w.transpose(0, 2, 3, 1).reshape(O, C * kh * kw).T @ G")],
                 [("dw = dW.reshape(O, C, kh, kw)", "dw = dW.reshape(O, kh, kw, C).transpose(0, 3, 1, 2)"),
                  ("dcols = w.reshape(O, C * kh * kw).T @ G",
                   "dcols = w.transpose(0, 2, 3, 1).reshape(O, C * kh * kw).T @ G")],
                 [("dw = dW.reshape(O, C, kh, kw)",
                   "dw = dW.reshape(O, C, kh, kw).transpose(0, 2, 3, 1).reshape(O, C, kh, kw)")],
                 [("dcols = w.reshape(O, C * kh * kw).T @ G",
                   "dcols = w.reshape(O, kh, kw, C).transpose(0, 3, 1, 2).reshape(O, C * kh * kw).T @ G")]]}),
    Bug(15, "images and filters are exchanged in a reshape: reshape cannot transpose", {
        "a3.4": [[("y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)", "y = Y.reshape(N, O, Ho, Wo)")],
                 [("y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)",
                   "y = products.reshape(N, O, Ho, Wo) + b.reshape(O, 1, 1)")]],
        "a3.5": [[("G = dy.transpose(1, 0, 2, 3).reshape(O, -1)", "G = dy.reshape(O, -1)")]]}),
    Bug(16, "the columns are a view of x, so that writing into them changes x", {
        "a3.2": [[("return cols.reshape(C * kh * kw, N * Ho * Wo)", VIEW)]]}, seen="fact"),
    Bug(17, "steps in memory are computed from the shape, which is wrong for an x that is not contiguous", {
        "a3.2": [[("return cols.reshape(C * kh * kw, N * Ho * Wo)", ELEMENT_STRIDES)]]}),
    Bug(18, "a second forward pass overwrites the columns that the first one saved", {
        "a3.4": [[("cols = im2col(x, (kh, kw), stride, padding)",
                   """fresh = im2col(x, (kh, kw), stride, padding)
cols = vars(conv2d_forward).setdefault(str(fresh.shape), fresh)
cols[...] = fresh""")]],
        "a3.5": [[("def conv2d_backward(dy, cache):", LAST_COLUMNS),
                  ("shape, w, cols, stride, padding = cache",
                   "shape, w, cols, stride, padding = cache\ncols = conv2d_forward.cols")]]}, seen="fact"),
    Bug(19, "the bias is added once for each of the C kh kw products, instead of once for each output", {
        "a3.4": [[("Y = products + b.reshape(O, 1)", "Y = products + C * kh * kw * b.reshape(O, 1)")]]}),
    Bug(20, "all of several equal maxima get the gradient, or the last of them, instead of the first alone", {
        "a3.6": [[("cache = x.shape, winner, kernel, stride, padding",
                   "cache = x.shape, cols == best, kernel, stride, padding"),
                  ("dcols = np.zeros((kernel[0] * kernel[1], winner.size), dy.dtype)",
                   "dcols = winner * dy.reshape(1, -1)"),
                  ("dcols[winner, np.arange(winner.size)] = dy.reshape(-1)", "")],
                 [("winner = cols.argmax(0)", "winner = len(cols) - 1 - cols[::-1].argmax(0)")]]}),
    Bug(21, "overlapping pooling windows overwrite each other instead of adding up", {
        "a3.6": [[(POOL_DX, OVERWRITE)], [(POOL_DX, OVERWRITE_WINNERS)], [(POOL_DX, OVERWRITE_WINDOWS)],
                 [(POOL_DX, OVERWRITE_TURNS)]],
        "a3.7": [[(POOL_DX, OVERWRITE)], [(POOL_DX, OVERWRITE_WINDOWS)]]}),
    Bug(22, "the padding of max pooling counts as 0, not as minus infinity", {
        "a3.6": [[(", constant_values=-np.inf)", ")")]]}),
    Bug(23, "average pooling divides by the number of pixels inside the image, not by kh kw", {
        "a3.7": [[("means = cols.sum(0) / area",
                   f"means = cols.sum(0) / {INSIDE}"),
                  ("share = dy.reshape(1, -1) / elements",
                   f"share = dy.reshape(1, -1) / {INSIDE.replace('x.dtype', 'dy.dtype')}")],
                 [("means = cols.sum(0) / area",
                   f"means = cols.sum(0) / {INSIDE}")]]}),
    Bug(24, "the columns are float64 although the input is float32", {
        "a3.2": [[("cols = np.empty((C, kh, kw, N, Ho, Wo), x.dtype)", "cols = np.empty((C, kh, kw, N, Ho, Wo))")]],
        "a3.3": [[(ZEROS, "padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw))")]],
        "a3.6": [[("dcols = np.zeros((kernel[0] * kernel[1], winner.size), dy.dtype)",
                   "dcols = np.zeros((kernel[0] * kernel[1], winner.size))")]]}, seen="fact"),
    Bug(25, "Python loops run over the images, the channels and the pixels, instead of over the kernel alone", {
        "a3.4": [[("cols = im2col(x, (kh, kw), stride, padding)", LOOPS)]]}, seen="time"),
]
