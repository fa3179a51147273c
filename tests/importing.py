"""Runs that are imported from random weights in published layouts, and how their bundles are compared with the libraries that made the
weights: torch, torchvision, transformers and peft. Each comparison prints the largest difference.
"""

import json
import re
import subprocess
from types import SimpleNamespace

import numpy as np
import onnxruntime
import published
import pytest
import torch
from conftest import ROOT, needed
from attention_inputs import attention
from published import ADDED, SENTENCES, STRUCTURE_COUNT
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize


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
    lists = [[sentence, f"{sentence} {i}."] for i, sentence in zip(range(STRUCTURE_COUNT), SENTENCES * 9, strict=True)]
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
    assert len(tables) == STRUCTURE_COUNT
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
