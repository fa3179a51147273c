"""The perception module in 8 bits loses next to nothing: mean IoU of the reference run's exports, on phantoms of unseen seeds."""

import json
import subprocess

import pytest
from conftest import ROOT, needed

PHANTOMS = 60
# Training draws seeds from 0, `make evaluate` from 1,000,000.
SEED = 2_000_000
LOSS = 0.005


@pytest.fixture(scope="module")
def trainer(onnxruntime_library):
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")

    def trainer(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return trainer


def test_int8_keeps_the_boxes(trainer, tmp_path):
    run = needed(ROOT / "examples/reference/run", "reference")
    trainer("phantom", "--out", tmp_path / "phantoms", "--count", PHANTOMS, "--seed", SEED, "--dicom-every", 0)

    def measured(precision):
        bundle = tmp_path / precision
        trainer("export", run, "--out", bundle, "--apm", precision, "--measure", "never")
        figures = trainer("evaluate", "--bundle", bundle, "--data", tmp_path / "phantoms", "--questions", 0, "--json")
        return json.loads(figures)

    fp32, int8 = measured("fp32"), measured("int8")
    assert fp32["images"] == int8["images"] == PHANTOMS
    loss = fp32["apm"]["iou"] - int8["apm"]["iou"]
    print(f"mean IoU {fp32['apm']['iou']:.4f} in fp32, {int8['apm']['iou']:.4f} in int8: loss {loss:.5f}, at most {LOSS}")
    assert loss <= LOSS
    # The two are not the same graph.
    assert fp32["apm"]["iou"] != int8["apm"]["iou"]
