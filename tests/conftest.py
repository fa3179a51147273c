"""What the tests share: the built program, the reference bundle, radiographs."""

import importlib.metadata
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def needed(path: Path, target: str) -> Path:
    """The path, if it is there; otherwise the test fails and says what makes it."""
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is missing; run `make {target}`", pytrace=False)
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def anatomix() -> Path:
    """The command line, as `make build` leaves it."""
    return needed(ROOT / "target/release/anatomix", "build")


@pytest.fixture(scope="session")
def onnxruntime_library() -> Path:
    """ONNX Runtime, as `make deps` leaves it."""
    return needed(ROOT / ".deps/onnxruntime/libonnxruntime.so", "deps")


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The reference bundle, or the one that ANATOMIX_BUNDLE names to the program too."""
    if named := os.environ.get("ANATOMIX_BUNDLE"):
        return Path(named).resolve()
    return needed(ROOT / "examples/reference-bundle", "reference")


@pytest.fixture(scope="session")
def manifest(bundle: Path) -> dict:
    """Its manifest."""
    return json.loads((bundle / "manifest.json").read_text())


@pytest.fixture(scope="session")
def phantom_dicom() -> Path:
    """A synthetic radiograph as DICOM."""
    return needed(ROOT / "examples/phantom.dcm", "reference")


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory) -> Path:
    """The real radiographs of pydicom-data, copied to one folder: RG1 is a chest, RG3 an extremity."""
    folder = tmp_path_factory.mktemp("radiographs")
    for file in importlib.metadata.distribution("pydicom-data").files or []:
        if file.name.startswith(("RG1_", "RG3_")):
            shutil.copy(file.locate(), folder / file.name)
    assert (folder / "RG1_UNCI.dcm").exists(), "pydicom-data no longer carries RG1"
    return folder


@pytest.fixture(scope="session")
def run(anatomix: Path, onnxruntime_library: Path):
    """Runs the program: `run("perceive", path, "--json")`. `env` adds variables, `None` as a value takes one away."""

    def run(*arguments, env=None, program=anatomix, timeout=120, **options) -> subprocess.CompletedProcess:
        variables = {**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library)} | (env or {})
        # A backtrace would lengthen the message of a panic, not make one: what is tested is what a user sees.
        variables.pop("RUST_BACKTRACE", None)
        return subprocess.run(
            [program, *arguments],
            env={key: value for key, value in variables.items() if value is not None},
            cwd=options.pop("cwd", ROOT),
            stdin=None if "input" in options else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def succeed(run):
    """Runs the program, which must succeed, and returns what it printed."""

    def succeed(*arguments, **options) -> str:
        result = run(*arguments, **options)
        assert result.returncode == 0, f"{arguments} exited with {result.returncode}: {result.stderr}"
        return result.stdout

    return succeed


@pytest.fixture(scope="session")
def perceive(succeed):
    """`perceive IMAGE --json` as a dictionary; every image is perceived once in a session."""
    known = {}

    def perceive(path) -> dict:
        if path not in known:
            known[path] = json.loads(succeed("perceive", path, "--json"))
        return known[path]

    return perceive


def iou(a, b) -> float:
    """Intersection over union of two boxes `x0, y0, x1, y1`."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return inner / (area(a) + area(b) - inner)
