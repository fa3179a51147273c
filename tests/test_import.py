"""Import of random weights in published layouts, and export as bundles: results equal those of the libraries that made the weights."""

import contextlib
import json
import re
import shutil

import numpy as np
import published
import pytest
import torch
from importing import (  # noqa: F401
    close,
    compare_bundle,
    decoder_logits,
    expected_logits,
    export,
    folder_run,
    published_run,
    session,
    trainer,
)
from published import ADDED, STRUCTURE_COUNT
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

QUESTION = "Where is the heart?"


def expected_prompt(golden, bundle, sentences):
    """The multimodal prompt as text, with the predicted boxes."""
    decoded = Tokenizer.from_file(str(bundle / "tokenizer.json")).decode(golden["input_ids"][0].tolist(), skip_special_tokens=False)
    boxes = re.findall(r"\((\d+),(\d+)\),\((\d+),(\d+)\)", decoded)
    assert len(boxes) == STRUCTURE_COUNT
    cx, cy, w, h = golden["boxes"][0].T
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1).clip(0, 1) * 1024
    assert np.abs(np.trunc(corners) - np.array(boxes, float)).max() <= 1
    lines = []
    for i, (box, known) in enumerate(zip(boxes, sentences, strict=True)):
        sentence = next(s for s in reversed(known) if f"{box[3]})</box> {s}\n" in decoded)
        lines.append("emb:<emb><obj_{}></emb> box:<box>({},{}),({},{})</box> {}".format(i, *box, sentence))
    patches = golden["image_tokens"].shape[1]
    image = "\n\n<image_start>" + "<image>" * patches + "<image_end>\n\n"
    return f"Image: {image}\nLikely findings:\n" + "\n".join(lines) + f"\nTask: {QUESTION}"


def test_published_layouts(published_run):
    made = published_run
    assert sum(p.numel() for n, p in made.perception.state_dict().items() if "running" not in n) == pytest.approx(31.76e6, rel=2e-3)
    assert len(made.perception.state_dict()) == 406
    golden = compare_bundle(made, made.bundle)
    held = load_file(made.run / "language.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.bfloat16}, "base weights keep their precision"
    assert not any("vision" in name or "projector" in name for name in held)
    assert held["model.embed_tokens.weight"].shape[0] == made.rows, "free rows are taken, none are added"

    # The prompt's token ids equal those of transformers with the model's own chat template.
    made.tokenizer.add_special_tokens({"additional_special_tokens": [*published.CONTROL[4:], *ADDED]})
    assert [made.tokenizer.convert_tokens_to_ids(t) for t in ADDED] == list(range(made.rows - 63, made.rows - 63 + len(ADDED)))
    prompt = expected_prompt(golden, made.bundle, made.sentences)
    text = made.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    ids = made.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == golden["input_ids"][0].tolist()
    print(f"prompt: {len(ids)} token ids identical")
    assert (made.run / "chat_template.jinja").read_text() == published.CHAT


def test_pickles_are_not_executed(published_run):
    assert not published_run.marker.exists()
    torch.load(published_run.folder / "apm.pth", weights_only=False)
    assert published_run.marker.exists(), "PyTorch itself would have executed it"


def test_folders_one_after_another(folder_run):
    made = folder_run
    compare_bundle(made, made.bundle)
    held = load_file(made.run / "language.safetensors")
    close("grown table", held["model.embed_tokens.weight"], made.grown["model.embed_tokens.weight"], 1e-5)
    others = {name: tensor for name, tensor in held.items() if "embed_tokens" not in name}
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, made.grown[name]) for name, tensor in others.items())
    assert "tie_word_embeddings = true" in (made.run / "models.toml").read_text()


def test_adapters_on_some_layers(trainer, folder_run, tmp_path):
    """Layers without adapters are unchanged, and a rank-stabilised scaling is kept."""
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3ForCausalLM

    torch.manual_seed(5)
    model = Gemma3ForCausalLM.from_pretrained(folder_run.folder / "gemma", dtype=torch.float32)
    rows = model.get_input_embeddings().weight.shape[0]
    chosen = LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "down_proj"])
    adapted = get_peft_model(model, chosen).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    trainer("import", "--out", tmp_path / "run", "--language", folder_run.folder / "gemma", "--adapter", tmp_path / "adapter")
    trainer("export", tmp_path / "run", "--out", tmp_path / "out", "--decoder", "fp32")
    sizes = json.loads((folder_run.bundle / "manifest.json").read_text())["decoder"]
    ids, index, visual = np.arange(7, 90)[None], np.full((1, 83), -1), np.zeros((1, 64), np.float32)
    found = decoder_logits(tmp_path / "out", ids, visual, index, sizes)[..., :rows]
    close("logits, adapters on some layers", found, expected_logits(adapted, model.get_input_embeddings(), ids, visual, index), 1e-3)


@pytest.fixture(scope="module")
def phantoms(trainer, tmp_path_factory):
    data = tmp_path_factory.mktemp("phantoms")
    trainer("phantom", "--out", data, "--count", 24, "--size", 64, "--dicom-every", 0)
    return data


def test_training_goes_on_from_imports(trainer, folder_run, phantoms, tmp_path):
    """Each training stage starts from imported parts: an image encoder, and a base model with adapters and projectors."""
    torch.manual_seed(6)
    recipe = tmp_path / "recipe.toml"
    steps = "".join(f"[{name}]\nsteps = 1\nbatch = 2\n" for name in ["apm", "align", "instruct"])
    recipe.write_text(f'run = "run"\ndata = "{phantoms}"\n{steps}questions = 2\n')
    run = tmp_path / "run"
    shutil.copytree(folder_run.run, run)
    before = load_file(run / "adapter.safetensors")
    for step in ["align", "instruct"]:
        trainer("train", step, "--config", recipe, "--threads", 1)
    after = load_file(run / "adapter.safetensors")
    assert set(before) < set(after) and "model.embed_tokens.weight" in after
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("lora_B" in name for name in moved) and any("projectionhead" in name for name in moved)

    shutil.rmtree(run)
    published.vision_transformer(False).save_pretrained(tmp_path / "vit")
    encoders = ["--image-encoder", tmp_path / "vit", "--text-encoder", folder_run.folder / "bert"]
    trainer("import", "--out", run, "--image-size", 64, *encoders)
    said = trainer("train", "apm", "--config", recipe, "--from", run / "image_encoder.safetensors", "--threads", 1)
    trained, given = load_file(run / "apm.safetensors"), load_file(run / "image_encoder.safetensors")
    assert re.search(rf"apm: {len(given)} of {len(trained)} parameters from", said), said
    assert all((trained[name] - tensor).abs().max() < 1e-3 for name, tensor in given.items())


def test_an_adapter_that_replaces_a_trained_one_is_tuned(trainer, folder_run, phantoms, tmp_path):
    """What is left of a tuning whose result was removed is set aside, so that the next one starts from the import."""
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(f'run = "run"\ndata = "{phantoms}"\n[instruct]\nsteps = 1\nbatch = 2\nrate = 1e-9\nquestions = 2\n')
    shutil.copytree(folder_run.run, run, ignore=shutil.ignore_patterns("adapter.safetensors"))
    left = {run / "recipe.instruct.toml": b"recipe", run / "instruct.checkpoint.safetensors": b"checkpoint"}
    for path, content in left.items():
        path.write_bytes(content)
    said = trainer("import", "--out", run, "--adapter", folder_run.folder / "adapter")
    for path, content in left.items():
        aside = path.with_suffix(f".earlier{path.suffix}")
        assert f"{path} is of a training before this adapter; it is now {aside}" in said
        assert aside.read_bytes() == content and not path.exists()
    imported = load_file(run / "adapter.safetensors")
    assert "begin at random" not in trainer("train", "instruct", "--config", recipe, "--threads", 1)
    tuned = load_file(run / "adapter.safetensors")
    assert all((tuned[name] - tensor).abs().max() < 1e-6 for name, tensor in imported.items())


def test_a_resnet_becomes_the_backbone(trainer, phantoms, folder_run, tmp_path):
    """Torchvision's state of a ResNet-50, as a checkpoint of either format: all but the stem's convolution and the classifier is held
    unchanged, training goes on from it, and its first stage and its norms stay as they are."""
    from torchvision.models import resnet18, resnet50

    torch.manual_seed(7)
    state = {name: tensor.contiguous() for name, tensor in resnet50(weights=None).state_dict().items()}
    torch.save(state, tmp_path / "resnet50.pth")
    save_file(state, tmp_path / "resnet50.safetensors")
    for file in ["resnet50.pth", "resnet50.safetensors"]:
        trainer("import", "--out", tmp_path / file[-3:], "--image-size", 64, "--image-encoder", tmp_path / file)
    held = load_file(tmp_path / "pth/image_encoder.safetensors")
    assert (tmp_path / "pth/image_encoder.safetensors").read_bytes() == (tmp_path / "ors/image_encoder.safetensors").read_bytes()
    left_out = {name for name in state if name.startswith("fc.") or name.endswith("num_batches_tracked")} | {"conv1.weight"}
    assert {f"backbone.0.body.{name}" for name in state.keys() - left_out} == held.keys()
    assert all(torch.equal(tensor, state[name.removeprefix("backbone.0.body.")]) for name, tensor in held.items())

    run, recipe = tmp_path / "run", tmp_path / "recipe.toml"
    recipe.write_text(f'run = "run"\ndata = "{phantoms}"\n[apm]\nsteps = 1\nbatch = 2\n')
    files = ["--image-encoder", tmp_path / "resnet50.pth", "--text-encoder", folder_run.folder / "bert"]
    trainer("import", "--out", run, "--image-size", 64, *files)
    trainer("train", "apm", "--config", recipe, "--from", run / "image_encoder.safetensors", "--threads", 1)
    trained = load_file(run / "apm.safetensors")
    moved = {name for name, tensor in held.items() if not torch.equal(trained[name], tensor)}
    frozen = {name for name in held if ".layer1." in name or ".bn" in name or "downsample.1" in name}
    assert moved == held.keys() - frozen

    shallow = {name: tensor.contiguous() for name, tensor in resnet18(weights=None).state_dict().items()}
    save_file(shallow, tmp_path / "resnet18.safetensors")
    said = trainer("import", "--out", tmp_path / "no", "--image-encoder", tmp_path / "resnet18.safetensors", fails=True)
    assert "resnet18.safetensors" in said and "bottleneck" in said
    del state["layer3.2.bn2.bias"]
    save_file(state, tmp_path / "bent.safetensors")
    said = trainer("import", "--out", tmp_path / "no", "--image-encoder", tmp_path / "bent.safetensors", fails=True)
    assert "backbone.0.body.layer3.2.bn2.bias is missing" in said


def test_sentences_of_a_data_set(trainer, folder_run, phantoms, tmp_path):
    """The sentences of a data set complete a run and are in the bundle's database."""
    shutil.copytree(folder_run.run, tmp_path / "run", ignore=shutil.ignore_patterns("sentences.json"))
    trainer("import", "--out", tmp_path / "run", "--sentences", phantoms)
    lists = json.loads((tmp_path / "run/sentences.json").read_text())
    assert len(lists) == STRUCTURE_COUNT and all(lists)
    export(trainer, tmp_path / "run", tmp_path / "bundle")
    database = load_file(tmp_path / "bundle/sentences.safetensors")
    assert sum(len(t) for n, t in database.items() if n.endswith("embeddings")) == sum(map(len, lists))


def test_imports_are_repeatable(trainer, folder_run, tmp_path):
    for name in ["a", "b"]:
        trainer("import", "--out", tmp_path / name, "--language", folder_run.folder / "gemma")
    files = [file for file in (tmp_path / "a").iterdir() if file.name != "lock"]
    assert files and (tmp_path / "a/lock").exists(), "no training begins while an import goes on"
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_the_module_alone(trainer, published_run, tmp_path):
    """A perception module with its 406 names and without a text projection can be imported."""
    state = published_run.perception.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "apm.safetensors")
    trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "apm.safetensors")
    held = load_file(tmp_path / "run/apm.safetensors")
    assert set(held) == set(state)
    assert all(torch.equal(held[name], state[name]) for name in held)
    said = trainer("export", tmp_path / "run", "--out", tmp_path / "out", "--apm", "fp32")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"apm.onnx", "apm.onnx.data"}
    assert "projection of sentences" in said and "language.safetensors" in said


@pytest.mark.parametrize("gated", [False, True])
def test_dinov3(trainer, tmp_path, gated):
    """DINOv3 from its own folder and from inside a perception module equals transformers."""
    torch.manual_seed(3)
    vit = published.vision_transformer(gated)
    perception = published.Perception((), 32, 4, 48, (1, 1), 6, vit).eval()
    vit.save_pretrained(tmp_path / "vit")
    trainer("import", "--out", tmp_path / "alone", "--image-encoder", tmp_path / "vit")
    alone = load_file(tmp_path / "alone/image_encoder.safetensors")
    inside = perception.state_dict()
    assert len(alone) == len(vit.state_dict()) - (2 if gated else 1), "all but the token that masks patches, and what is empty"
    assert all(torch.equal(t, inside[n if n in inside else n.replace("body.layer", "body.model.layer")]) for n, t in alone.items())

    save_file({name: tensor.contiguous() for name, tensor in inside.items()}, tmp_path / "apm.safetensors")
    trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "apm.safetensors", "--image-size", 160)
    sizes = re.compile(r"^\[apm.dino\]\n.*", re.MULTILINE | re.DOTALL)
    sizes = [sizes.search((tmp_path / run / "models.toml").read_text())[0].split("[text]")[0] for run in ["alone", "run"]]
    assert sizes[0] == sizes[1] and f"registers = {0 if gated else 4}" in sizes[0]
    trainer("export", tmp_path / "run", "--out", tmp_path / "out", "--apm", "fp32")
    image = torch.rand(2, 1, 160, 160)
    expected = perception(image)
    for name, found in zip(expected, session(tmp_path / "out/apm.onnx").run(list(expected), {"image": image.numpy()}), strict=True):
        close(f"dinov3{', gated' if gated else ''}: {name}", found, expected[name], 1e-4)
    left_out = [n for n in inside if "layer.1.norm1" in n]
    bent = {name: tensor.contiguous() for name, tensor in inside.items() if name not in left_out}
    save_file(bent, tmp_path / "bent.safetensors")
    said = trainer("import", "--out", tmp_path / "no", "--apm", tmp_path / "bent.safetensors", "--image-size", 160, fails=True)
    assert said.count("is missing") == len(left_out) == 2


def test_a_base_model_alone(trainer, folder_run, tmp_path):
    """A base model is exported without adapters, and with those of a PEFT folder without projectors."""
    source = folder_run.folder
    (tmp_path / "adapter").mkdir()
    for name in ["adapter_config.json", "adapter_model.safetensors"]:
        (tmp_path / "adapter" / name).write_bytes((source / "adapter" / name).read_bytes())
    ids, index = np.arange(7, 90)[None], np.full((1, 83), -1)
    visual = np.zeros((1, 64), np.float32)
    for adapter in [False, True]:
        run, out = tmp_path / f"run{adapter}", tmp_path / f"out{adapter}"
        trainer("import", "--out", run, "--language", source / "gemma", *(["--adapter", tmp_path / "adapter"] if adapter else []))
        trainer("export", run, "--out", out, "--decoder", "fp32")
        assert {file.name for file in out.iterdir()} == {"decoder.onnx", "decoder.onnx.data"}
        sizes = json.loads((folder_run.bundle / "manifest.json").read_text())["decoder"]
        found = decoder_logits(out, ids, visual, index, sizes)
        with folder_run.adapted.disable_adapter() if not adapter else contextlib.nullcontext():
            close(f"logits, adapter {adapter}", found, expected_logits(folder_run.adapted, folder_run.embeddings, ids, visual, index), 1e-3)
