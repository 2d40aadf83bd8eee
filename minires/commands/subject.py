"""Load what `minires evaluate` and `minires inspect` examine: a network with its weights, and prepared images."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import datasets, device, models, nn, runs
from ..names import UsageError, printed
from ..weights import Rename, load_weights


@dataclass
class Subject:
    """Holds a trained network, and test images for it."""

    name: str                       # "ResNet-20"
    model: nn.Module                # trained, in eval mode
    fresh: Callable[[], nn.Module]  # returns the same network at initialisation
    images: Any = None              # float32 (N, C, H, W), test images prepared for the network, or None
    labels: Any = None              # (N,)
    words: dict[str, Any] = field(default_factory=dict)  # the sources, as text: "network", "weights", "data", ...
    classes: Sequence[str] = ()     # the classes' names, in the order of the labels

    @property
    def shortcut(self) -> str:
        """The option of the network's shortcuts, such as "A", or "" if it has none."""
        return next((m.option for _, m in self.model.modules() if isinstance(m, nn.ResidualBlock) and m.residual), "")

    @property
    def pad(self) -> str:
        """Where the shortcuts add zero channels, "both" or "end", or "" if they add none."""
        return next((m.pad for _, m in self.model.modules() if isinstance(m, nn.ResidualBlock) and m.residual
                     and m.option == "A"), "")


@dataclass(frozen=True)
class Told:
    """Holds the options of a command line for a network whose weights are in a file. None: the option is not given."""

    model: str | None = None
    dataset: str | None = None
    mean: Sequence[float] | None = None    # of each channel, as for datasets.prepared
    std: Sequence[float] | None = None
    normalize: str | None = None           # one of datasets.NORMALIZE
    image_size: int | None = None          # height and width to which the images are averaged, in pixels
    in_channels: int | None = None         # number of image channels, if no data set is given
    rename: Rename | None = None           # from layers in the file to layers of the network
    pad: str | None = None                 # this and the next two: options of the network, as for models.build
    shortcut: str | None = None
    width: int | None = None

    def given(self) -> list[str]:
        """Return the options that were given, as a user types them."""
        return [f"--{f.name.replace('_', '-')}" for f in fields(self) if getattr(self, f.name) is not None]


def from_run(folder: Path, told: Told, *, root: datasets.Root = None, where: str | None = None,
             download: bool = False) -> Subject:
    """Return the network of a folder that `minires train` wrote, and the test images of the data set of that run.

    root       the data set's folder, if not the one that the run used
    where      the device, if not the one that the run used
    download   whether to download files of the data set that are missing

    Raises UsageError if `told` has any option, because the run decides all of them.
    Raises what runs.read raises.
    """
    runs.read_config(folder)  # first, so that a folder without a run is reported before an option
    if given := told.given():
        raise UsageError(f"{folder} is the folder of a run, which decides these options: leave out {', '.join(given)}")
    run = runs.read(folder, Path(root) if root else None, where or "", download)
    chosen, size = run.config, run.config.data.image_size
    pixels = "pixels / 255" + (f", averaged to {size}x{size}" if size else "")
    words = {"network": chosen.model, "weights": str(folder / "weights.safetensors"), "data": chosen.dataset,
             "input": f"{pixels} - the training set's mean image", "recipe": chosen.recipe_name,
             "seed of the training": chosen.seed}
    return Subject(printed(chosen.model), run.model, run.fresh, run.images, run.labels, words, run.classes)


def from_weights(weights: Path, model: str, told: Told, *, root: datasets.Root = None, where: str | None = None,
                 download: bool = False) -> Subject:
    """Return the network named `model` with the weights from a file, and the test images if `told` names a data set.

    Raises UsageError for names and options that do not fit.
    Raises what datasets.prepared and load_weights raise.
    """
    where = device.use(where or "auto")
    models.canonical(model)  # first, so that a wrong name is reported before the data set is read
    options: dict[str, Any] = {name: value for name in ("in_channels", "pad", "shortcut", "width")
                               if (value := getattr(told, name)) is not None}
    words: dict[str, Any] = {"network": model, "weights": str(weights)}
    if options:
        words["options"] = ", ".join(f"{name} {value}" for name, value in options.items())
    images = labels = None
    classes: Sequence[str] = ()
    if told.dataset is None:
        if unused := Told(mean=told.mean, std=told.std, normalize=told.normalize, image_size=told.image_size).given():
            raise UsageError(f"{', '.join(unused)} without --dataset: there are no images to prepare; name a data set")
    elif told.in_channels is not None:
        raise UsageError(f"--in-channels {told.in_channels} with --dataset {told.dataset}: the data set decides how "
                         "many channels the images have; leave out --in-channels")
    else:
        data = datasets.prepared(told.dataset, root, normalize=_normalize(told), image_size=told.image_size or 0,
                                 train=False, where=where, download=download)
        (images, labels), classes = data.test, data.classes
        options |= {"num_classes": len(classes), "in_channels": images.shape[1]}
        words |= {"input": data.words, "data": told.dataset}

    def fresh() -> nn.Module:
        return models.build(model, **options).to(where)

    net = fresh()
    load_weights(net, weights, told.rename)
    return Subject(printed(model), net.eval(), fresh, images, labels, words, classes)


def _normalize(told: Told) -> str | datasets.MeanAndStd:
    """Return the normalisation that the options choose: --mean and --std, or one of the two, or else --normalize."""
    if told.mean is None and told.std is None:
        return told.normalize or "channel"
    if told.normalize is not None:
        raise UsageError(f"--normalize {told.normalize} contradicts --mean and --std: leave one of them out")
    return told.mean, told.std
