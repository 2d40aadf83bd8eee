"""Write cupy_names.json, the public names of CuPy and their signatures, for fake_cupy.py where CuPy is not installed.

    python tests/cupy_names.py        # in an environment with CuPy; no GPU needed
"""
import inspect
import json
import re
from pathlib import Path

FILE = Path(__file__).with_name("cupy_names.json")


def signature(thing):
    """Return "(a, axis=None)" for a function, "ufunc", or "" if unknown. Defaults that are not literals become None."""
    if type(thing).__name__ == "ufunc":
        return "ufunc"
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        found = re.match(r"[\w.]+\((.*?)\)( ->.*)?$", (thing.__doc__ or "").partition("\n")[0])
        return re.sub(r"\b[A-Za-z_]\w* (?=\w)", "", f"({found[1]})") if found else ""  # Cython adds types
    plain = (type(None), bool, int, float, str)
    return str(inspect.Signature([
        p.replace(annotation=p.empty, default=p.default if isinstance(p.default, plain) or p.default is p.empty
                  else None) for p in parameters]))


def public(owner):
    found = {}
    for name in sorted(dir(owner)):
        special = name.startswith("__") and name in ("__array__", "__array_function__", "__array_ufunc__", "__dlpack__")
        if not name.startswith("_") or special:
            thing = getattr(owner, name)
            found[name] = signature(thing) if callable(thing) else ""
    return found


def collect():
    import cupy

    owners = {"cupy": cupy, "ndarray": cupy.ndarray, "ufunc": cupy.ufunc, "linalg": cupy.linalg,
              "lib.stride_tricks": cupy.lib.stride_tricks, "cuda": cupy.cuda, "Stream": cupy.cuda.Stream,
              "Graph": cupy.cuda.Graph, "MemoryPool": cupy.cuda.MemoryPool, "Event": cupy.cuda.Event,
              "RawModule": cupy.RawModule, "RawKernel": cupy.RawKernel}
    return {"version": cupy.__version__, **{name: public(owner) for name, owner in owners.items()}}


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=0, sort_keys=True) + "\n", encoding="utf-8")
