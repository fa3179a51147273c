"""`export` in all precisions: operators, bytes, reported deviations from fp32, and refused combinations.

The runs are those of importing.py, with random weights from published layouts.
"""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, needed
from PIL import Image
from safetensors.torch import load_file, save_file
from test_decoding import Cached, prompt  # noqa: F401 (fixture)
from importing import folder_run, session, trainer  # noqa: F401 (fixtures)

# Precisions of decoder and perception module, operators, smallest accepted top-1 agreement, smallest accepted box IoU.
EXPORTS = [
    ("fp32", "fp32", "portable", 0.999, None),
    ("fp16-weights", "fp16-weights", "fused", 0.98, 0.99),
    ("fp16-weights", "fp16", "portable", 0.98, 0.97),
    ("bf16", "fp32", "fused", 0.9, None),
    ("int8", "int8", "fused", 0.9, 0.8),
    ("int4", "fp32", "fused", 0.3, None),
]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def graph(folder, name="decoder"):
    return onnx.load(folder / f"{name}.onnx", load_external_data=False)


def places(model):
    """Offset and length of each large initializer in the data file."""
    entries = {t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer if t.external_data}
    return {name: (int(entry["offset"]), int(entry["length"])) for name, entry in entries.items()}


@pytest.mark.parametrize("decoder,apm,operators,tokens,boxes", EXPORTS)
def test_precisions(trainer, folder_run, tmp_path, decoder, apm, operators, tokens, boxes):  # noqa: F811
    arguments = ["--name", "made", "--decoder", decoder, "--apm", apm, "--operators", operators]
    said = trainer("export", folder_run.run, "--out", tmp_path / "a", *arguments)
    trainer("export", folder_run.run, "--out", tmp_path / "b", *arguments)
    assert contents(tmp_path / "a") == contents(tmp_path / "b"), "two exports give the same bytes"
    print("\n".join(line for line in said.splitlines() if "against" in line))

    found = re.search(r"decoder\.onnx in (\S+) against fp32(.*): the same token at ([\d.]+) % of (\d+) positions, KL ([\d.e-]+) nats", said)
    assert found, said
    assert found[1] == decoder and int(found[4]) > 1000
    assert float(found[3]) / 100 >= tokens and float(found[5]) >= 0
    assert ("golden input reproduced on" in said) == (decoder != "bf16")
    # ONNX Runtime has no bf16 operators on the CPU, so that the deviation is measured on the weights.
    assert ("by its weights alone" in found[2]) == (decoder == "bf16")
    assert (float(found[5]) < 1e-8) == (decoder == "fp32"), "rounding moves something"
    seen = re.search(r"apm\.onnx in (\S+) against fp32: box IoU ([\d.]+) .* embedding cosine ([\d.]+)", said)
    if boxes is None:
        assert seen is None
    else:
        assert seen[1] == apm and boxes <= float(seen[2]) <= 1 and float(seen[3]) > 0.98

    model = graph(tmp_path / "a")
    kinds = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer}
    operators_of = [node.op_type for node in model.graph.node]
    domains = {node.domain for node in model.graph.node} | {opset.domain for opset in model.opset_import}
    for name in ["apm", "projector"]:
        assert {node.domain for node in graph(tmp_path / "a", name).graph.node} == {""}
    layers = folder_run.adapted.config.num_hidden_layers
    if operators == "portable":
        assert domains == {""}, "standard operators only"
        onnx.checker.check_model(str(tmp_path / "a/decoder.onnx"), full_check=decoder == "fp32")
    else:
        assert operators_of.count("GroupQueryAttention") == layers
        attention = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
        assert all(len(node.input) == 11 for node in attention), "norms of queries and keys are nodes of their own"
        normed = [node.name for node in model.graph.node if node.op_type == "SimplifiedLayerNormalization"]
        assert sum("q_norm" in name or "k_norm" in name for name in normed) == 2 * layers
    weight = kinds["model.layers.1.mlp.gate_up_proj.weight"]
    assert weight == {"fp32": "FLOAT", "fp16-weights": "FLOAT16", "bf16": "BFLOAT16"}.get(decoder, "UINT8")
    at, size = places(model), (tmp_path / "a/decoder.onnx.data").stat().st_size
    if decoder in ("int8", "int4"):
        assert operators_of.count("MatMulNBits") == 4 * layers + 1 and operators_of.count("GatherBlockQuantized") == 1
        # The output layer has the same bytes of the file as the embedding table, in another shape.
        assert at["model.embed_tokens.weight.blocks"] == at["model.embed_tokens.weight"]
    once = sum(length for _, length in set(at.values()))
    assert once <= size < once + 64 * len(at), "nothing is stored twice"
    # A tied table is stored once in each precision.
    assert not any("lm_head" in name for name in at)


def test_the_golden_input_comes_first(trainer, tmp_path):  # noqa: F811
    """A bundle that the SDK does not reproduce is not put over one that it does."""
    run, out = needed(ROOT / "examples/reference/run", "reference"), tmp_path / "out"
    said = trainer("export", run, "--out", out, "--measure", "never")
    assert re.search(r"opened by the SDK, golden input reproduced on \S", said), said
    before = contents(out)
    # Calibrated with an image of nothing, a module in 8 bits cuts off what it sees elsewhere.
    (tmp_path / "blank").mkdir()
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(tmp_path / "blank/blank.png")
    bad = ["export", run, "--out", out, "--measure", "never", "--apm", "int8", "--calibrate", tmp_path / "blank"]
    said = trainer(*bad, fails=True)
    assert f"the bundle was not put at {out}" in said and "differs from the bundle's golden output" in said, said
    assert contents(out) == before and {path.name for path in tmp_path.iterdir()} == {"blank", "out"}
    said = trainer(*bad, "--no-golden-check")
    assert "golden input not run" in said and contents(out) != before, said


def test_what_the_manifest_vouches_for(trainer, folder_run, tmp_path):  # noqa: F811
    """The kinds of processors are those that were named, not the one that the export ran on."""
    kinds = ["x86-64 AVX2", "aarch64"]
    for name, named in [("some", kinds), ("none", [])]:
        options = [part for kind in named for part in ["--checked-on", kind]]
        trainer("export", folder_run.run, "--out", tmp_path / name, "--apm", "fp32", "--decoder", "fp32", *options)
        assert json.loads((tmp_path / name / "manifest.json").read_text()).get("checked_on", []) == named
    assert "possible values" in trainer("export", folder_run.run, "--out", tmp_path / "x", "--checked-on", "abacus", fails=True)


def test_portable_and_fused_say_the_same(trainer, folder_run, prompt, tmp_path):  # noqa: F811
    """The decoder with standard operators equals the fused one in one run, in chunks, and token by token with one KV cache."""
    trainer("export", folder_run.run, "--out", tmp_path / "portable", "--decoder", "fp32", "--apm", "fp32", "--operators", "portable")
    ids, index, visual = prompt
    length = ids.shape[1]
    expected = Cached(folder_run.bundle, length).run(ids, index, visual)
    steps = {"at once": [length], "in chunks": [1, 50, 51, 700, length], "step by step": range(length - 60, length + 1)}
    for what, ends in steps.items():
        decoder, parts, start = Cached(tmp_path / "portable", length), [], 0
        for end in ends:
            parts.append(decoder.run(ids[:, start:end], index[:, start:end], visual))
            start = end
        difference, largest = np.abs(np.concatenate(parts) - expected).max(), np.abs(expected).max()
        print(f"portable against fused, {what}: logits of {length} tokens differ by at most {difference:.1e} of {largest:.1f}")
        assert difference < 1e-4


def test_a_decoder_alone(trainer, folder_run, tmp_path):  # noqa: F811
    """Without a perception module there is no golden image, so that the deviation is measured on text."""
    trainer("import", "--out", tmp_path / "run", "--language", folder_run.folder / "gemma")
    said = [trainer("export", tmp_path / "run", "--out", tmp_path / name, "--decoder", "int4") for name in ["a", "b"]]
    found = re.search(r"decoder\.onnx in int4 against fp32: the same token at ([\d.]+) % of (\d+) positions", said[0])
    print(found[0])
    assert int(found[2]) > 500
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and set(contents(tmp_path / "a")) == {"decoder.onnx", "decoder.onnx.data"}


def test_graphs_of_what_there_is(trainer, folder_run, tmp_path):  # noqa: F811
    """An incomplete run gives the graphs of its parts, with the file names of bundles."""
    for held, expected in [(["apm"], ["apm"]), (["apm", "adapter"], ["apm", "projector"])]:
        run, out = tmp_path / "-".join(held), tmp_path / f"{'-'.join(held)}.out"
        run.mkdir()
        for name in [*(f"{part}.safetensors" for part in held), "models.toml"]:
            shutil.copy(folder_run.run / name, run)
        trainer("export", run, "--out", out, "--apm", "fp32", "--decoder", "fp32")
        assert set(contents(out)) == {f"{name}.onnx{end}" for name in expected for end in ["", ".data"]}
        assert contents(out)["apm.onnx"] == contents(folder_run.bundle)["apm.onnx"]
    apm = session(out / "apm.onnx")
    assert [(value.name, value.shape[1:]) for value in apm.get_inputs()] == [("image", [1, 96, 96])]
    shapes = {value.name: value.shape[1:] for value in apm.get_outputs()}
    assert shapes == {"boxes": [36, 4], "object_embeddings": [36, 6], "image_tokens": [9, 32], "image_logits": [14]}


def test_refused_precisions(trainer, folder_run, tmp_path):  # noqa: F811
    for arguments, expected in [
        (["--decoder", "fp16"], ["activations grow beyond 65504", "choose bf16"]),
        (["--decoder", "int4", "--operators", "portable"], ["--operators fused"]),
        (["--apm", "bf16"], ["perception module is not exported in bf16"]),
        (["--apm", "int4"], ["perception module is not exported in int4"]),
    ]:
        said = trainer("export", folder_run.run, "--out", tmp_path / "out", *arguments, fails=True)
        assert all(part in said for part in expected), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file,name", [
    ("language", "model.layers.2.self_attn.q_proj.weight"),
    ("language", "model.embed_tokens.weight"),
    ("language", "model.norm.weight"),
    ("adapter", "model.layers.2.mlp.up_proj.lora_B.weight"),
    ("adapter", "image_projectionhead.proj.0.weight"),
    ("apm", "backbone.0.body.layer1.0.conv2.weight"),
    ("apm", "bbox_embed.layers.1.bias"),
])  # fmt: skip
def test_values_that_are_no_numbers(trainer, folder_run, tmp_path, file, name):  # noqa: F811
    """A run with values that are not finite can be imported, but not exported."""
    shutil.copytree(folder_run.run, tmp_path / "run")
    tensors = load_file(tmp_path / f"run/{file}.safetensors")
    tensors[name].view(-1)[1] = float("nan") if tensors[name].dim() > 1 else float("inf")
    save_file(tensors, tmp_path / f"run/{file}.safetensors")
    for decoder, apm in [("fp32", "fp32"), ("int4", "fp16-weights")]:
        said = trainer("export", tmp_path / "run", "--out", tmp_path / "out", "--decoder", decoder, "--apm", apm, fails=True)
        assert "not finite" in said
        assert name.replace("conv2.weight", "conv2").replace("up_proj.lora_B.weight", "up_proj.weight") in said, said
    assert torch.isnan(tensors[name]).any() or torch.isinf(tensors[name]).any()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
