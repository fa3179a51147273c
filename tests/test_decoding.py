"""Greedy decoding over the cache, as the SDK drives the graph, says what transformers says without one.

The model is the imported one of test_import: its window is shorter than the prompt, two of its layers are global, adapters are
merged, visual features stand in places of tokens.
"""

import json

import numpy as np
import pytest
import torch
from ports import attention
from safetensors.torch import load_file
from test_import import close, folder_run, session, trainer  # noqa: F401 (fixtures)

TOKENS = 128


def likeliest(logits, said):
    """The most likely token that was not said yet: random weights would say one token for ever."""
    logits = np.asarray(logits).copy()
    logits[said] = -np.inf
    return int(logits.argmax())


class Cached:
    """`decoder.onnx` over one cache that is past and present."""

    def __init__(self, bundle, capacity):
        self.session = session(bundle / "decoder.onnx")
        sizes = json.loads((bundle / "manifest.json").read_text())["decoder"]
        shape = (1, sizes["kv_heads"], capacity, sizes["head_dim"])
        names = [f"{layer}.{part}" for layer in range(sizes["layers"]) for part in ["key", "value"]]
        self.cache = {name: np.zeros(shape, np.float32) for name in names}
        self.sizes, self.length = sizes, 0

    def run(self, ids, index, visual):
        """Logits of all the next tokens."""
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
    """What transformers says with peft's adapter, everything computed anew for every token: tokens, and logits of all places."""
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
