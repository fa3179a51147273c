"""Shared fixtures: the built program, the reference bundle, radiographs."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import native
import pytest
from native import SANITIZERS, STRICT
from receivers import archive, changed

__all__ = ["archive", "changed"]
ROOT = Path(__file__).resolve().parent.parent


def needed(path: Path, target: str) -> Path:
    """Returns the path if it exists; otherwise the test fails with the make target that builds it."""
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is missing; run `make {target}`", pytrace=False)
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def anatomix() -> Path:
    """The program that `make build` builds."""
    return needed(ROOT / "target/release/anatomix", "build")


@pytest.fixture(scope="session")
def onnxruntime_library() -> Path:
    """The ONNX Runtime library that `make deps` fetches."""
    return needed(ROOT / ".deps/onnxruntime/libonnxruntime.so", "deps")


@pytest.fixture(scope="session")
def trainer(onnxruntime_library):
    """Runs the trainer that `make trainer` builds, and returns what it prints."""
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")

    def trainer(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return trainer


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The reference bundle, or the one in ANATOMIX_BUNDLE, which the program reads, too."""
    if named := os.environ.get("ANATOMIX_BUNDLE"):
        return Path(named).resolve()
    return needed(ROOT / "examples/reference-bundle", "reference")


@pytest.fixture(scope="session")
def manifest(bundle: Path) -> dict:
    """The bundle's manifest."""
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
    """Runs the program: `run("perceive", path, "--json")`. `env` adds variables, and removes those with the value `None`."""

    def run(*arguments, env=None, program=anatomix, timeout=120, **options) -> subprocess.CompletedProcess:
        variables = {**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library)} | (env or {})
        # A backtrace would make the message of a panic longer than a user's.
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
    """Runs the program, which must succeed, and returns its standard output."""

    def succeed(*arguments, **options) -> str:
        result = run(*arguments, **options)
        assert result.returncode == 0, f"{arguments} exited with {result.returncode}: {result.stderr}"
        return result.stdout

    return succeed


@pytest.fixture(scope="session")
def perceive(succeed):
    """Returns the output of `perceive IMAGE --json` as a dictionary. Results are cached for the session."""
    known = {}

    def perceive(path) -> dict:
        if path not in known:
            known[path] = json.loads(succeed("perceive", path, "--json"))
        return known[path]

    return perceive


@pytest.fixture(scope="session")
def environment(root) -> dict:
    """The environment that .cargo/config.toml sets for cargo."""
    return {"ORT_DYLIB_PATH": str(root / ".deps/onnxruntime/libonnxruntime.so"), **os.environ}


@pytest.fixture
def compiled(root, anatomix, tmp_path):
    """Compiles a C++17 program against the library and returns it."""

    def compiled(source, *flags, sanitizers=None):
        file, program, library = tmp_path / "program.cpp", tmp_path / "program", Path(anatomix).parent
        file.write_text(source)
        link = ["-L", library, "-lanatomix", f"-Wl,-rpath,{library}"]
        native.run(["g++", "-std=c++17", *STRICT, *(sanitizers or SANITIZERS), *flags, "-I", root / "include", file, "-o", program, *link])
        return program

    return compiled


@pytest.fixture(scope="session")
def programs(root, anatomix, tmp_path_factory):
    """The folder of the built C++ examples."""
    folder = tmp_path_factory.mktemp("cpp")
    tools = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    library = Path(anatomix).parent
    configure = ["cmake", "-S", root / "examples/cpp", "-B", folder, "-G", "Ninja", f"-DANATOMIX_LIBRARY_DIR={library}"]
    native.run([*configure, "-DCMAKE_BUILD_TYPE=Release"], env)
    native.run(["cmake", "--build", folder], env)
    return folder


def iou(a, b) -> float:
    """Intersection over union of two boxes `x0, y0, x1, y1`."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return inner / (area(a) + area(b) - inner)


def check_refused(result, *patterns):
    """Checks for exit code 1, no standard output, and an error of one or two lines with the patterns and an advice."""
    error = result.stderr.strip()
    assert result.returncode == 1, f"exit code {result.returncode}: {error}"
    assert result.stdout == ""
    assert "panicked" not in error
    assert 1 <= len(error.splitlines()) <= 3, error
    for pattern in patterns:
        assert re.search(pattern, error, re.IGNORECASE), f"{pattern!r} is not in {error!r}"
    # The form of messages is "what is wrong; what to do".
    assert ";" in error or "\n" in error, error
