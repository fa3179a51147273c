"""Checkpoints that do not fit or are damaged: the import names what is wrong and leaves no run behind."""

import json

import published
import torch
from importing import complaints, folder_run, published_run, spoiled, trainer  # noqa: F401 (fixtures)
from safetensors.torch import load_file, save_file


def test_what_is_there_is_kept(trainer, folder_run):
    files = lambda: {file.name: file.stat().st_mtime_ns for file in folder_run.run.iterdir() if file.name != "lock"}
    before = files()
    said = trainer("import", "--out", folder_run.run, "--apm", folder_run.folder / "apm.safetensors", fails=True)
    assert "apm.safetensors exists already" in said
    assert before == files()


def test_a_module_that_does_not_fit_is_listed(trainer, folder_run, tmp_path):
    tensors, gone, bent = spoiled(load_file(folder_run.folder / "apm.safetensors"))
    save_file(tensors, tmp_path / "apm.safetensors")
    # A name with the prefix `model.` would make this look like a training checkpoint.
    tensors = load_file(tmp_path / "apm.safetensors")
    tensors["layers.0.stranger.bias"] = tensors.pop("model.layers.0.stranger.bias")
    save_file(tensors, tmp_path / "apm.safetensors")
    said = trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "apm.safetensors", "--image-size", 96, fails=True)
    complaints(said.replace("layers.0.stranger", "model.layers.0.stranger"), gone, bent)
    assert not (tmp_path / "run").exists()


def test_a_language_model_that_does_not_fit_is_listed(trainer, folder_run, tmp_path):
    for file in (folder_run.folder / "gemma").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors, gone, bent = spoiled(load_file(tmp_path / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors")
    said = trainer("import", "--out", tmp_path / "run", "--language", tmp_path, fails=True)
    complaints(said, gone, bent)


def test_a_shard_that_lacks_a_name_is_listed(trainer, published_run, tmp_path):
    for file in (published_run.folder / "gemma").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    name, shard = next((n, s) for n, s in index["weight_map"].items() if "q_proj" in n and "vision" not in n)
    tensors = load_file(tmp_path / shard)
    del tensors[name]
    save_file(tensors, tmp_path / shard)
    said = trainer("import", "--out", tmp_path / "run", "--language", tmp_path, fails=True)
    assert f"{name} is missing in {shard}" in said
    index["weight_map"][name] = "../gemma/model.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    said = trainer("import", "--out", tmp_path / "run", "--language", tmp_path, fails=True)
    assert "is not the name of a file beside it" in said


def test_an_adapter_that_does_not_fit_is_listed(trainer, folder_run, published_run, tmp_path):
    for file in (folder_run.folder / "adapter").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    names = [n for n in sorted(tensors) if "lora_B" in n]
    del tensors[names[0]]
    tensors[names[1]] = tensors[names[1]][:-1]
    tensors["base_model.model.model.layers.0.mlp.stranger.lora_A.weight"] = torch.zeros(4, 64)
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "adapter_model.safetensors")
    arguments = ["--out", tmp_path / "run", "--language", folder_run.folder / "gemma"]
    said = trainer("import", *arguments, "--adapter", tmp_path, fails=True)
    own = names[0].removeprefix("base_model.model.")
    assert f"{own} is missing" in said and f"{names[1]} is [" in said and "mlp.stranger.lora_A.weight is not part" in said
    # In an adapter of another model, all projectors and tables have other shapes.
    said = trainer("import", *arguments, "--adapter", published_run.folder / "tuned.pth", fails=True)
    assert "embed_tokens.modules_to_save.default.weight is [" in said
    assert "must fit MedGemma-4b-it" in trainer("import", "--out", tmp_path / "other", "--adapter", tmp_path, fails=True)


def test_settings_that_would_change_the_model_are_refused(trainer, folder_run, tmp_path):
    for file in (folder_run.folder / "gemma").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for change, expected in [({"final_logit_softcapping": 30.0}, "final_logit_softcapping"), ({"model_type": "gemma2"}, "gemma2")]:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        assert expected in trainer("import", "--out", tmp_path / "run", "--language", tmp_path, fails=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("[INST] {{ messages[0]['content'] }} [/INST]")
    assert "chat template" in trainer("import", "--out", tmp_path / "run", "--language", tmp_path, fails=True)
    for file in (folder_run.folder / "adapter").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    said = trainer("import", "--out", tmp_path / "run", "--language", folder_run.folder / "gemma", "--adapter", tmp_path, fails=True)
    assert "DoRA" in said


def test_damaged_files_are_errors(trainer, published_run, folder_run, tmp_path):
    """A file that is truncated, of another kind, or missing is an error that names it, and no run is created."""
    whole = (published_run.folder / "apm.pth").read_bytes()
    for cut in [0, 3, 200, len(whole) // 3, len(whole) - 3000, len(whole) - 1]:
        (tmp_path / "cut.pth").write_bytes(whole[:cut])
        assert "cut.pth" in trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "cut.pth", fails=True)
    whole = (folder_run.folder / "apm.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    huge = (1 << 62).to_bytes(8, "little") + whole[8:]
    overlap = json.loads(whole[8 : 8 + header])
    first = next(name for name in overlap if name != "__metadata__")
    overlap[first]["data_offsets"] = [0, 1 << 60]
    overlap = json.dumps(overlap).encode()
    overlap = len(overlap).to_bytes(8, "little") + overlap + whole[8 + header :]
    for damaged in [whole[:7], whole[:100], whole[:-1], whole + b"\0", huge, overlap, b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)]:
        (tmp_path / "cut.safetensors").write_bytes(damaged)
        trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "cut.safetensors", fails=True)
    for path in [tmp_path, tmp_path / "nowhere.pth"]:
        assert str(path) in trainer("import", "--out", tmp_path / "run", "--apm", path, fails=True)
    # The checksum of an archive's entry is verified when its values are copied.
    with (tmp_path / "flipped.pth").open("wb") as file:
        whole = bytearray((published_run.folder / "apm.pth").read_bytes())
        whole[len(whole) // 2] ^= 0x40
        file.write(whole)
    assert "checksum" in trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "flipped.pth", fails=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"], "nothing else is left behind"


def test_a_pickle_that_only_acts_is_refused(trainer, tmp_path):
    torch.save(published.Evil(tmp_path / "executed"), tmp_path / "evil.pth")
    trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "evil.pth", fails=True)
    torch.save({"model": published.Evil(tmp_path / "executed")}, tmp_path / "evil.pth")
    trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "evil.pth", fails=True)
    assert not (tmp_path / "executed").exists()
