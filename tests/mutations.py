"""Change a JSON file in every way an editor might: replace a value, leave a value out, or add an unknown key."""

import copy
import itertools
import json

DEEP = json.loads("[" * 900 + "]" * 900)
WRONG = [None, True, "x", "", -1, 0, 0.5, 10**400, 1e400, -1e400, float("nan"), [], [None], {}, {"x": 1}, DEEP]
GONE = object()


def places(value, path=()):
    """Yield the path, of keys and indices, to every value inside a JSON value, including the value itself."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value, path, to):
    """Return a copy with another value in this place, or without this value."""
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
    """Yield copies in which one value is replaced by each wrong value, is left out, or gets an unknown key."""
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


def refusals(value, path, write, use, step=1):
    """Write every `step`-th mutation of `value` to `path`, and count how often `use()` refuses and accepts the file.

    An accepted file must be usable. A refusal must name the file.
    """
    refused = accepted = 0
    for mutated in itertools.islice(mutations(value), 0, None, step):
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
