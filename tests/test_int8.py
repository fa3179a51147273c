"""The perception module in int8 loses little: mean IoU of exports of the reference run, on phantoms with unseen seeds."""

import json
import subprocess
import tomllib

import onnx
import pytest
from conftest import ROOT, needed

PHANTOMS = 60
# Training uses seeds from 0 on, `make evaluate` from 1,000,000 on.
SEED = 2_000_000
LOSS = 0.005


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

    # All convolutions and all matrix products of the transformer with weights are in 8 bits, except for attention in its encoder, also
    # where the name of an activation has changed.
    sizes = tomllib.loads((run / "models.toml").read_text())["apm"]
    nodes = onnx.load(tmp_path / "int8/apm.onnx", load_external_data=False).graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    rounded = [node.op_type for node in nodes if made_by.get(node.input[1] if len(node.input) > 1 else None) == "DequantizeLinear"]
    assert rounded.count("Conv") == 1 + sum(3 * blocks + 1 for blocks in sizes["blocks"])
    # Two products are in each encoder layer, ten in each decoder layer; the others are those of the feature extractor and input_proj.
    assert rounded.count("MatMul") == 2 * sizes["encoder_layers"] + 10 * sizes["decoder_layers"] + 3 + 1
    # The two graphs differ.
    assert fp32["apm"]["iou"] != int8["apm"]["iou"]
