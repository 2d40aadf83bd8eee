"""Load any data set by its name."""
from __future__ import annotations

from collections.abc import Callable

from ..names import unknown
from .cifar import cifar10, cifar100
from .mnist_family import fashion_mnist, mnist
from .places import Root
from .shipped import fashion_mnist_small
from .small import digits, stripes
from .split import Split

FROM_FILES: dict[str, Callable[..., tuple[Split, Split]]] = {
    "cifar10": cifar10, "cifar100": cifar100, "fashion_mnist": fashion_mnist, "mnist": mnist,
}
AT_HAND: dict[str, Callable[..., tuple[Split, Split]]] = {
    "digits": digits, "fashion_mnist_small": fashion_mnist_small, "stripes": stripes,
}
BY_NAME = FROM_FILES | AT_HAND


def load(name: str, root: Root = None, *, download: bool = False) -> tuple[Split, Split]:
    """Return ``(train, test)`` of the data set with this name, one of ``BY_NAME``.

    root       the folder with the data set's files; ``home()`` if not given
    download   whether to download files that are missing

    Neither option matters for the data sets in ``AT_HAND``, which need no download.

    Raises ValueError for another name.
    Raises FileNotFoundError if files are missing and ``download`` is false.
    """
    if name in AT_HAND:
        return AT_HAND[name]()
    if name in FROM_FILES:
        return FROM_FILES[name](root, download=download)
    raise unknown("data set", name, BY_NAME)
