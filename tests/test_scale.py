"""`make test-4b` at a reduced width."""

import json
import subprocess
import sys

from conftest import ROOT, needed

MIB = 1 << 20


def test_reduced_width(onnxruntime_library, tmp_path):
    needed(ROOT / "target/release/anatomix-trainer", "trainer")
    sizes = ["--hidden", "512", "--layers", "8", "--rows", "65536"]
    command = [sys.executable, ROOT / "tests/scale.py", tmp_path / "scale", *sizes]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    print(result.stdout)
    figures = json.loads((tmp_path / "scale/figures.json").read_text())
    steps = figures["steps"]
    assert figures["weights_bytes"] > 150 * MIB and figures["bundle_bytes"] < figures["weights_bytes"]
    # An import streams the language model: its memory is that of the libraries and of the largest tensor of the other parts.
    assert steps["import"]["peak_bytes"] < 700 * MIB
    assert steps["ask"]["tokens"] > 0
    assert not (tmp_path / "scale/run").exists(), "large files are removed"
