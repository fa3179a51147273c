"""Checkpoints in all layouts that Hugging Face files have had over the years, and checkpoints that do not fit their model."""

import copy
import json
import re
import shutil
import types

import numpy as np
import published
import pytest
import torch
from conftest import ROOT, needed
from published import ADDED
from safetensors.torch import load_file, save_file
from scale import watched
from importing import close, complaints, decoder_logits, expected_logits, spoiled, trainer  # noqa: F401 (fixture)

MIB = 1 << 20
# Sizes of the small language model, with the manifest's names.
SIZES = {"layers": 6, "kv_heads": 2, "head_dim": 32, "sliding_window": 48}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Prefixes of a text model's tensors in complete models.
LAYOUTS = {
    "text": (lambda name: name, {}),
    "older": (lambda name: f"language_model.{name}", {"": "vision_tower.vision_model.", "x": "multi_modal_projector."}),
    "newer": (
        lambda name: name.replace("model.", "model.language_model.", 1) if name != HEAD else name,
        {"": "model.vision_tower.vision_model.", "x": "model.multi_modal_projector."},
    ),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small Gemma 3 with free rows for the prompt's tokens: the model in transformers, and its folder."""
    from transformers import Gemma3ForCausalLM

    torch.manual_seed(11)
    folder = tmp_path_factory.mktemp("small")
    tokenizer = published.gemma_tokenizer(folder)
    model = published.shaken(Gemma3ForCausalLM(published.gemma_config(len(tokenizer) + 63)))
    model.save_pretrained(folder)
    return types.SimpleNamespace(folder=folder, model=model, rows=len(tokenizer), state=load_file(folder / "model.safetensors"))


@pytest.fixture
def refused(tmp_path):
    """Runs an import that must be refused with a few lines, quickly and with little memory. Returns its error output."""
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")

    def refused(*arguments, most=300):
        out = tmp_path / "refused"
        with (tmp_path / "stderr").open("w+") as said:
            code, seconds, peak = watched(program, "import", "--out", out, *arguments, stderr=said)
            said.seek(0)
            text = said.read()
        assert code == 1, (code, text)
        assert text.startswith("error: ") and "panicked" not in text and len(text.splitlines()) <= most, text
        assert peak < 600 * MIB and seconds < 60, (peak, seconds, text)
        assert not out.exists() or [path.name for path in out.iterdir()] == ["lock"], "nothing else is left behind"
        return text

    return refused


def copied(source, target):
    """Copies a folder's small files and its model."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def shards(folder, tensors, count):
    """Writes tensors as shards with their index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    names, index = sorted(tensors), {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        save_file({name: tensors[name].contiguous() for name in names[i::count]}, folder / file)
        index |= dict.fromkeys(names[i::count], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


# ---- layouts


@pytest.mark.parametrize("head", ["none", "the table", "its own"])
@pytest.mark.parametrize("layout,dtype,sharded", [
    ("text", torch.float32, True), ("older", torch.bfloat16, True), ("newer", torch.float16, False), ("newer", torch.bfloat16, True),
])  # fmt: skip
def test_language_models(trainer, small, tmp_path, layout, dtype, sharded, head):  # noqa: F811
    """Names of all layouts are mapped and values are copied exactly; an output layer that differs from the embedding table is kept, and
    towers are left out."""
    rename, towers = LAYOUTS[layout]
    given = {name: tensor.to(dtype) for name, tensor in small.state.items() if name != HEAD}
    if head != "none":
        given[HEAD] = given[EMBEDDING].clone() if head == "the table" else torch.randn_like(given[EMBEDDING])
    folder = copied(small.folder, tmp_path / "model")
    stored = {rename(name): tensor for name, tensor in given.items()}
    stored |= {f"{prefix}encoder.layers.0.self_attn.q_proj.weight": torch.ones(3, 2, dtype=dtype) for prefix in towers.values()}
    if towers:
        text = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text, "vision_config": {}}))
    if sharded:
        shards(folder, stored, 5)
    else:
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors")
    trainer("import", "--out", tmp_path / "run", "--language", folder)
    held = load_file(tmp_path / "run/language.safetensors")
    if head == "the table":
        del given[HEAD]
    assert held.keys() == given.keys()
    assert all(held[name].dtype == dtype and torch.equal(held[name], tensor) for name, tensor in given.items())
    tied = "tie_word_embeddings = true" in (tmp_path / "run/models.toml").read_text()
    assert tied == (head != "its own")


def test_a_head_of_its_own(trainer, small, tmp_path):  # noqa: F811
    """An exported base model with its own output layer gives the logits of transformers."""
    model = copy.deepcopy(small.model)
    model.config.tie_word_embeddings = False
    torch.manual_seed(12)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)
    folder = copied(small.folder, tmp_path / "model")
    save_file({n: t.detach().contiguous() for n, t in (small.state | {HEAD: model.lm_head.weight}).items()}, folder / "model.safetensors")
    trainer("import", "--out", tmp_path / "run", "--language", folder)
    trainer("export", tmp_path / "run", "--out", tmp_path / "out", "--decoder", "fp32")
    ids, index, visual = np.arange(7, 120)[None], np.full((1, 113), -1), np.zeros((1, 64), np.float32)
    found = decoder_logits(tmp_path / "out", ids, visual, index, SIZES)
    expected = expected_logits(model, model.get_input_embeddings(), ids, visual, index)
    tied = expected_logits(small.model, small.model.get_input_embeddings(), ids, visual, index)
    assert (expected - tied).abs().max() > 0.1, "the head makes a difference"
    close("logits of a head of its own", found, expected, 1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_tables_grow_as_in_transformers(trainer, tmp_path, tied):  # noqa: F811
    """Without free rows, in bf16, new rows equal those of `resize_token_embeddings` up to its random noise."""
    from transformers import Gemma3ForCausalLM

    torch.manual_seed(13)
    tokenizer = published.gemma_tokenizer(tmp_path / "model")
    config = published.gemma_config(len(tokenizer))
    config.tie_word_embeddings = tied
    model = published.shaken(Gemma3ForCausalLM(config)).to(torch.bfloat16)
    with torch.no_grad():  # the mean is not close to zero
        model.get_input_embeddings().weight += 0.25
        if not tied:
            model.lm_head.weight -= 0.25
    model.save_pretrained(tmp_path / "model")
    trainer("import", "--out", tmp_path / "run", "--language", tmp_path / "model")
    held = load_file(tmp_path / "run/language.safetensors")
    model.resize_token_embeddings(len(tokenizer) + len(ADDED))
    tables = {EMBEDDING: model.get_input_embeddings().weight} | ({} if tied else {HEAD: model.lm_head.weight})
    assert (HEAD in held) == (not tied)
    for name, table in tables.items():
        found, table = held[name], table.detach()
        assert found.shape == table.shape and torch.equal(found[: -len(ADDED)], table[: -len(ADDED)])
        difference = (found[-len(ADDED) :].float() - table[-len(ADDED) :].float()).abs()
        largest = table.float().abs().max()
        print(f"{name}, {len(ADDED)} rows added: largest difference from transformers {difference.max():.1e} of {largest:.2f}")
        # The spacing of bf16 at 0.25 is 0.001, so that the noise may change a rounded value by one step.
        assert difference.max() <= 2**-9


# ---- fine-tuned parts


@pytest.fixture(scope="module")
def adapted(small, tmp_path_factory):
    """A PEFT folder with adapters, and with embedding table and output layer that were trained in full."""
    torch.manual_seed(14)
    folder = tmp_path_factory.mktemp("adapter")
    model = published.with_adapter(copy.deepcopy(small.model), 4, 8, ["lm_head", "embed_tokens"])
    model.save_pretrained(folder)
    return types.SimpleNamespace(folder=folder, model=model)


def test_a_folder_with_saved_modules(trainer, small, adapted, tmp_path):  # noqa: F811
    """Saved tables replace the base model's, and the output layer is no longer tied, in either order of importing the parts."""
    model = adapted.model
    ids, index, visual = np.arange(7, 120)[None], np.full((1, 113), -1), np.zeros((1, 64), np.float32)
    trainer("import", "--out", tmp_path / "run", "--language", small.folder, "--adapter", adapted.folder)
    trainer("export", tmp_path / "run", "--out", tmp_path / "out", "--decoder", "fp32")
    found = decoder_logits(tmp_path / "out", ids, visual, index, SIZES)
    expected = expected_logits(model, model.base_model.model.get_input_embeddings(), ids, visual, index)
    base = expected_logits(small.model, small.model.get_input_embeddings(), ids, visual, index)
    assert (expected - base).abs().max() > 0.1
    close("logits, modules saved by peft", found, expected, 1e-3)
    # The base model is imported again, into a run with the adapter.
    (tmp_path / "run/language.safetensors").unlink()
    trainer("import", "--out", tmp_path / "run", "--language", small.folder)
    trainer("export", tmp_path / "run", "--out", tmp_path / "again", "--decoder", "fp32")
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_base_model_that_an_adapter_does_not_fit(trainer, refused, small, adapted, tmp_path):  # noqa: F811
    said = refused("--adapter", adapted.folder, most=2000)
    assert "must fit MedGemma-4b-it" in said and "layers.33.self_attn.q_proj.lora_A.weight is missing" in said
    trainer("import", "--out", tmp_path / "run", "--language", small.folder, "--adapter", adapted.folder)
    (tmp_path / "run/language.safetensors").unlink()
    tensors = {name: tensor for name, tensor in small.state.items() if ".layers.5." not in name}
    folder = copied(small.folder, tmp_path / "shorter")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 5, "layer_types": config["layer_types"][:5]}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    said = trainer("import", "--out", tmp_path / "run", "--language", folder, fails=True)
    assert said.count("is not part of the model") == 14 and "layers.5.mlp.up_proj.lora_B.weight" in said
    assert not (tmp_path / "run/language.safetensors").exists()


@pytest.mark.parametrize("change,expected", [
    ({"use_dora": True}, "DoRA"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"bias": "all"}, "trained biases"),
    ({"peft_type": "IA3"}, "IA3"),
    ({"rank_pattern": {"q_proj": 2}}, "ranks or scalings of single layers"),
    ({"alpha_pattern": {"q_proj": 2}}, "ranks or scalings of single layers"),
    ({"init_lora_weights": "pissa_niter_4"}, "changes the base model"),
    ({"init_lora_weights": "olora"}, "changes the base model"),
    ({"init_lora_weights": "mica"}, "changes the base model"),
    ({"layer_replication": [[0, 4], [2, 6]]}, "layer_replication"),
    ({"use_qalora": True}, "use_qalora"),
    ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    ({"r": -1}, None),
    ({"lora_alpha": 1e999}, "cannot use"),
])  # fmt: skip
def test_adapters_of_other_kinds(trainer, refused, small, adapted, tmp_path, change, expected):  # noqa: F811
    folder = copied(adapted.folder, tmp_path / "adapter")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | change))
    arguments = ["--language", small.folder, "--adapter", folder]
    if expected is None:  # the rank comes from the tensors
        trainer("import", "--out", tmp_path / "run", *arguments)
    else:
        assert expected in refused(*arguments)


# ---- names that do not fit


def test_a_published_checkpoint_that_does_not_fit_is_listed(refused, tmp_path):
    perception = published.Perception((1, 1, 1, 1), 32, 4, 48, (1, 1), 6)
    published.perception_checkpoint(tmp_path / "whole.pth", perception, published.text_projection(48, 6), tmp_path / "marker")
    whole = torch.load(tmp_path / "whole.pth", weights_only=False)
    model, gone, bent = dict(whole["model"]), "transformer.cls_pos", "vis_model.bbox_embed.layers.0.bias"
    del model[f"vis_model.{gone}"], model["text_model.project_head.proj.2.bias"]
    model[bent] = model[bent][:-1]
    model |= {"vis_model.stranger.weight": torch.zeros(2), "text_model.stranger": torch.zeros(2)}
    torch.save(whole | {"model": model}, tmp_path / "bent.pth")
    said = refused("--apm", tmp_path / "bent.pth", "--image-size", 96)
    assert f"\n  {gone} is missing\n" in said and "\n  project_head.proj.2.bias is missing\n" in said
    assert f"\n  model.{bent} is [31] instead of [32]\n" in said
    assert "model.vis_model.stranger.weight is not part" in said and "model.text_model.stranger is not part" in said
    assert len(re.findall(r"^  ", said, re.MULTILINE)) == 5, said


def test_a_published_adapter_that_does_not_fit_is_listed(refused, small, tmp_path):
    torch.manual_seed(15)
    model = published.with_adapter(copy.deepcopy(small.model), 4, 8, ["lm_head", "embed_tokens"])
    published.tuned_checkpoint(tmp_path / "whole.pth", model, published.projectors(256, 16, 64))
    tuned = torch.load(tmp_path / "whole.pth", weights_only=False)
    core, wrapper = tuned["LM"]["core_model"], tuned["LM"]["wrapper"]
    layer = "base_model.model.model.layers.3."
    del core[f"{layer}mlp.up_proj.lora_B.default.weight"], wrapper["obj_projectionhead.proj.2.bias"]
    bent = ["base_model.model.lm_head.modules_to_save.default.weight", f"{layer}self_attn.v_proj.lora_A.default.weight"]
    for name in bent:
        core[name] = core[name][:, :-1]
    wrapper["image_projectionhead.proj.3.weight"] = wrapper["image_projectionhead.proj.3.weight"][:, :-1]
    core[f"{layer}mlp.stranger.lora_A.default.weight"] = torch.zeros(4, 64)
    wrapper["third_projectionhead.proj.0.weight"] = torch.zeros(2)
    torch.save(tuned, tmp_path / "bent.pth")
    said = refused("--language", small.folder, "--adapter", tmp_path / "bent.pth")
    for missing in ["model.layers.3.mlp.up_proj.lora_B.weight", "obj_projectionhead.proj.2.bias"]:
        assert f"\n  {missing} is missing" in said
    for name in [*(f"LM.core_model.{name}" for name in bent), "LM.wrapper.image_projectionhead.proj.3.weight"]:
        assert f"\n  {name} is [" in said, said
    assert "mlp.stranger.lora_A.default.weight is not part" in said and "third_projectionhead.proj.0.weight is not part" in said
    assert len(re.findall(r"^  ", said, re.MULTILINE)) == 7, said


@pytest.mark.parametrize("kind", ["text-encoder", "image-encoder"])
def test_an_encoder_that_does_not_fit_is_listed(refused, tmp_path, kind):
    own = "backbone.0.body." if kind == "image-encoder" else ""
    if own:
        published.vision_transformer(False).save_pretrained(tmp_path / "model")
    else:
        published.bert(tmp_path / "model", published=False)
    tensors, gone, bent = spoiled(load_file(tmp_path / "model/model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model/model.safetensors")
    said = refused(f"--{kind}", tmp_path / "model")
    complaints(said, gone, bent, lambda name: own + (name.removeprefix("model.") if own else name))
