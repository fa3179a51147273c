"""Shared fixtures: an engine on the reference bundle, studies of the phantom, and what the program prints for them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import anatomix

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = ROOT / "examples/reference-bundle"
PHANTOM = ROOT / "examples/phantom.dcm"


@pytest.fixture(scope="session")
def engine() -> anatomix.Engine:
    return anatomix.Engine.open(BUNDLE)


@pytest.fixture
def study(engine) -> anatomix.Study:
    return engine.study(PHANTOM)


@pytest.fixture(scope="session")
def printed():
    """What the program prints with --json, as a list of dictionaries: `printed("perceive", path)`."""
    program = ROOT / "target/release/anatomix"
    assert program.exists(), "target/release/anatomix is missing; run `make build`"
    library = ROOT / ".deps/onnxruntime/libonnxruntime.so"

    def printed(*arguments):
        command = [program, *arguments, "--json", "--bundle", BUNDLE, "--library", library]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return printed


@pytest.fixture
def script():
    """Runs Python code in a process of its own and returns what it did."""

    def script(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return script
