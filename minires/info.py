"""Report what this installation runs on, for `minires info` and for the record of every result."""
from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, device, kernels
from .names import counted


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, as text."""
    return {"minires": __version__, "python": platform.python_version(), "numpy": np.__version__, "blas": blas(),
            "platform": f"{platform.system()} {platform.machine()}"}


def machine() -> dict[str, str]:
    """Return what the bits of a result on the CPU depend on besides versions and the number of threads, as text.

    cpu: the CPU's model
    cache: the size of a block in kernels/blocked.py: the second-level cache of a thread, at least 1 MiB
    blas: the CPU for which BLAS has chosen its kernels, or "unknown"
    simd: the CPU features for which NumPy has chosen its loops
    """
    cores = sorted({f"{lib['internal_api']} {lib.get('architecture', 'unknown')}" for lib in _thread_pools()
                    if lib.get("user_api") == "blas"})
    built: Any = np.show_config(mode="dicts")
    simd = built.get("SIMD Extensions", {})
    features = [*simd.get("baseline", []), *simd.get("found", [])]
    return {"cpu": _cpu(), "cache": f"{kernels.parallel.cache_bytes()} bytes", "blas": ", ".join(cores) or "unknown",
            "simd": " ".join(features) or "unknown"}


def _cpu() -> str:
    """Return the CPU's model as Linux reports it; elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return found[0] if found else platform.processor() or platform.machine() or "unknown"


def commit() -> str | None:
    """Return the git commit of the source that runs, followed by "+changes" if files of the package differ from it.

    Return None for an installed package, and if git is not available.
    """
    package = Path(__file__).resolve().parent
    if not (package.parent / ".git").exists():  # an installed package may be inside another project's checkout
        return None

    def git(*command):
        return subprocess.run(["git", "-C", str(package), *command], capture_output=True, text=True, check=True,
                              timeout=30).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def blas() -> str:
    """Return the name and version of the library with which NumPy multiplies matrices, and its threads if known."""
    loaded = [lib for lib in _thread_pools() if lib.get("user_api") == "blas"]
    if loaded:
        lib = loaded[0]
        return f"{lib['internal_api']} {lib['version']}, {counted(lib['num_threads'], 'thread')}"
    built: Any = np.show_config(mode="dicts")
    found = built.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def _thread_pools() -> list[dict[str, Any]]:
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return []
    return threadpool_info()


def kernels_in_words() -> str:
    """Return the kernels that float32 arrays on the CPU use, their number of threads, and why they are not in C."""
    used = kernels.of(np.zeros(0, np.float32))
    name = used.__name__.rpartition(".")[2]
    if used is kernels.native:
        return f"{name}, {counted(kernels.parallel.threads_asked(), 'thread')}"
    if used is not kernels.blocked:
        return name
    name += f", {counted(kernels.parallel.threads(), 'thread')}"
    return name if kernels.choice().startswith("blocked") else f"{name}; not native: {kernels.native.reason()}"


def text() -> str:
    """Return everything that `minires info` prints, one line for each fact."""
    v = versions()
    lines = {"minires": v["minires"], "Python": f"{v['python']} on {v['platform']}", "NumPy": v["numpy"],
             "BLAS": v["blas"], "cores": kernels.parallel.cores(), "kernels": kernels_in_words(),
             "device": f"{device.use('auto')}. {device.reason}"}
    return "\n".join(f"{name:8} {value}" for name, value in lines.items())
