"""Damaged and malicious checkpoints: each is an error of a few lines and is found with little memory."""

import collections
import datetime
import json
import re
import shutil

import numpy as np
import published
import pytest
import torch
from published import ADDED
from safetensors.torch import load_file, save_file
from test_checkpoints import EMBEDDING, copied, refused, shards, small  # noqa: F401 (fixtures)
from importing import trainer  # noqa: F401 (fixture)

NORM = "model.norm.weight"


def header_of(path):
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def write(path, header, values):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)


def entry(header, **changes):
    return header | {NORM: header[NORM] | changes}


HEADERS = {
    "a type that nobody knows": lambda h: entry(h, dtype="F13"),
    "whole numbers": lambda h: entry(h, dtype="I32"),
    "a shape that overflows": lambda h: entry(h, shape=[1 << 40, 1 << 40]),
    "a shape of other bytes": lambda h: entry(h, shape=[63]),
    "an absurd dimension": lambda h: entry(h, shape=[(1 << 63) - 1]),
    "a negative dimension": lambda h: entry(h, shape=[-64]),
    "offsets backwards": lambda h: entry(h, data_offsets=h[NORM]["data_offsets"][::-1]),
    "offsets far away": lambda h: entry(h, data_offsets=[1 << 62, (1 << 62) + 256]),
    "negative offsets": lambda h: entry(h, data_offsets=[-256, 0]),
    "overlapping tensors": lambda h: entry(h, data_offsets=[0, 256]),
    "no offsets": lambda h: h | {NORM: {"dtype": "F32", "shape": [64]}},
    "a list": lambda h: [h],
    "no text": lambda h: b"{\xff\xfe" + bytes(60),
    "a text without end": lambda h: b'{"a": ' + b"[" * 200_000,
    "a number without end": lambda h: b'{"a": ' + b"9" * 200_000 + b"}",
    "nothing": lambda h: {},
    "one name twice": lambda h: json.dumps(h)[:-1].encode() + b', "%s": %s}' % (NORM.encode(), json.dumps(h[EMBEDDING]).encode()),
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers(refused, small, tmp_path, what):  # noqa: F811
    folder = copied(small.folder, tmp_path / "model")
    header, values = header_of(folder / "model.safetensors")
    write(folder / "model.safetensors", HEADERS[what](header), values)
    said = refused("--language", folder)
    assert "model" in said and (NORM in said or "model.safetensors" in said), said


def test_a_header_longer_than_the_file(refused, small, tmp_path):  # noqa: F811
    folder = copied(small.folder, tmp_path / "model")
    for size in [99_999_999, 100_000_001, (1 << 64) - 1, (1 << 63) - 8]:
        (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + b"{" + bytes(1000))
        assert "model.safetensors" in refused("--language", folder)


INDEXES = {
    "another folder": "../model/model-00001-of-00003.safetensors",
    "the machine": "/etc/passwd",
    "a folder": "..",
    "no name": "",
    "a name with a slash at its end": "model-00001-of-00003.safetensors/",
    "no file": "model-00004-of-00003.safetensors",
    "a name with a zero": "model\0.safetensors",
    "the index": "model.safetensors.index.json",
}


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_that_points_elsewhere(refused, small, tmp_path, what):  # noqa: F811
    folder = copied(small.folder, tmp_path / "model")
    shards(folder, small.state, 3)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][NORM] = INDEXES[what]
    path.write_text(json.dumps(index))
    said = refused("--language", folder)
    assert "is not the name of a file beside it" in said or str(folder) in said, said


def test_shards(refused, small, tmp_path):  # noqa: F811
    folder = copied(small.folder, tmp_path / "model")
    shards(folder, small.state, 3)
    path, last = folder / "model.safetensors.index.json", folder / "model-00003-of-00003.safetensors"
    whole, index = last.read_bytes(), path.read_text()
    last.write_bytes(whole[:-1])
    assert last.name in refused("--language", folder)
    last.unlink()
    assert last.name in refused("--language", folder)
    # One name is in two shards, and one is not in the index.
    held = sorted(small.state)[0]
    save_file({**{n: small.state[n] for n in sorted(small.state)[2::3]}, held: small.state[held]}, last)
    assert f"{held} is in more than one shard" in refused("--language", folder)
    save_file({**{n: small.state[n] for n in sorted(small.state)[2::3]}, "stranger": torch.ones(1)}, last)
    assert "stranger is not part of the model" in refused("--language", folder)
    last.write_bytes(whole)
    for damaged in ["", "{}", "[]", '{"weight_map": 1}', '{"weight_map": {}}', index[: len(index) // 2]]:
        path.write_text(damaged)
        refused("--language", folder)


CONFIGS = {
    "language": [
        {"hidden_size": 1 << 62}, {"hidden_size": -64}, {"hidden_size": 0}, {"hidden_size": 1e400}, {"hidden_size": "64"},
        {"num_hidden_layers": 1 << 40}, {"num_hidden_layers": 1000}, {"vocab_size": 1 << 24}, {"head_dim": 1 << 24},
        {"num_attention_heads": 1 << 23}, {"num_key_value_heads": 3}, {"intermediate_size": 1 << 24}, {"rms_norm_eps": "no"},
        {"query_pre_attn_scalar": 0}, {"query_pre_attn_scalar": -1}, {"sliding_window": -5},
        {"layer_types": ["sliding_attention"] * 100_000}, {"layer_types": []}, {"max_position_embeddings": 0}, {"model_type": None},
        {"rope_parameters": {"full_attention": {"rope_theta": -1}}},
        {"attn_logit_softcapping": 50.0}, {"attention_bias": True}, {"use_bidirectional_attention": True},
    ],
    "text-encoder": [
        {"hidden_size": 1 << 62}, {"hidden_size": 0}, {"num_attention_heads": 0}, {"num_attention_heads": -4},
        {"num_hidden_layers": 1 << 20}, {"num_hidden_layers": 999}, {"max_position_embeddings": 1 << 24}, {"vocab_size": 1 << 24},
        {"intermediate_size": -1},
        {"vocab_size": 30}, {"layer_norm_eps": 1e-5}, {"hidden_act": "relu"}, {"model_type": "roberta"},
    ],
    "image-encoder": [
        {"hidden_size": 1 << 62}, {"hidden_size": 65536}, {"patch_size": 65536}, {"patch_size": 0}, {"num_register_tokens": -1},
        {"num_register_tokens": 65536}, {"num_attention_heads": 0}, {"num_attention_heads": 3}, {"num_hidden_layers": 1000},
        {"intermediate_size": 1 << 60}, {"model_type": "vit"}, {"rope_theta": 10.0},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_absurd_configurations(refused, small, tmp_path, kind):  # noqa: F811
    folder = tmp_path / "model"
    if kind == "language":
        copied(small.folder, folder)
    elif kind == "text-encoder":
        published.bert(folder, published=True)
    else:
        published.vision_transformer(False).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for change in CONFIGS[kind]:
        (folder / "config.json").write_text(json.dumps(config | change))
        said = refused(f"--{kind}", folder, most=20_000)
        assert str(folder) in said, (change, said)
    for text in ["", "[]", "null", "{", "[" * 100_000, '{"model_type": "gemma3", "text_config": 7}', '{"model_type": "gemma3"}']:
        (folder / "config.json").write_text(text)
        if (kind, text) != ("text-encoder", "{}"):
            refused(f"--{kind}", folder, most=20_000)


def test_tokenizers_of_other_models(refused, trainer, small, tmp_path):  # noqa: F811
    """The tokenizer determines how many rows are added to the table. More than a few mean that it belongs to another model."""
    folder = copied(small.folder, tmp_path / "model")
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    for far in [1 << 20, (1 << 32) - 1]:
        path.write_text(json.dumps(whole | {"model": whole["model"] | {"vocab": whole["model"]["vocab"] | {"far": far}}}))
        assert "do not belong together" in refused("--language", folder)
    for damaged in [b"", b"{}", b"\xff" * 100, json.dumps(whole | {"model": {"type": "BPE"}}).encode(), path.read_bytes()[:-100]]:
        path.write_bytes(damaged)
        assert "tokenizer.json" in refused("--language", folder)
    vocabulary = {token: i for token, i in whole["model"]["vocab"].items() if token != "<end_of_turn>"}
    added = [token for token in whole["added_tokens"] if token["content"] != "<end_of_turn>"]
    path.write_text(json.dumps(whole | {"model": whole["model"] | {"vocab": vocabulary}, "added_tokens": added}))
    assert "without <end_of_turn>" in refused("--language", folder)
    path.unlink()
    assert "tokenizer.json" in refused("--language", folder)
    # A tokenizer that has the prompt's tokens already keeps their ids.
    trainer("import", "--out", tmp_path / "first", "--language", small.folder)
    shutil.copy(tmp_path / "first/tokenizer.json", path)
    trainer("import", "--out", tmp_path / "second", "--language", folder)
    read = lambda run: {t["content"]: t["id"] for t in json.loads((tmp_path / run / "tokenizer.json").read_text())["added_tokens"]}
    assert read("first") == read("second") and [read("first")[token] for token in ADDED] == list(range(small.rows, small.rows + len(ADDED)))


# ---- pickles


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(16)
    perception = published.Perception((1, 1, 1, 1), 32, 4, 48, (1, 1), 6)
    return {f"vis_model.{name}": tensor for name, tensor in perception.state_dict().items()}


class Plain:
    """An object of a class that the importer cannot know."""

    def __init__(self, **kept):
        self.__dict__ |= kept


def test_other_objects_are_passed_over(trainer, parts, tmp_path):  # noqa: F811
    """Objects that a training script may save beside its model are skipped. None of them is imported or called."""
    marker = tmp_path / "executed"
    beside = {
        "evil": published.Evil(marker), "nested": [{"deep": (published.Evil(marker), {1: published.Evil(marker)})}],
        "numpy": np.arange(6).reshape(2, 3), "number": np.float64(0.25), "when": datetime.datetime.now(), "set": {1, "two"},
        "dtype": torch.bfloat16, "device": torch.device("cpu"), "size": torch.Size([2, 3]), "rng": torch.get_rng_state(),
        "own": Plain(rate=0.1, kept={"a": [1, 2]}), "long": 1 << 200, "none": None, "bytes": b"\0\xff",
        "counter": collections.Counter("abc"), 7: "a number as name", "module": torch.nn.Linear(2, 3), "epoch": 44,
        "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))]).state_dict(),
    }  # fmt: skip
    for protocol in [2, 4]:
        torch.save(beside | {"model": parts}, tmp_path / "apm.pth", pickle_protocol=protocol)
        trainer("import", "--out", tmp_path / f"run{protocol}", "--apm", tmp_path / "apm.pth", "--image-size", 96)
        held = load_file(tmp_path / f"run{protocol}/apm.safetensors")
        assert held.keys() == {name.removeprefix("vis_model.") for name in parts}
        assert all(torch.equal(held[name.removeprefix("vis_model.")], tensor) for name, tensor in parts.items())
    assert not marker.exists()


def test_objects_that_hold_more_are_refused(refused, parts, tmp_path):  # noqa: F811
    """Collections and tensors inside objects of other classes cannot be distinguished from the model's and are refused."""
    for kept in [collections.defaultdict(list, a=[1]), collections.deque([1, 2], 20), Plain(weights=torch.zeros(2))]:
        torch.save({"model": parts, "kept": kept}, tmp_path / "apm.pth")
        assert "save the model's tensors alone" in refused("--apm", tmp_path / "apm.pth", "--image-size", 96)


def test_the_old_format(trainer, refused, parts, tmp_path):  # noqa: F811
    """PyTorch's format from before 2020 is read. A truncated file is an error, and an object in it is not executed."""
    marker = tmp_path / "executed"
    path = tmp_path / "apm.pth"
    torch.save({"model": parts, "evil": published.Evil(marker)}, path, _use_new_zipfile_serialization=False)
    trainer("import", "--out", tmp_path / "run", "--apm", path, "--image-size", 96)
    assert len(load_file(tmp_path / "run/apm.safetensors")) == len(parts)
    whole = path.read_bytes()
    for cut in [1, 20, 200, 2_000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        assert "apm.pth" in refused("--apm", path, "--image-size", 96)
    # The length of a tensor is changed in the middle of the file.
    last = whole.rfind((64).to_bytes(8, "little"))
    path.write_bytes(whole[:last] + (1 << 60).to_bytes(8, "little") + whole[last + 8 :])
    assert "apm.pth" in refused("--apm", path, "--image-size", 96)
    assert not marker.exists()


def test_pickles_that_promise_too_much(refused, parts, tmp_path):  # noqa: F811
    path, at, many = tmp_path / "apm.pth", "vis_model.input_proj.weight", torch.zeros(1)
    for tensor, expected in [
        (many.expand(1 << 40), "apm.pth"),  # one value, repeated so often that it would fill the memory
        (many.expand(1 << 14, 1 << 14, 1, 1), "input_proj.weight [16384, 16384, 1, 1] takes more bytes than the file has"),
        (many.expand(32, 2047, 1, 1), "input_proj.weight is [32, 2047, 1, 1] instead of"),
        (torch.zeros(32, 2048, 1, 1).int(), "input_proj.weight is of I32"),
    ]:
        torch.save({"model": parts | {at: tensor}}, path)
        assert expected in refused("--apm", path, "--image-size", 96)
    # Deeply nested lists, a string with a length of 4 GB in thirty bytes, a list that contains itself, lists that double in size, and
    # pickles that are cut off or call a function.
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    string = b"\x80\x04X\xff\xff\xff\xffabc."
    itself = b"\x80\x02]q\x00h\x00a."
    doubled = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(100)) + b"."
    for text in [deep, string, itself, doubled, b"\x80\x02}", b"\x80\x02cos\nsystem\n(S'touch executed'\ntR.", b"\x80\xff."]:
        path.write_bytes(text)
        assert "apm.pth" in refused("--apm", path, "--image-size", 96)
        # The same pickle is tested as data.pkl of an archive.
        torch.save({"model": parts}, path)
        replace_pickle(path, text)
        assert "apm.pth" in refused("--apm", path, "--image-size", 96)
    assert not (tmp_path / "executed").exists()


def replace_pickle(path, text):
    """Replaces data.pkl in an archive."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, text if name.endswith("/data.pkl") else data)


def test_values_that_are_missing(refused, parts, tmp_path):  # noqa: F811
    """An archive may lack a storage that data.pkl names, or have a shorter one."""
    import zipfile

    torch.save({"model": parts}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    largest = max((name for name in entries if re.search(r"/data/\d+$", name)), key=lambda name: len(entries[name]))
    for change in [None, entries[largest][:-4], b""]:
        with zipfile.ZipFile(tmp_path / "apm.pth", "w") as archive:
            for name, data in entries.items():
                data = change if name == largest else data
                if data is not None:
                    archive.writestr(name, data)
        said = refused("--apm", tmp_path / "apm.pth", "--image-size", 96)
        assert "apm.pth" in said, said
