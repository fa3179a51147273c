"""Writes random weights with the dimensions of MedGemma-4b-it in its published layout: bfloat16 shards, without the vision tower.

usage: medgemma.py DIR [LAYERS]; tests/scale.py imports and exports the result and asks a question
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

ROWS, TOKENS, HIDDEN, INNER, LAYERS, HEADS, PAIRS, HEAD = 262208, 262145, 2560, 10240, 34, 8, 4, 256
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
SHARD = 4 << 30


def resize(hidden, layers, rows):
    """Sets the sizes of the model that is written."""
    global ROWS, TOKENS, HIDDEN, INNER, LAYERS
    ROWS, TOKENS, HIDDEN, INNER, LAYERS = rows, rows - 63, hidden, 4 * hidden, layers


def shapes(layers):
    yield "embed_tokens.weight", (ROWS, HIDDEN)
    for layer in range(layers):
        at = f"layers.{layer}."
        for name, heads in [("q", HEADS), ("k", PAIRS), ("v", PAIRS)]:
            yield f"{at}self_attn.{name}_proj.weight", (heads * HEAD, HIDDEN)
        yield f"{at}self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD)
        for name in ["q_norm", "k_norm"]:
            yield f"{at}self_attn.{name}.weight", (HEAD,)
        for name in ["gate", "up"]:
            yield f"{at}mlp.{name}_proj.weight", (INNER, HIDDEN)
        yield f"{at}mlp.down_proj.weight", (HIDDEN, INNER)
        for name in ["input", "post_attention", "pre_feedforward", "post_feedforward"]:
            yield f"{at}{name}_layernorm.weight", (HIDDEN,)
    yield "norm.weight", (HIDDEN,)


def write_shard(path, tensors, random):
    """Writes a safetensors file, a few rows at a time."""
    header, at = {}, 0
    for name, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors:
            # Small norms and deviations keep the residual stream within bounds. One block of noise is used for all tensors.
            spread = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
            noise = random.standard_normal(1 << 22, np.float32) * np.float32(spread)
            block = (noise.view(np.uint32) >> 16).astype("<u2")
            left = int(np.prod(shape))
            while left:
                start = int(random.integers(0, len(block) // 2))
                part = block[start : start + min(left, len(block) - start)]
                file.write(part.tobytes())
                left -= len(part)


def write_tokenizer(folder):
    """Writes a tokenizer with as many tokens as the real one, including letters, bytes and control tokens."""
    words = CONTROL + [f"<0x{byte:02X}>" for byte in range(256)] + [chr(c) for c in range(33, 127)] + ["▁", "\n"]
    vocabulary = {word: i for i, word in enumerate(words)}
    for i in range(len(vocabulary), TOKENS - 1):
        vocabulary[f"▁word{i}"] = i
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in [*CONTROL, "<image_soft_token>"]])
    assert tokenizer.get_vocab_size() == TOKENS
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def main(folder, layers):
    folder.mkdir(parents=True, exist_ok=True)
    text = {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "model_type": "gemma3_text",
        "num_hidden_layers": layers,
        "vocab_size": ROWS,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(folder)
    shards, size = [[]], 0
    for name, shape in shapes(layers):
        bytes_ = 2 * int(np.prod(shape))
        if size + bytes_ > SHARD:
            shards.append([])
            size = 0
        shards[-1].append((f"language_model.model.{name}", shape))
        size += bytes_
    random, names = np.random.default_rng(4), {}
    for i, tensors in enumerate(shards, 1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / file, tensors, random)
        names |= {name: file for name, _ in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else LAYERS)
