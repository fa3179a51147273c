"""ONNX Runtime is that of the installed package, which is not imported; whoever names another one gets that."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import abi3info
import anatomix
import pytest
from abi3info.models import PyVersion

from conftest import BUNDLE, PHANTOM, ROOT

OPEN = """
import os, sys
os.environ.pop("ORT_DYLIB_PATH", None)
import anatomix
lines = []
engine = anatomix.Engine.open(sys.argv[1], log=lambda level, message: lines.append(message), **eval(sys.argv[2]))
assert "onnxruntime" not in sys.modules
print(next(line for line in lines if "with ONNX Runtime" in line))
"""


def test_the_library_is_that_of_the_package(script):
    done = script(OPEN, BUNDLE, "{}")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime/capi/libonnxruntime.so" in done.stdout
    assert importlib.metadata.version("onnxruntime") in done.stdout


def test_a_library_that_is_named_is_used(script):
    library = ROOT / ".deps/onnxruntime/libonnxruntime.so"
    done = script(OPEN, BUNDLE, repr({"library": str(library)}))
    assert done.returncode == 0 and str(library) in done.stdout, done.stderr
    code = OPEN.replace('os.environ.pop("ORT_DYLIB_PATH", None)', f"os.environ['ORT_DYLIB_PATH'] = {str(library)!r}")
    done = script(code, BUNDLE, "{}")
    assert done.returncode == 0 and str(library) in done.stdout, done.stderr


def test_a_missing_library_is_an_error_with_the_path(script):
    done = script(OPEN, BUNDLE, repr({"library": "/nowhere/libonnxruntime.so"}))
    assert done.returncode == 1 and "anatomix._errors.OnnxRuntimeError" in done.stderr and "/nowhere/libonnxruntime.so" in done.stderr


@pytest.mark.parametrize("first", ["onnxruntime", "anatomix"])
def test_it_lives_beside_onnxruntime_itself(script, first):
    code = f"""
import os, sys
os.environ.pop("ORT_DYLIB_PATH", None)
import {first}
import anatomix, onnxruntime
engine = anatomix.Engine.open(sys.argv[1])
session = onnxruntime.InferenceSession(sys.argv[1] + "/apm.onnx", providers=["CPUExecutionProvider"])
assert len(session.get_outputs()) == 4
assert len(engine.study(sys.argv[2]).structures) == 36
print("both")
"""
    done = script(code, BUNDLE, PHANTOM)
    assert (done.returncode, done.stdout) == (0, "both\n"), done.stderr


def test_the_wheel_says_what_it_needs_and_contains():
    """Its licences are renewed when dependencies change."""
    wheel = importlib.metadata.distribution("anatomix")
    assert any(one.startswith("numpy") for one in wheel.requires) and any(one.startswith("onnxruntime>=1.24") for one in wheel.requires)
    texts = {Path(file).name: file.read_text() for file in wheel.files if "dist-info" in str(file)}
    assert {"LICENSE-MIT", "LICENSE-APACHE", "LICENSE-DejaVuSans", "anatomix-python.cyclonedx.json"} <= texts.keys()
    listed = set(re.findall(r"^([\w-]+) (\d[^ :]*): ", texts["THIRD-PARTY.txt"], re.MULTILINE))
    linked = set()
    for machine in ("x86_64", "aarch64"):
        tree = ["cargo", "tree", "--locked", "--package", "anatomix-python", "--edges", "normal", "--prefix", "none"]
        found = subprocess.run([*tree, "--target", f"{machine}-unknown-linux-gnu"], check=True, capture_output=True, text=True, cwd=ROOT)
        linked |= set(re.findall(r"^([\w-]+) v(\d\S*)", found.stdout, re.MULTILINE))
    assert listed == linked, "dependencies changed: run `make licences` and commit what it writes"


def test_the_wheel_runs_on_every_python_that_it_names():
    """Python 3.9 and later: the extension calls only what is in Python's stable interface since then, and the files have no newer syntax or
    calls."""
    wheel = importlib.metadata.distribution("anatomix")
    assert wheel.metadata["Requires-Python"] == ">=3.9" and "Tag: cp39-abi3-" in wheel.read_text("WHEEL")
    [extension] = [file.locate() for file in wheel.files if file.name == "_anatomix.abi3.so"]
    listed = subprocess.run(["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True).stdout
    used = {name for name in re.findall(r"\bU (\w+)", listed) if name.startswith(("Py", "_Py"))}
    since = {symbol.name: known.added for table in (abi3info.FUNCTIONS, abi3info.DATAS) for symbol, known in table.items()}
    assert len(used) > 50 and [name for name in used if name not in since or since[name] > PyVersion(3, 9)] == []
    sources = [file.locate() for file in wheel.files if file.suffix == ".py"]
    command = [sys.executable, "-c", "from vermin import main; main()", "--no-tips", "--target=3.9-", "--violations", *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(sources) > 5 and done.returncode == 0, done.stdout


KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"


def test_an_engine_with_a_key_opens_what_is_signed(tmp_path):
    with pytest.raises(anatomix.BundleError) as error:
        anatomix.Engine.open(BUNDLE, public_key=KEY)
    assert error.value.code == "bundle_signature"
    with pytest.raises(ValueError, match="public_key cannot be used"):
        anatomix.Engine.open(BUNDLE, public_key="key")
    if shutil.which("minisign") is None:
        pytest.skip("minisign (Debian's package minisign) is missing")
    copy = shutil.copytree(BUNDLE, tmp_path / "bundle")
    secret, public = tmp_path / "vendor.key", tmp_path / "vendor.pub"
    for command in (["-G", "-W", "-p", public], ["-S", "-m", copy / "manifest.json"]):
        subprocess.run(["minisign", *command, "-s", secret], check=True, capture_output=True)
    assert anatomix.Engine.open(copy, public_key=public.read_text()).bundle == "anatomix-reference"


def test_the_page_has_every_code():
    header = (ROOT / "include/anatomix.h").read_text()
    statuses = set(re.findall(r"\bANX_([A-Z_]+) = \d+", header.split("enum anx_status")[1].split("}")[0]))
    # A call that succeeds raises nothing, and one on a busy study waits.
    codes = {status.lower() for status in statuses} - {"ok", "busy"}
    page = (ROOT / "docs/python.md").read_text()
    assert len(codes) > 30 and [code for code in codes if f"`{code}`" not in page] == []


def test_bundles_that_are_none_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(anatomix.BundleError) as error:
            anatomix.Engine.open(folder)
        assert error.value.code in ("bundle_missing", "bundle_read") and str(folder) in error.value.message
    with pytest.raises(ValueError, match="choose auto, cpu, cuda"):
        anatomix.Engine.open(BUNDLE, provider="gpu")
    with pytest.raises(anatomix.OnnxRuntimeError) as error:
        anatomix.Engine.open(BUNDLE, threads=100_000)
    assert error.value.code == "invalid_argument"
    with pytest.raises(ValueError, match="draft_cost is 2"):
        anatomix.Engine.open(BUNDLE, draft_cost=2.0)
    assert sys.modules["anatomix"].__version__ == importlib.metadata.version("anatomix")
