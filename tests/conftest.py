"""How the tests are spread over processes, and the fixtures that several files use."""

import gc
import os

# Set before NumPy, PyTorch and minires are loaded. A test that needs two threads opens kernels.parallel.session.
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which together use every core
    for variable in "MINIRES_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS":
        os.environ[variable] = "1"

import hypothesis
import pytest

import minires.info

hypothesis.settings.register_profile("default", max_examples=60, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("default"), max_examples=500)
hypothesis.settings.load_profile("default")  # --hypothesis-profile=ci chooses the other

MOST_PROCESSES = 8  # each of them imports PyTorch and Matplotlib


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spread the whole suite over the cores; run files that are named on the command line in this process."""
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    option = config.option
    alone = option.usepdb or option.collectonly or config.args_source is not config.ArgsSource.TESTPATHS
    if option.numprocesses is None and option.dist == "no" and not option.tx and not alone:
        option.numprocesses = min(minires.info.cores(), MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    return min(minires.info.cores(), MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep a file's tests in one process, where they share their fixtures, unless its name is in SPREAD."""
    if config.option.dist != "load":  # the user's own choice
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):  # private: the method that xdist's documentation names for this
            return group_of(nodeid)

    config.option.loadscopereorder = False  # pytest_collection_modifyitems has put the longest first
    return ByFile(config, log)


# Files whose tests take long and share nothing that is costly to make.
SPREAD = {"test_notebooks.py"}


def group_of(nodeid):
    """The tests of one group run in one process, one after the other."""
    file = nodeid.partition("::")[0]
    return nodeid if file.rpartition("/")[2] in SPREAD else file


def pytest_collection_modifyitems(config, items):
    """In one of several processes, put the files first whose tests take longest, so that all end at about one time."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if any(map(item.get_closest_marker, ("notebooks", "system", "slow")))}
        items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish():
    """Modules and collected tests live until the end: the garbage collector need not walk through them each time."""
    gc.collect()
    gc.freeze()
