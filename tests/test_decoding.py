"""Greedy decoding with the KV cache gives the tokens of transformers, which computes without a cache.

The model is the imported one of importing.py: its sliding window is shorter than the prompt, two of its layers are full ones, adapters are
merged, and visual features replace some embeddings.
"""

import json
from difflib import SequenceMatcher

import numpy as np
import pytest
import torch
from PIL import Image
from attention_inputs import attention
from safetensors.torch import load_file
from importing import close, folder_run, session, trainer  # noqa: F401 (fixtures)
from test_reference import Reader

TOKENS = 128


def likeliest(logits, said):
    """The most likely token that has not occurred yet. With random weights, greedy decoding would repeat one token."""
    logits = np.asarray(logits).copy()
    logits[said] = -np.inf
    return int(logits.argmax())


class Cached:
    """`decoder.onnx` with one KV cache, whose buffers are past and present at once."""

    def __init__(self, bundle, capacity):
        self.session = session(bundle / "decoder.onnx")
        sizes = json.loads((bundle / "manifest.json").read_text())["decoder"]
        shape = (1, sizes["kv_heads"], capacity, sizes["head_dim"])
        names = [f"{layer}.{part}" for layer in range(sizes["layers"]) for part in ["key", "value"]]
        self.cache = {name: np.zeros(shape, np.float32) for name in names}
        self.sizes, self.length = sizes, 0

    def run(self, ids, index, visual):
        """Runs the next tokens and returns their logits."""
        seen = attention(self.length, ids.shape[1], self.sizes)
        self.length += ids.shape[1]
        inputs = seen | {f"past_key_values.{name}": values for name, values in self.cache.items()} | {
            "input_ids": ids,
            "visual_features": visual,
            "visual_index": index,
            "seqlens_k": np.array([self.length - 1], np.int32),
            "total_sequence_length": np.array(self.length, np.int32),
            "logit_positions": np.arange(ids.shape[1]),
        }
        logits, *present = self.session.run(["logits", *(f"present.{name}" for name in self.cache)], inputs)
        self.cache = dict(zip(self.cache, present, strict=True))
        return logits[0]


@pytest.fixture(scope="module")
def prompt(folder_run):  # noqa: F811
    golden = {name: tensor.numpy() for name, tensor in load_file(folder_run.bundle / "golden.safetensors").items()}
    return golden["input_ids"], golden["visual_index"], golden["visual_features"][0]


@pytest.fixture(scope="module")
def expected(folder_run, prompt):  # noqa: F811
    """Tokens, and logits of all positions, from transformers with peft's adapter, which computes the whole sequence for each token."""
    ids, index, visual = (torch.from_numpy(part) for part in prompt)
    said = []
    with torch.no_grad():
        x = folder_run.embeddings(ids).clone()
        x[0, index[0] >= 0] = visual[index[0][index[0] >= 0]]
        for _ in range(TOKENS):
            logits = folder_run.adapted(inputs_embeds=x, attention_mask=torch.ones(x.shape[:2], dtype=torch.long), use_cache=False).logits
            said.append(likeliest(logits[0, -1], said))
            x = torch.cat([x, folder_run.embeddings(torch.tensor([[said[-1]]]))], 1)
    return said, logits[0]


@pytest.mark.parametrize("pieces", ["at once", "in chunks", "step by step"])
def test_greedy_tokens(folder_run, prompt, expected, pieces):  # noqa: F811
    ids, index, visual = prompt
    said, logits = expected
    length = ids.shape[1]
    ends = {"at once": [length], "in chunks": [1, 40, 47, 48, 300, 1111, length], "step by step": range(1, length + 1)}[pieces]
    decoder, parts, start = Cached(folder_run.bundle, length + TOKENS), [], 0
    for end in ends:
        parts.append(decoder.run(ids[:, start:end], index[:, start:end], visual))
        start = end
    found = []
    while True:
        found.append(likeliest(parts[-1][-1], found))
        if len(found) == TOKENS:
            break
        parts.append(decoder.run(np.array([[found[-1]]]), np.array([[-1]]), visual))
    close(f"logits of {length} + {TOKENS - 1} tokens, {pieces}", np.concatenate(parts), logits, 1e-3)
    assert found == said


def test_the_program_answers_like_transformers(succeed, folder_run, tmp_path):  # noqa: F811
    """From an image to 128 greedy tokens through the SDK: tokens and log probabilities equal those of transformers."""
    # The image has the size of the network's input, so that it is not resized, and no box is on the edge between two coordinates.
    y, x = np.mgrid[:96, :96] / 95
    pixels = (np.sin(9 * x) * np.cos(7 * y) * 100 + 120 + np.random.default_rng(3).integers(0, 30, (96, 96))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    question, penalty = "Where is the heart?", 100.0
    # Random weights give no well-formed groundings, so that decoding is unconstrained.
    options = ["--max-tokens", str(TOKENS), "--repetition-penalty", str(penalty), "--log-probabilities", "--json", "--unconstrained"]
    answer = json.loads(succeed("ask", tmp_path / "image.png", question, "--bundle", folder_run.bundle, *options))

    reader = Reader(folder_run.bundle)
    seen = reader.perceive(pixels.astype(np.float32) / 255)
    ids, index = map(torch.from_numpy, reader.prompt(seen, question))
    said, likely, cache, end = [], [], None, reader.tokenizer.token_to_id("<end_of_turn>")
    with torch.no_grad():
        x = folder_run.embeddings(ids[None]).clone()
        x[0, index >= 0] = torch.from_numpy(seen["features"])[index[index >= 0]]
        while len(said) < TOKENS and end not in said:
            found = folder_run.adapted(inputs_embeds=x, past_key_values=cache, use_cache=True)
            last, cache = found.logits[0, -1], found.past_key_values
            weighed = last.clone()
            weighed[said] = torch.where(last[said] > 0, last[said] / penalty, last[said] * penalty)
            said.append(int(weighed.argmax()))
            likely.append(last.log_softmax(-1)[said[-1]].item())
            x = folder_run.embeddings(torch.tensor([[said[-1]]]))
    assert answer["tokens"] == len(said) == TOKENS, (answer["tokens"], len(said))
    close(f"log-probabilities of {TOKENS} tokens that the program says", answer["log_probabilities"], torch.tensor(likely), 1e-3)
    raw = reader.tokenizer.decode(said, skip_special_tokens=False)
    print(f"{len(set(said))} different tokens: {raw[:60]!r}")
    # The text lacks the tags, and bytes that are not UTF-8 may be decoded otherwise in streamed text.
    assert len(set(said)) == TOKENS and ("<box>" in raw or SequenceMatcher(None, raw, answer["text"]).ratio() > 0.8)
