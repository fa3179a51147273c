"""The language model with adapters and projectors in PyTorch, independent of the trainer: transformers' Gemma 3, peft's adapters, PyTorch's
cross-entropy.
"""

import math
import re

import torch
import torch.nn.functional as F
from gradients import STRUCTURE_COUNT, shake
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

PATCHES, IMAGE_WIDTH, EMBEDDING, HIDDEN, INNER = 9, 24, 6, 40, 512
LANGUAGE = {
    "vocab_size": 131,
    "hidden_size": HIDDEN,
    "intermediate_size": 72,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 20.0,
    "sliding_window": 7,
    "sliding_window_pattern": 3,
    "rope_factor": 4.0,
    "max_position_embeddings": 64,
}
LORA = {"rank": 3, "alpha": 6.0, "dropout": 0.0}


class Projector(nn.Module):
    """Projects image tokens and object embeddings to the decoder's width."""

    def __init__(self):
        super().__init__()
        for name, inputs in [("image_projectionhead", IMAGE_WIDTH), ("obj_projectionhead", EMBEDDING)]:
            head = nn.Module()
            head.proj = nn.Sequential(nn.Linear(inputs, INNER), nn.GELU(), nn.LayerNorm(INNER), nn.Linear(INNER, HIDDEN))
            setattr(self, name, head)

    def forward(self, tokens, objects):
        return torch.cat([self.image_projectionhead.proj(tokens), self.obj_projectionhead.proj(objects)], 1)


def gemma(tied: bool, window=LANGUAGE["sliding_window"]) -> Gemma3ForCausalLM:
    same = {name: value for name, value in LANGUAGE.items() if not name.startswith(("sliding", "rope", "query"))}
    pattern = LANGUAGE["sliding_window_pattern"]
    kinds = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(LANGUAGE["num_hidden_layers"])]
    config = Gemma3TextConfig(
        **same,
        query_pre_attn_scalar=int(LANGUAGE["query_pre_attn_scalar"]),
        sliding_window=window,
        layer_types=kinds,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": LANGUAGE["rope_factor"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        tie_word_embeddings=tied,
        attn_implementation="eager",
        attention_dropout=0.0,
    )
    model = Gemma3ForCausalLM(config).float()
    shake(model)
    return model


def ours(tensors, tied: bool, projected: bool) -> dict:
    """Of the named tensors of {"model": .., "projector": ..}, those that the trainer has, by its names."""
    out = {}
    for name, tensor in tensors:
        part, name = name.split(".", 1)
        if part == "model":
            name = published(name)
        if name and not (tied and name == "lm_head.weight") and (projected or part == "model"):
            out[name] = tensor
    return out


def adapted(model: Gemma3ForCausalLM, tied: bool, dropout=0.0):
    """The model with peft's adapters on all linear layers, and with embedding table and output layer trained in full."""
    settings = LoraConfig(
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        lora_dropout=dropout,
        target_modules=r".*\.layers\..*_proj",
        modules_to_save=None if tied else ["embed_tokens", "lm_head"],
    )
    out = get_peft_model(model, settings)
    for name, tensor in out.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(tensor, std=0.1)
        if tied and name.endswith("embed_tokens.weight"):
            tensor.requires_grad_(True)
    return out


def published(name: str) -> str | None:
    """The trainer's name of a parameter of peft or transformers; `None` for a copy that is not used."""
    if "original_module" in name:
        return None
    name = name.removeprefix("base_model.model.")
    return re.sub(r"\.(base_layer|default|modules_to_save)(?=\.)", "", name)


def language_loss(model, projector, batch: dict, packs: list, by_tokens=False) -> torch.Tensor:
    """The loss with each question in a sequence of its own after the context. The weight of an answer is the root of its length."""
    features = projector(batch["image_tokens"], batch["object_embeddings"]) if batch else None
    total, counted = 0.0, 0.0
    for number, pack in enumerate(packs):
        for question, answer in pack["turns"]:
            ids = torch.tensor(pack["ids"] + question + answer)
            hidden = model.get_input_embeddings()(ids)
            if features is not None:
                index = torch.tensor(pack["visual_index"] + [-1] * (len(question) + len(answer)))
                hidden = torch.where((index >= 0)[:, None], features[number][index.clamp(min=0)], hidden)
            logits = model(inputs_embeds=hidden[None], use_cache=False).logits[0]
            weight = 1.0 if by_tokens else 1 / math.sqrt(len(answer))
            first = len(pack["ids"]) + len(question) - 1
            total = total + weight * F.cross_entropy(logits[first:-1], torch.tensor(answer), reduction="sum")
            counted += weight * len(answer)
    return total / counted


def made_packs() -> list:
    """Three contexts of different lengths with two to four questions each, and with visual features. Token 0 is not among them, because
    transformers takes it for padding, which it does not train."""
    draw = lambda count: torch.randint(1, LANGUAGE["vocab_size"], (count,)).tolist()
    packs = []
    for length, turns in [(19, [(3, 5), (4, 1), (2, 9), (6, 2)]), (31, [(5, 4), (3, 3)]), (12, [(2, 12), (7, 1), (1, 6)])]:
        index = torch.where(torch.rand(length) < 0.4, torch.randint(PATCHES + STRUCTURE_COUNT, (length,)), -1)
        packs.append({"ids": draw(length), "visual_index": index.tolist(), "turns": [(draw(q), draw(a)) for q, a in turns]})
    return packs
