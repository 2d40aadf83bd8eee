"""Distribute the tests over processes, and define the fixtures that several files use."""

import gc
import os
import signal
import zipfile

# Set before NumPy, PyTorch and minires are loaded. A test that needs two threads opens kernels.parallel.session.
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which together use every core
    for variable in "MINIRES_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS":
        os.environ[variable] = "1"

import fake_cupy
import hypothesis
import pytest
from once import made_once

import minires.kernels

gc.disable()  # until all tests are collected: what is loaded and collected lives until the end of the session

# Where the tests run in the background, signals may be ignored, and what a test starts would ignore them too.
for number, handler in (signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# The same examples in every run. --hypothesis-profile=ci tries more of them.
hypothesis.settings.register_profile("default", max_examples=40, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("default"), max_examples=1000)
hypothesis.settings.load_profile("default")

# ------------------------------------------------------------------------------ distribution over processes

MOST_PROCESSES = 8  # each process imports PyTorch and Matplotlib
# The tests of these files take long and share only what made_once makes, so each test is a group of its own.
SPREAD = {"test_notebooks.py", "test_bank.py", "test_alternates.py", "test_judge.py", "test_withheld.py"}


def group_of(nodeid):
    """Return the group of a test. The tests of one group run in one process, one after the other."""
    file = nodeid.partition("::")[0]
    return nodeid if file.rpartition("/")[2] in SPREAD else file


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Distribute the whole suite over the cores, but run files named on the command line in this process."""
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    option = config.option
    alone = option.usepdb or option.collectonly or config.args_source is not config.ArgsSource.TESTPATHS
    if option.numprocesses is None and option.dist == "no" and not option.tx and not alone:
        option.numprocesses = min(minires.kernels.parallel.cores(), MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    return min(minires.kernels.parallel.cores(), MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give every process one group at a time, the longest first."""
    if config.option.dist != "load":  # the user asked for another distribution
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):  # private: the method that xdist's own LoadFileScheduling replaces too
            return group_of(nodeid)

    config.option.loadscopereorder = False  # pytest_collection_modifyitems has ordered the tests
    return ByGroup(config, log)


def pytest_collection_modifyitems(config, items):
    """Start with the files whose tests take longest if there are several processes, so that all end together."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if any(map(item.get_closest_marker, ("notebooks", "system", "slow")))}
        items.sort(key=lambda item: item.path not in long)


def pytest_configure(config):
    if hasattr(config, "cache"):  # not with -p no:cacheprovider
        os.environ.setdefault("MINIRES_COMPILED", str(config.cache.mkdir("cuda-on-cpu")))
    minires.kernels.native.ready()  # compiles, at most once on a machine, and says so before any test listens


def pytest_collection_finish():
    """Enable the garbage collector, without the modules and the collected tests, which live until the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Return shared(name, make): the path `name` in the session's folder, made by make(path) in one process for all."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    return lambda name, make: made_once(base / name, make)


# ------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="session")
def wheel(shared):
    """Build the wheel of minires once for all processes."""
    from helpers import build_wheel  # here, because helpers.py loads PyTorch

    return next(shared("dist", build_wheel).glob("*.whl"))


@pytest.fixture(scope="session")
def site(wheel, shared):
    """Return a folder with minires as the wheel installs it."""
    def unpack(folder):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return shared("site", unpack)


@pytest.fixture(scope="session")
def finished_run(shared):
    """The folder of a run that nothing interrupted, `minires` and helpers.SMALL_RUN. Tests change copies of it."""
    from helpers import SMALL_RUN

    from minires import cli

    def train(folder):
        assert cli.main([*SMALL_RUN, "--out", str(folder)]) == 0
    return shared("finished-run", train)


@pytest.fixture
def blank_pictures():
    """Write an empty picture for every figure, because drawing the curves takes longer than a small training."""
    from minires import plot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "png", lambda figure, **options: b"\x89PNG\r\n\x1a\n")
        yield


@pytest.fixture
def no_collector():
    """Disable the garbage collector, so that a test can count the objects in reference cycles."""
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.fixture
def gpu_kernels():
    """Skip the test if the CUDA kernels cannot be compiled for the CPU."""
    if why := fake_cupy.missing():
        pytest.skip(why)


@pytest.fixture
def cp():
    """Install the stand-in for CuPy as `cupy` for this test."""
    undo = fake_cupy.install()
    import cupy
    yield cupy
    undo()
