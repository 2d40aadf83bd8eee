"""The build gives a pure Python wheel that contains its data, and the repository's top level has no clutter."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[1]
NETS = "plain20", "plain56", "resnet20", "resnet56"
SHIPPED = {  # what minires.shipped_file finds in an installed package
    "fashion-mnist-12k.npz", "results/cifar10/analyses.json", "results/placement/negative_sums.json",
    *(f"results/{name}/results.json" for name in (
        "bottleneck", "cifar10", "convergence", "depth", "fashion-mnist", "one-dimension", "overfitting",
        "placement")),
    *(f"weights/{folder}/{name}" for folder in ("cifar10", "fashion-mnist")
      for name in ("weights.json", *(f"{net}.safetensors" for net in NETS))),
}
RECORD = "results/detection/results.json"
if (ROOT / "data" / RECORD).exists():  # data/make_detection.py --write makes these together
    SHIPPED |= {RECORD, *(f"weights/patches/{net}.safetensors" for net in NETS),
                *(f"weights/detection/{net}.safetensors" for net in ("resnet20", "resnet56"))}
TOP_LEVEL = {
    "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE",
    "minires", "notebooks", "tests", "data", "benchmarks", "docs",
}


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode("utf-8"))


def test_wheel_is_pure_python(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")


def archived(wheel, name):
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def test_wheel_holds_the_library_and_its_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name in SHIPPED:
            assert archive.read(f"minires/data/{name}") == (ROOT / "data" / name).read_bytes()
    assert wheel.stat().st_size < 13.5e6
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "minires").rglob("*.[chjp]*")
               if path.suffix in (".py", ".c", ".h", ".js")}
    assert "minires/kernels/c/convolution.c" in sources and "minires/kernels/c/native.h" in sources
    assert sources | {"minires/py.typed"} <= names
    masters = {f"minires/course/masters/{path.name}": path for path in (ROOT / "notebooks/course").glob("a*.py")}
    for name, path in masters.items():
        assert archived(wheel, name) == path.read_bytes()
    assert masters
    rest = names - sources - {f"minires/data/{name}" for name in SHIPPED} - {"minires/py.typed"} - set(masters)
    info = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    assert {name.removeprefix(f"{info}/") for name in rest} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt",
        "licenses/LICENSE", "licenses/data/LICENSE.fashion-mnist",
    }


def test_wheel_installed_elsewhere_finds_its_data(wheel, tmp_path):
    """An installed wheel is an unpacked one, so this test needs no second environment."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = f"""import minires, minires.datasets as d
for name in {SHIPPED!r}:
    assert minires.shipped_file(name).is_file()
print(d.__file__, *map(len, d.fashion_mnist_small()))"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout and done.stdout.split()[-2:] == ["10000", "2000"]


def test_metadata(metadata):
    assert metadata["Name"] == "minires"
    assert metadata["Version"] == written_version()
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"


def written_version():
    source = (ROOT / "minires" / "__init__.py").read_text(encoding="utf-8")
    return next(line.split('"')[1] for line in source.splitlines() if line.startswith("__version__"))


def requirements(metadata, extra="", **environment):
    """Return the names that are installed for an extra, without those that are always installed."""
    environment = {**default_environment(), **environment}

    def names(extra):
        wanted = map(Requirement, metadata.get_all("Requires-Dist"))
        return {
            r.name for r in wanted if r.marker is None or r.marker.evaluate({**environment, "extra": extra})
        }

    return names(extra) - (names("") if extra else set())


def test_dependencies(metadata):
    always = {"numpy", "matplotlib", "tqdm", "threadpoolctl"}
    assert requirements(metadata, sys_platform="linux") == always | {"safetensors"}
    assert requirements(metadata, sys_platform="emscripten") == always
    specifiers = {r.name: str(r.specifier) for r in map(Requirement, metadata.get_all("Requires-Dist"))}
    assert specifiers["numpy"] == ">=2.0"
    for name in always | {"safetensors", "distributed", "torch"}:  # .ci/oldest tests with these lower bounds
        assert specifiers[name].startswith(">="), name
    assert {name for name, specifier in specifiers.items() if "<" in specifier} <= {
        "cupy-cuda12x",
        "cupy-cuda13x",
    }


def test_extras(metadata):
    assert set(metadata.get_all("Provides-Extra")) == {"cuda12", "cuda13", "cluster", "docs", "notebooks", "test",
                                                       "oracle"}
    for version in ("12", "13"):
        cupy = {f"cupy-cuda{version}x"}
        assert requirements(metadata, f"cuda{version}", sys_platform="linux") == cupy
        assert requirements(metadata, f"cuda{version}", sys_platform="darwin") == set()
    assert requirements(metadata, "oracle") == {"torch", "expecttest", "pycocotools"}
    assert "torch" not in requirements(metadata, "test")


def test_entry_point(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "minires = minires.cli:main" in archive.read(name).decode("utf-8").splitlines()


def test_top_level_holds_only_what_belongs_there():
    """Files that git ignores (virtual environments, caches, results of a run) do not count."""
    listed = None
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if listed is None or listed.returncode != 0:
        pytest.skip("not a git checkout, so the test cannot recognise files that do not belong here")
    found = {name.strip('"').split("/")[0] for name in listed.stdout.splitlines()}
    visible = {name for name in found if not name.startswith(".")}
    assert visible - TOP_LEVEL == set()
    assert TOP_LEVEL - visible <= {"notebooks", "benchmarks"}  # git does not store empty folders
    assert found - visible == {".ci", ".github", ".gitignore", ".gitattributes"}


def test_tool_configuration_has_no_upper_python_bound_and_treats_warnings_as_errors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert not any(
        "<" in r for r in [project["project"]["requires-python"], *project["project"]["dependencies"]]
    )
