"""Read and write metrics.jsonl, which holds a run's measurements, one line of JSON per epoch."""
from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from ..files import records
from ..files.atomic import write_atomically
from ..files.records import Between

Tested = Literal["test_error", "validation_error"]
Percent = Annotated[float, Between(0, 100)]
NotNegative = Annotated[float, Between(0)]
RISING: tuple[Literal["step", "seconds"], ...] = ("step", "seconds")


class Line(TypedDict):
    """Holds the measurements after an epoch: test_error or validation_error is present, but not both.

    The errors are in percent, in eval mode, over whole sets.
    """

    epoch: Annotated[int, Between(1)]
    step: Annotated[int, Between(1)]
    lr: NotNegative          # of the epoch's last step
    train_loss: NotNegative  # mean of the epoch's steps
    train_error: Percent
    test_error: NotRequired[Percent]
    validation_error: NotRequired[Percent]
    seconds: NotNegative     # of the run so far, summed over its calls


def read(folder: Path, tested: Tested | None = None) -> list[Line]:
    """Return the lines of metrics.jsonl in a run's folder, or no lines if the file does not exist yet.

    tested: which of the two errors the run measures; None: not known

    Raises ValueError, which names the file, the line's number and the key, if a value is missing, of another type, not
    finite or out of order.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = records.content(path).splitlines()
    except FileNotFoundError:
        return []
    found = [records.parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    return checked(found, str(path), tested)


def checked(found: Sequence[Any], path: str, tested: Tested | None = None) -> list[Line]:
    """Check parsed lines as `read` does, and return them."""
    lines: list[Line] = []
    for number, value in enumerate(found, 1):
        where = f"{path}, line {number}"
        line: Line = records.checked(value, Line, where)
        if ("test_error" in line) == ("validation_error" in line):
            raise ValueError(f"{where}: expected either test_error or validation_error")
        if tested and tested not in line:
            raise ValueError(f"{where}: expected {tested}, which the run's settings require, but it is missing")
        if line["epoch"] != number:
            raise ValueError(f"{where}: epoch: expected {number}, got {line['epoch']}")
        lines.append(line)
    for number, (line, after) in enumerate(itertools.pairwise(lines), 2):
        for key in RISING:
            if after[key] < line[key]:
                raise ValueError(f"{path}, line {number}: {key}: expected at least {line[key]}, as in the line before, "
                                 f"got {after[key]}")
    return lines


def write(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the lines into a run's folder, either all of them or none."""
    write_atomically(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
