"""PyTorch's side of `make bench-training`: the same step, written plainly. Takes the arguments of the trainer's example `training`, and
answers each line with milliseconds and the process's peak memory in MiB.
"""

import sys
import time
import tomllib
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

QUESTIONS, QUESTION, ANSWER = 8, 12, 20
SENTENCES = 2000


def perception(models, settings, device, batch):
    import perception_reference as reference

    sizes = {"dropout": 0.1, "frozen_stages": 1} | models["apm"]
    reference.SIZES.clear()
    reference.SIZES.update(sizes)
    reference.TEXT.update(models["text"])
    model = reference.Perception(False, True, dropout=sizes["dropout"]).to(device)
    model.backbone[0].body.layer1.requires_grad_(False)
    structures, labels, width = reference.STRUCTURE_COUNT, reference.LABEL_COUNT, models["text"]["width"]
    batch = {
        "image": torch.rand(batch, 1, sizes["image_size"], sizes["image_size"], device=device),
        "boxes": torch.rand(batch, structures, 4, device=device) * 0.3 + 0.2,
        "present": torch.ones(batch, structures, device=device),
        "labels": (torch.rand(batch, labels, device=device) < 0.3).float(),
        "sentences": torch.randint(SENTENCES, (batch, structures), device=device),
        "frozen": torch.rand(SENTENCES, width, device=device),
    }
    weights = {"l1": 5.0, "giou": 3.0, "labels": 2.0, "contrastive": 1.0, "temperature": 0.01, "clip": False}
    return model, lambda: reference.perception_losses(model, batch, weights)["loss"]


def language(models, settings, device, batch, tokens):
    """Sequences of one context with one question, as a plain training has them, with as many tokens as the trainer's packs, and as many of
    them in the loss."""
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    sizes, lora = models["language"], models["lora"]
    pattern, layers = sizes["sliding_window_pattern"], sizes["num_hidden_layers"]
    config = Gemma3TextConfig(
        **{name: value for name, value in sizes.items() if not name.startswith(("sliding", "query", "rope"))},
        query_pre_attn_scalar=int(sizes["query_pre_attn_scalar"]),
        sliding_window=sizes["sliding_window"],
        layer_types=["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)],
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    kind = torch.bfloat16 if settings.get("precision") == "bf16" else torch.float32
    model = Gemma3ForCausalLM(config).to(device, kind)
    adapters = LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules=r".*\.layers\..*_proj")
    model = get_peft_model(model, adapters).train()
    for name, tensor in model.named_parameters():
        if "lora_" in name or name.endswith("embed_tokens.weight"):
            tensor.data = tensor.data.float()
            tensor.requires_grad_(True)
    if settings.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = (torch.arange(tokens) * 7 % sizes["vocab_size"]).expand(batch, -1).to(device)
    labels = ids.clone()
    labels[:, : -QUESTIONS * ANSWER] = -100
    return model, lambda: model(input_ids=ids, labels=labels, use_cache=False).loss


def optimiser_alone(device, millions):
    """Ten matrices whose gradients are their values."""
    model = nn.ParameterList([torch.rand(millions * 100, 1000) for _ in range(10)]).to(device)
    for tensor in model:
        tensor.grad = tensor.detach().clone()
    return model


def main():
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    work, device, threads, batch, tokens, settings, models = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    settings, models = (tomllib.loads(Path(path).read_text()) for path in (settings, models))
    arguments = [models, settings, device, int(batch)]
    if work == "adamw":
        model, loss = optimiser_alone(device, int(batch)), None
    else:
        model, loss = perception(*arguments) if work == "apm" else language(*arguments, int(tokens))
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-6, weight_decay=1e-4)
    cast = torch.autocast(device, torch.bfloat16) if settings.get("precision") == "bf16" else nullcontext()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        if loss:
            optimiser.zero_grad()
            with cast:
                value = loss()
            value.backward()
        nn.utils.clip_grad_norm_(trained, 0.1)
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()
        taken = (time.perf_counter() - start) * 1e3
        peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(taken, int(peak) / 1024, flush=True)


if __name__ == "__main__":
    main()
