"""Compile the C sources of native.py once with the system's compiler, and load the library.

    library(check)      returns the library, or raises Unavailable with the reason why there is none

The library is kept in the user's cache folder (MINIRES_CACHE, or the system's folder for caches). Its file name has a
hash of everything that it depends on: sources, flags, compiler and processor. `-march=native` makes code for one
processor, and machines with different processors may share a home folder. The name also has a hash of the library's own
bytes, so a damaged file is never loaded. A failed build leaves a note in the folder, and no later process repeats it.

The library runs with the rights of the user, so the folder must belong to the user, and nobody else may write there.
"""
from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent / "c"
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
         "-fPIC", "-shared", "-pthread"]  # no -ffast-math: NaN and the order of sums matter
FOR_THIS_CPU: tuple[list[str], ...] = ["-march=native"], ["-mcpu=native"], []  # the first that the compiler knows
SECONDS = 120  # after this time the compiler is ended


class Unavailable(Exception):
    """Say why there is no library."""


def library(check: Callable[[Any], str | None]) -> Any:
    """Return the library. Compile it first if that has not been done. Raises Unavailable.

    check: called with the library after a build; returns what is wrong with it, or None.
    """
    if sys.platform in ("win32", "emscripten", "wasi"):
        raise Unavailable(f"the kernels in C are not made for {sys.platform}")
    command = compiler()
    name = f"kernels-{fingerprint(command)}"
    why = "no folder for the compiled library"
    for folder in folders():
        try:
            prepare(folder)
        except OSError as e:
            why = f"{folder} cannot hold the compiled library: {e.strerror or e}"
            continue
        return kept(folder, name) or built(folder, name, command, check)
    raise Unavailable(why)


# ------------------------------------------------------------------------------------ the compiler


def compiler() -> list[str]:
    """Return the command of the compiler: CC from the environment, else cc, gcc or clang. Raises Unavailable."""
    try:
        asked = shlex.split(os.environ.get("CC", ""))
    except ValueError as e:
        raise Unavailable(f"CC={os.environ['CC']!r} is not a command: {e}") from e
    for command in [asked] if asked else [["cc"], ["gcc"], ["clang"]]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    raise Unavailable(f"CC names {asked[0]!r}, which is not found" if asked else
                      "no C compiler is found (cc, gcc or clang; CC names another)")


def fingerprint(command: list[str]) -> str:
    """Return a hash of all that the library depends on. The compiler is identified by its path, size and time."""
    import hashlib

    program = os.stat(command[0])
    parts: list[Any] = [os.path.realpath(command[0]), program.st_size, program.st_mtime_ns, command[1:], FLAGS,
                        FOR_THIS_CPU, sys.platform, platform.machine(), processor()]
    parts += [(path.name, path.read_bytes()) for path in sorted(SOURCES.glob("*.[ch]"))]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def processor() -> str:
    """Return the model and the features of the processor, as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    words = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.partition(":")[0].strip() in words}))


def compile_to(target: Path, command: list[str]) -> None:
    """Write the library to `target`. Raises Unavailable with the first error of the compiler."""
    import signal
    import subprocess

    said = ""
    for native in FOR_THIS_CPU:
        words = [*command, *FLAGS, *native, "-o", str(target), *map(str, sorted(SOURCES.glob("*.c"))), "-lm"]
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            # A compiler starts other processes. A process group lets all of them end if it hangs.
            try:
                process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                           cwd=target.parent, start_new_session=True)
            except OSError as e:
                raise Unavailable(f"{command[0]} cannot be started: {e.strerror}") from e
            try:
                status = process.wait(SECONDS)
            except BaseException as e:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(e, subprocess.TimeoutExpired):
                    raise Unavailable(f"{command[0]} did not end within {SECONDS} seconds") from e
                raise
            if status == 0:
                return
            output.seek(0)
            lines = output.read().strip().splitlines()
        said = said or next((line for line in lines if "error" in line), lines[0] if lines else f"status {status}")
    raise Unavailable(f"{command[0]} failed: {said}")


# ---------------------------------------------------------------------------------------- the cache


def folders() -> Iterator[Path]:
    """Yield the folders that may hold a library: the user's cache folder, then a temporary one."""
    asked, home = os.environ.get("MINIRES_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if asked:
        yield Path(asked).absolute()
    elif home and os.path.isabs(home):
        yield Path(home, "minires")
    else:
        with contextlib.suppress(RuntimeError):  # no home
            yield Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "minires"
    yield Path(tempfile.gettempdir(), f"minires-{os.getuid()}")


def prepare(folder: Path) -> None:
    """Make the folder. Raises OSError if it is not writable, or if another user may write there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError("the path names something other than a folder")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise OSError("another user owns it or may write there")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError("it is not writable")


def kept(folder: Path, name: str) -> Any:
    """Return the library of an earlier build, or None. Raises Unavailable if an earlier build failed."""
    for path in sorted(folder.glob(f"{name}-*.so")):
        with contextlib.suppress(OSError):
            if os.lstat(path).st_uid == os.geteuid() and path.stem == f"{name}-{digest(path)}":
                return loaded(path)
        with contextlib.suppress(OSError):
            path.unlink()  # damaged, or of another user
    note = folder / f"{name}.failed"
    try:
        why = note.read_text(encoding="utf-8")
    except OSError:
        return None
    raise Unavailable(f"{why} (as noted in {note}; delete it to try again)")


def built(folder: Path, name: str, command: list[str], check: Callable[[Any], str | None]) -> Any:
    """Compile, check and keep the library, and return it. If two processes build at once, one file remains."""
    print(f"minires: compiling its kernels with {os.path.basename(command[0])}, once for this machine ...",
          file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as work:
        target = Path(work, "kernels.so")
        try:
            compile_to(target, command)
            try:
                made = loaded(target)
                wrong = check(made)
            except (OSError, AttributeError) as e:  # no library, or one without our functions
                wrong = str(e)
            if wrong:
                raise Unavailable(f"{command[0]} made a library that does not work: {wrong}")
        except Unavailable as e:
            fresh = Path(work, "note")
            fresh.write_text(str(e), encoding="utf-8")
            os.replace(fresh, folder / f"{name}.failed")
            raise
        os.replace(target, folder / f"{name}-{digest(target)}.so")
    for path in sorted(folder.glob(f"{name}-*.so"))[1:]:  # another process built it at the same time
        path.unlink(missing_ok=True)
    return made


def digest(path: Path) -> str:
    """Return a hash of the bytes of a file."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def loaded(path: Path) -> Any:
    """Load the library with ctypes. Raises OSError."""
    import ctypes

    return ctypes.CDLL(str(path))
