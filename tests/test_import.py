"""Import of random weights in published layouts, and export as bundles: results equal those of the libraries that made the weights.

The references are torch, torchvision, transformers and peft. Each comparison prints the largest difference.
"""

import contextlib
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import onnxruntime
import published
import pytest
import torch
from conftest import ROOT, needed
from ports import attention
from published import ADDED, SENTENCES, STRUCTURES
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn.functional import normalize

QUESTION = "Where is the heart?"


@pytest.fixture(scope="session")
def trainer(onnxruntime_library):
    """Runs `anatomix-trainer`, which must succeed, or fail if `fails`. Returns its standard error."""
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")

    def trainer(*arguments, fails=False):
        result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
        assert "panicked" not in result.stderr, result.stderr
        assert (result.returncode != 0) == fails, result.stderr
        return result.stderr

    return trainer


def export(trainer, run, out):
    """Exports the run as a bundle in fp32. A run without sentences gets invented ones."""
    lists = [[sentence, f"{sentence} {i}."] for i, sentence in zip(range(STRUCTURES), SENTENCES * 9, strict=True)]
    if not (run / "sentences.json").exists():
        (run / "sentences.json").write_text(json.dumps(lists))
    trainer("export", run, "--out", out, "--decoder", "fp32", "--apm", "fp32")
    return lists


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def close(what, found, expected, allowed):
    found, expected = torch.as_tensor(np.asarray(found)), torch.as_tensor(expected).detach()
    assert found.shape == expected.shape, what
    difference = (found - expected).abs().max().item()
    print(f"{what}: largest difference {difference:.1e} of {expected.abs().max().item():.2f}")
    assert difference <= allowed, what


def decoder_logits(bundle, ids, visual, index, sizes):
    """Logits of all positions, from `decoder.onnx` with an empty KV cache."""
    decoder, length = session(bundle / "decoder.onnx"), ids.shape[1]
    inputs = attention(0, length, sizes) | {
        "input_ids": ids,
        "visual_features": visual,
        "visual_index": index,
        "seqlens_k": np.array([length - 1], np.int32),
        "total_sequence_length": np.array(length, np.int32),
        "logit_positions": np.arange(length),
    }
    for layer in range(sizes["layers"]):
        for part in ["key", "value"]:
            empty = np.zeros((1, sizes["kv_heads"], length, sizes["head_dim"]), np.float32)
            inputs[f"past_key_values.{layer}.{part}"] = empty
    return decoder.run(["logits"], inputs)[0]


def expected_logits(model, embeddings, ids, visual, index):
    """Logits of all positions from transformers, with visual features in place of scaled embeddings."""
    with torch.no_grad():
        x = embeddings(torch.from_numpy(ids)).clone()
        taken = torch.from_numpy(index)[0] >= 0
        x[0, taken] = torch.from_numpy(visual)[torch.from_numpy(index)[0][taken]]
        return model(inputs_embeds=x, attention_mask=torch.ones(ids.shape, dtype=torch.long)).logits


def compare_bundle(made, bundle):
    """Compares all graphs of a bundle, and its sentences, with the models that the checkpoints were written from."""
    golden = {name: tensor.numpy() for name, tensor in load_file(bundle / "golden.safetensors").items()}
    image = golden["image"]
    found = session(bundle / "apm.onnx")
    names = ["boxes", "object_embeddings", "image_tokens", "image_logits"]
    seen = dict(zip(names, found.run(names, {"image": image}), strict=True))
    expected = made.perception(torch.from_numpy(image))
    for name in names:
        close(f"apm {name} at {image.shape[-1]}x{image.shape[-1]}", seen[name], expected[name], 1e-3 if name == "image_tokens" else 1e-4)

    heads = [made.heads["image_projectionhead"](expected["image_tokens"]), made.heads["obj_projectionhead"](expected["object_embeddings"])]
    features = {name: seen[name] for name in ["image_tokens", "object_embeddings"]}
    visual = session(bundle / "projector.onnx").run(["visual_features"], features)[0]
    close("visual features", visual, torch.cat(heads, 1), 1e-3)

    ids, index = golden["input_ids"], golden["visual_index"]
    sizes = json.loads((bundle / "manifest.json").read_text())["decoder"]
    logits = decoder_logits(bundle, ids, visual[0], index, sizes)
    reference = expected_logits(made.adapted, made.embeddings, ids, visual[0], index)
    close(f"logits of {ids.shape[1]} tokens", logits, reference, 1e-3)
    with made.adapted.disable_adapter():
        without = expected_logits(made.adapted, made.embeddings, ids, visual[0], index)
    assert (without - reference).abs().max() > 1e-2, "the adapter makes a difference"
    assert (torch.from_numpy(logits).argmax(-1) == reference.argmax(-1)).all()

    database = load_file(bundle / "sentences.safetensors")
    tables = {name: tensor for name, tensor in database.items() if name.endswith("embeddings")}
    assert len(tables) == STRUCTURES
    largest = wrong = 0
    for name, table in tables.items():
        sentences = made.sentences[int(re.search(r"\d+", name)[0])]
        largest = max(largest, (table.float() - sentence_rows(made, sentences)).abs().max().item())
        wrong = max(wrong, (table.float() - sentence_rows(made, sentences, add_special_tokens=False)).abs().max().item())
    print(f"projected sentences of BERT: largest difference {largest:.1e}; without class token and separator {wrong:.1e}")
    assert largest < 1e-4 and wrong > 1e-3
    return golden


def sentence_rows(made, sentences, **options):
    """Embeddings of sentences, mean-pooled, projected and normalised by transformers and torch."""
    tokens = made.encoder_tokenizer(sentences, padding=True, return_tensors="pt", **options)
    with torch.no_grad():
        hidden = made.encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return normalize(made.projection((hidden * mask).sum(1) / mask.sum(1)), dim=-1)


def expected_prompt(golden, bundle, sentences):
    """The multimodal prompt as text, with the predicted boxes."""
    decoded = Tokenizer.from_file(str(bundle / "tokenizer.json")).decode(golden["input_ids"][0].tolist(), skip_special_tokens=False)
    boxes = re.findall(r"\((\d+),(\d+)\),\((\d+),(\d+)\)", decoded)
    assert len(boxes) == STRUCTURES
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


@pytest.fixture(scope="module")
def published_run(trainer, tmp_path_factory):
    """A run from checkpoints in the published forms: pickles, a sharded model with a vision tower and free rows for the added tokens."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("published")
    encoder, encoder_tokenizer = published.bert(folder / "bert", published=True)
    perception, projection = published.Perception().eval(), published.text_projection(48, 16)
    marker = folder / "executed"
    published.perception_checkpoint(folder / "apm.pth", perception, projection, marker, encoder)

    tokenizer = published.gemma_tokenizer(folder / "gemma")
    model = published.gemma_with_tower(len(tokenizer) + 63).to(torch.bfloat16)
    model.save_pretrained(folder / "gemma", max_shard_size="100KB")
    assert len(list((folder / "gemma").glob("*.safetensors"))) > 3
    # The model is read again, because the cast to bfloat16 rounded the rotary frequencies, too.
    model = type(model).from_pretrained(folder / "gemma", dtype=torch.float32).eval()
    rows = model.get_input_embeddings().weight.shape[0]
    heads = published.projectors(256, 16, 64)
    adapted = published.with_adapter(model, 16, 16, ["lm_head", "embed_tokens"])
    published.tuned_checkpoint(folder / "tuned.pth", adapted, heads)

    run = folder / "run"
    said = trainer(
        "import", "--out", run, "--apm", folder / "apm.pth", "--text-encoder", folder / "bert",
        "--language", folder / "gemma", "--adapter", folder / "tuned.pth",
    )  # fmt: skip
    print(said)
    sentences = export(trainer, run, folder / "bundle")
    made = SimpleNamespace(
        folder=folder, run=run, bundle=folder / "bundle", marker=marker, rows=rows, sentences=sentences,
        perception=perception, projection=projection, encoder=encoder, encoder_tokenizer=encoder_tokenizer,
        tokenizer=tokenizer, adapted=adapted, heads=heads,
    )  # fmt: skip
    made.embeddings = adapted.base_model.model.get_input_embeddings()
    return made


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


@pytest.fixture(scope="module")
def folder_run(trainer, tmp_path_factory):
    """A run from the other layouts: safetensors, a text-only model without free rows, a PEFT folder with projectors in it."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("folders")
    encoder, encoder_tokenizer = published.bert(folder / "bert", published=False)
    perception = published.Perception((1, 2, 1, 1), 32, 4, 48, (1, 2), 6).eval()
    projection = published.text_projection(48, 6, 24)
    state = perception.state_dict() | {f"project_head.proj.{n}": t for n, t in projection.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "apm.safetensors")

    from transformers import Gemma3ForCausalLM

    tokenizer = published.gemma_tokenizer(folder / "gemma")
    model = published.shaken(Gemma3ForCausalLM(published.gemma_config(len(tokenizer))))
    model.save_pretrained(folder / "gemma")
    tokenizer.add_special_tokens({"additional_special_tokens": [*published.CONTROL[4:], *ADDED]})
    model.resize_token_embeddings(len(tokenizer))
    grown = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():  # transformers adds small random noise to the mean
        table = model.get_input_embeddings().weight
        table[-len(ADDED) :] = table[: -len(ADDED)].double().mean(0)
    heads = published.projectors(32, 6, 64)
    adapted = published.with_adapter(model, 4, 8, None)
    adapted.save_pretrained(folder / "adapter")
    save_file({n: t.contiguous() for n, t in published.projector_state(heads).items()}, folder / "adapter" / "projectors.safetensors")

    run = folder / "run"
    trainer("import", "--out", run, "--apm", folder / "apm.safetensors", "--image-size", 96)
    trainer("import", "--out", run, "--text-encoder", folder / "bert")
    trainer("import", "--out", run, "--language", folder / "gemma")
    trainer("import", "--out", run, "--adapter", folder / "adapter")
    sentences = export(trainer, run, folder / "bundle")
    made = SimpleNamespace(
        folder=folder, run=run, bundle=folder / "bundle", sentences=sentences, grown=grown,
        perception=perception, projection=projection, encoder=encoder, encoder_tokenizer=encoder_tokenizer,
        tokenizer=tokenizer, adapted=adapted, heads=heads,
    )  # fmt: skip
    made.embeddings = adapted.base_model.model.get_input_embeddings()
    return made


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
    """Each training step starts from imported parts: an image encoder, and a base model with adapters and projectors."""
    torch.manual_seed(6)
    recipe = tmp_path / "recipe.toml"
    steps = "".join(f"[{name}]\nsteps = 1\nbatch = 2\nquestions = 2\n" for name in ["apm", "align", "instruct"])
    recipe.write_text(f'run = "run"\ndata = "{phantoms}"\n{steps}')
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


def test_sentences_of_a_data_set(trainer, folder_run, phantoms, tmp_path):
    """The sentences of a data set complete a run and are in the bundle's database."""
    shutil.copytree(folder_run.run, tmp_path / "run", ignore=shutil.ignore_patterns("sentences.json"))
    trainer("import", "--out", tmp_path / "run", "--sentences", phantoms)
    lists = json.loads((tmp_path / "run/sentences.json").read_text())
    assert len(lists) == STRUCTURES and all(lists)
    export(trainer, tmp_path / "run", tmp_path / "bundle")
    database = load_file(tmp_path / "bundle/sentences.safetensors")
    assert sum(len(t) for n, t in database.items() if n.endswith("embeddings")) == sum(map(len, lists))


def test_imports_are_repeatable(trainer, folder_run, tmp_path):
    for name in ["a", "b"]:
        trainer("import", "--out", tmp_path / name, "--language", folder_run.folder / "gemma")
    for file in (tmp_path / "a").iterdir():
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


def test_what_is_there_is_kept(trainer, folder_run):
    before = {file.name: file.stat().st_mtime_ns for file in folder_run.run.iterdir()}
    said = trainer("import", "--out", folder_run.run, "--apm", folder_run.folder / "apm.safetensors", fails=True)
    assert "apm.safetensors exists already" in said
    assert before == {file.name: file.stat().st_mtime_ns for file in folder_run.run.iterdir()}


def spoiled(tensors):
    """Removes two names, adds two, and changes the shape of two."""
    tensors, names = dict(tensors), sorted(tensors)
    gone, bent = [names[3], names[-2]], [names[5], names[-4]]
    for name in gone:
        del tensors[name]
    for name in bent:
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]]) if tensors[name].dim() else tensors[name][None]
    tensors |= {"stranger.weight": torch.zeros(2), "model.layers.0.stranger.bias": torch.zeros(3)}
    return tensors, gone, bent


def complaints(said, gone, bent, canonical=lambda name: name):
    for name in gone:
        assert re.search(rf"^  {re.escape(canonical(name))} is missing$", said, re.MULTILINE), (name, said)
    for name in bent:
        assert re.search(rf"^  {re.escape(name)} is \[.*\] instead of \[.*\]$", said, re.MULTILINE), (name, said)
    for name in ["stranger.weight", "model.layers.0.stranger.bias"]:
        assert f"{name} is not part of the model" in said
    assert len(re.findall(r"^  ", said, re.MULTILINE)) == 6, said


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
    assert not list((tmp_path / "run").glob("*")), "nothing is left behind"


def test_a_pickle_that_only_acts_is_refused(trainer, tmp_path):
    torch.save(published.Evil(tmp_path / "executed"), tmp_path / "evil.pth")
    trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "evil.pth", fails=True)
    torch.save({"model": published.Evil(tmp_path / "executed")}, tmp_path / "evil.pth")
    trainer("import", "--out", tmp_path / "run", "--apm", tmp_path / "evil.pth", fails=True)
    assert not (tmp_path / "executed").exists()
