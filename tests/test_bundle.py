"""The reference bundle in independent readers: its files, its graphs in the onnx library, its tensors in safetensors."""

import json
import shutil
from hashlib import sha256

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

STRUCTURE_COUNT, LABEL_COUNT = 36, 14
GRAPHS = ["apm", "projector", "decoder"]
ADDED = (
    ["<image>", "<image_start>", "<image_end>", "<box>", "</box>", "<emb>", "</emb>"]
    + [f"<obj_{i}>" for i in range(STRUCTURE_COUNT)]
    + ["<ref>", "</ref>"]
)


def graph(bundle, name):
    return onnx.load(bundle / f"{name}.onnx", load_external_data=False)


def interface(values) -> dict:
    """Element type and shape of each input or output by name; dynamic dimensions are strings."""
    return {
        v.name: (
            onnx.TensorProto.DataType.Name(v.type.tensor_type.elem_type),
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        )
        for v in values
    }


def test_it_is_small(bundle):
    size = sum(file.stat().st_size for file in bundle.iterdir())
    print(f"{size / 1e6:.1f} MB")
    assert size <= 24e6


def test_the_manifest_describes_every_file(bundle, manifest):
    assert manifest["schema"] == 1
    assert {file.name for file in bundle.iterdir()} == {"manifest.json", *manifest["files"]}
    for name, entry in manifest["files"].items():
        data = (bundle / name).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"]), name


def test_it_names_no_machine(bundle):
    """The bundle holds no path, user name or host name of the machine that trained it."""
    for file in bundle.iterdir():
        if file.suffix in (".json", ".onnx"):
            text = file.read_bytes()
            assert b"/home/" not in text and b"/root/" not in text and b"/tmp/" not in text, file.name


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_valid(bundle, name):
    model = graph(bundle, name)
    if name != "decoder":  # which has operators of ONNX Runtime that are not in the standard
        # The checker gets a path, so that it finds and checks external data, too.
        onnx.checker.check_model(str(bundle / f"{name}.onnx"))
    assert {opset.domain for opset in model.opset_import} <= {"", "com.microsoft"}
    external = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert external == {f"{name}.onnx.data"}
    names = [node.name for node in model.graph.node]
    assert all(names) and len(set(names)) == len(names), "nodes have names of their own"


def test_perception_inputs_and_outputs(bundle, manifest):
    model, sizes, side = graph(bundle, "apm"), manifest["apm"], manifest["preprocess"]["size"]
    [(name, (kind, shape))] = interface(model.graph.input).items()
    assert (name, kind, shape[1:]) == ("image", "FLOAT", [1, side, side]) and isinstance(shape[0], str)
    assert {name: shape[1:] for name, (_, shape) in interface(model.graph.output).items()} == {
        "boxes": [STRUCTURE_COUNT, 4],
        "object_embeddings": [STRUCTURE_COUNT, sizes["embedding_width"]],
        "image_tokens": [sizes["patches"], sizes["token_width"]],
        "image_logits": [LABEL_COUNT],
    }
    # TensorRT's parser accepts standard operators only.
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_projector_inputs_and_outputs(bundle, manifest):
    model = graph(bundle, "projector")
    assert set(interface(model.graph.input)) == {"image_tokens", "object_embeddings"}
    [(name, (_, shape))] = interface(model.graph.output).items()
    assert name == "visual_features"
    assert shape[1:] == [manifest["apm"]["patches"] + STRUCTURE_COUNT, manifest["decoder"]["hidden"]]


def test_decoder_inputs_and_outputs(bundle, manifest):
    model, sizes = graph(bundle, "decoder"), manifest["decoder"]
    cache = lambda what: {f"{what}.{i}.{part}" for i in range(sizes["layers"]) for part in ("key", "value")}
    inputs, outputs = interface(model.graph.input), interface(model.graph.output)
    assert set(inputs) == {
        "input_ids", "visual_features", "visual_index", "seqlens_k", "total_sequence_length", "logit_positions",
        "position_ids", "full_attention_bias", "sliding_attention_bias",
    } | cache("past_key_values")
    assert set(outputs) == {"logits"} | cache("present")
    kind, shape = inputs["past_key_values.0.key"]
    assert kind == "FLOAT" and (shape[1], shape[3]) == (sizes["kv_heads"], sizes["head_dim"])
    assert outputs["logits"][1][-1] == sizes["vocabulary"]


def test_weights_keep_their_published_names(bundle):
    names = {tensor.name for name in GRAPHS for tensor in graph(bundle, name).graph.initializer}
    for name in (
        "backbone.0.body.conv1.weight",
        "bbox_embed.layers.0.weight",
        "anat_obj_embs.linear.weight",
        "obj_projectionhead.proj.0.weight",
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.o_proj.weight",
    ):
        assert name in names


def test_sentences(bundle, manifest):
    with safe_open(bundle / "sentences.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "anatomix-sentences"
        assert len(list(file.keys())) == 3 * STRUCTURE_COUNT
        for i in range(STRUCTURE_COUNT):
            rows, text, offsets = (file.get_tensor(f"{i:02}.{part}") for part in ("embeddings", "text", "offsets"))
            assert rows.dtype == np.float32 and rows.shape == (len(offsets) - 1, manifest["apm"]["embedding_width"])
            assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
            assert offsets[0] == 0 and offsets[-1] == len(text) and (np.diff(offsets.astype(np.int64)) > 0).all()
            sentences = [bytes(text[a:b]).decode() for a, b in zip(offsets[:-1], offsets[1:])]
            assert len(set(sentences)) == len(sentences)
            assert any(sentence.endswith(" is healthy.") for sentence in sentences)


def test_tokenizer(bundle, manifest):
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    ids = [tokenizer.token_to_id(token) for token in ADDED]
    assert None not in ids and ids == list(range(ids[0], ids[0] + len(ADDED))), "in the published order"
    assert tokenizer.get_vocab_size() <= manifest["decoder"]["vocabulary"]
    for text in ("<ref>nodule</ref><box>(1,22),(333,1024)</box>", "Left lung is healthy."):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_info_can_be_read_by_programs(succeed, bundle, manifest):
    info = json.loads(succeed("bundle", "info", bundle, "--json"))
    assert manifest["name"] in json.dumps(info)


def test_onnx_runtime_prints_nothing_by_itself(run, bundle, phantom_dicom, tmp_path):
    """Of an initializer that no node uses ONNX Runtime warns. The warning is in the log only."""
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    graph = onnx.load(copy / "apm.onnx", load_external_data=False)
    graph.graph.initializer.append(onnx.helper.make_tensor("left over", onnx.TensorProto.FLOAT, [1], [0.0]))
    (copy / "apm.onnx").write_bytes(graph.SerializeToString())
    described = json.loads((copy / "manifest.json").read_text())
    changed = (copy / "apm.onnx").read_bytes()
    described["files"]["apm.onnx"] = {"bytes": len(changed), "sha256": sha256(changed).hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(described))
    arguments = ["ask", phantom_dicom, "Where is the left lung?", "--json", "--bundle", copy]
    silent = run(*arguments)
    assert silent.returncode == 0 and silent.stderr == ""
    json.loads(silent.stdout)
    told = run(*arguments, "--log")
    assert told.returncode == 0 and "ONNX Runtime on apm.onnx: " in told.stderr and "left over" in told.stderr, told.stderr
