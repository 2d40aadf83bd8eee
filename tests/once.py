"""Make files that take long once, for all the processes that run the tests."""

import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def locked(path):
    """Hold a lock that the system releases when its process ends. On Windows, without such locks, hold nothing."""
    with open(path, "a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(path, make):
    """Return `path`, a file or folder that make(temporary path) has written.

    The first process that asks makes it. The others wait for it. A path that exists is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            make(fresh)
            with contextlib.suppress(FileExistsError):  # without a lock, another process was faster
                fresh.rename(path)
    return path
