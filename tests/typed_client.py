"""This program uses minires as a typed package. `mypy --strict` checks it against an installed wheel, and it runs."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minires import (
    Function,
    Tensor,
    analysis,
    cuda_graph,
    datasets,
    device,
    evaluate,
    exercise,
    gradcheck,
    init,
    kernels,
    load_weights,
    models,
    nn,
    no_grad,
    ops,
    optim,
    plot,
    recipes,
    runs,
    save_weights,
    shipped_file,
    tap,
    train,
)


class Cube(Function):
    def forward(self, x: Any) -> Any:
        self.x = x
        return x * x * x

    def backward(self, g: Any) -> Any:
        return 3 * self.x * self.x * g


class Small(nn.Module):
    def __init__(self, width: int, *, rng: np.random.Generator) -> None:
        self.conv = nn.Conv2d(1, width, 3, 1, 1, rng=rng)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 10, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = ops.relu(self.bn(self.conv(x)))
        return self.fc(ops.global_avg_pool2d(h))


def operations() -> float:
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y: Tensor = (Cube.apply(x) * 2.0 - 1.0 / (x + 1) + x @ x.T @ x).sum()
    y.backward()
    checked: int = gradcheck(lambda a: Cube.apply(a), np.ones((2, 2))).checked
    shape: tuple[int, ...] = x.shape
    return y.item() + checked + len(shape)


def epochs(folder: Path) -> Iterator[float]:
    learn, test = datasets.stripes(60, 20, 8)
    images, images_test = (datasets.to_float(split.images)[:, :1] for split in (learn, test))
    net = Small(4, rng=np.random.default_rng(0))
    init.redraw(net.conv, init.xavier_normal, rng=np.random.default_rng(1))
    recipe = train.Recipe(epochs=1, batch_size=20)
    for event in train.fit(net, (images, learn.labels), (images_test, test.labels), recipe, rng=0):
        if isinstance(event, train.Epoch):
            yield event.train_error
    with no_grad(), kernels.using("reference"), tap.Tap(net) as seen:
        net.eval()(Tensor(images))
    spread: dict[str, float] = seen.std
    assert set(spread) == {"", "conv", "bn", "fc"}
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step = cuda_graph.GraphedStep(net, optimizer, images[:20], learn.labels[:20])
    yield float(step(images[:20], learn.labels[:20]))
    save_weights(net, folder / "small.safetensors")
    load_weights(net, folder / "small.safetensors")


def looks() -> bytes:
    net = models.resnet20(in_channels=1, width=8)
    load_weights(net, shipped_file("weights/fashion-mnist/resnet20.safetensors"))
    train_set, _ = datasets.fashion_mnist_small()
    images = datasets.to_float(train_set.images[:8], 14)
    logits: np.ndarray[Any, np.dtype[Any]] = evaluate.logits(net, images)
    assert logits.shape == (8, 10)
    lost = analysis.lesions(net, images, train_set.labels[:8])
    errors: dict[str, float] = lost.without
    assert len(errors) == 9
    return plot.png(plot.lesions({"ResNet-20": lost}))


def main(folder: Path) -> str:
    where: str = device.use("cpu")
    right: bool = exercise.check(lambda: operations() > 0)
    numbers = list(epochs(folder))
    rate: float = recipes.RECIPES["paper-cifar"].lr
    config = runs.configure("resnet20", "stripes", "demo", settings=["epochs=1"])
    assert right and len(numbers) == 2 and rate > 0 and config and looks()
    return where


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(main(Path(folder)))
