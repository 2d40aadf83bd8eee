"""What an editor can do to a JSON file: every value replaced by others, left out, or joined by a stranger."""

import copy
import json

DEEP = json.loads("[" * 900 + "]" * 900)
WRONG = [None, True, "x", "", -1, 0, 0.5, 10**400, 1e400, -1e400, float("nan"), [], [None], {}, {"x": 1}, DEEP]
GONE = object()


def places(value, path=()):
    """The path of keys and indices to every value in a JSON value, and so to itself."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value, path, to):
    """A copy with another value in this place, or without it."""
    if not path:
        return to
    whole = copy.deepcopy(value)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    if to is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return whole


def mutations(value):
    """Every value replaced by every wrong one, left out, or with a neighbour nobody knows."""
    for path in places(value):
        for to in WRONG:
            yield changed(value, path, to)
        if path:
            yield changed(value, path, GONE)
        inner = value
        for key in path:
            inner = inner[key]
        if isinstance(inner, dict):
            yield changed(value, path, inner | {"nobody": 1})


def refusals(value, path, write, use):
    """How often `use()` refuses the file `path`, written with a mutation of `value` each time. Whatever it accepts is
    usable; whatever it refuses, it refuses with the file's name."""
    refused = accepted = 0
    for mutated in mutations(value):
        path.write_text(write(mutated))
        said = ""
        try:
            use()
            accepted += 1
        except (ValueError, FileNotFoundError) as e:
            said = str(e)
            refused += 1
        assert not said or str(path) in said, (mutated, said)
    return refused, accepted
