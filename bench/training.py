"""Compares optimiser steps of the trainer with the same steps in PyTorch, written plainly: `make bench-training`. Prints a table of time
and peak memory, and writes it to build/bench-training.md. With DEVICE=cuda both sides run on a GPU.

Both sides alternate, with the same device, threads, sizes and precision. A ratio above 1 means that the trainer is faster, or needs less
memory.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import table
from sides import FOLDER, ROOT, THREADS, TRAINER, Failed, Ours, last, processes, run

TRAINING = ROOT / "target/release/examples/training"
PEER = Path(__file__).with_name("training_peer.py")
DEVICE = os.environ.get("DEVICE", "cpu")
# The trainer may need as much time as PyTorch, and a twentieth more memory.
TIME, MEMORY = 1.0, 1 / 1.05
# Steps may wait for data in so many percent of the time.
IDLE = 5.0

APM = {
    "image_size": 1024, "blocks": [3, 4, 6, 3], "planes": 64, "width": 256, "heads": 4, "feed_forward": 1024, "encoder_layers": 4,
    "decoder_layers": 4, "embedding": 16, "dropout": 0.1, "frozen_stages": 1,
}  # fmt: skip
GEMMA = {"vocab_size": 32768, "head_dim": 256, "query_pre_attn_scalar": 256.0, "sliding_window_pattern": 6, "max_position_embeddings": 8192}
SMALL = GEMMA | {
    "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
    "sliding_window": 512,
}  # fmt: skip
WIDE = GEMMA | {
    "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
    "sliding_window": 1024,
}  # fmt: skip
LORA = {"rank": 16, "alpha": 16.0, "dropout": 0.05}
# Batch and tokens on a CPU and on a GPU.
WORKS = {
    "optimiser": ("AdamW with clipping, 50 million values", "adamw", {}, (50, 0), (500, 0)),
    "perception": ("perception module, 1024 x 1024", "apm", {"apm": APM, "text": {"width": 768, "projection": 512}}, (1, 0), (8, 0)),
    "small": ("decoder with LoRA, 121 M", "instruct", {"language": SMALL, "lora": LORA}, (1, 512), (8, 2048)),
    "wide": ("2 layers as wide as MedGemma-4b, with LoRA", "instruct", {"language": WIDE, "lora": LORA}, (1, 512), (4, 2048)),
}


def toml(tables):
    value = lambda value: repr(value).replace("'", '"').replace("True", "true").replace("False", "false")
    plain = "".join(f"{name} = {value(x)}\n" for name, x in tables.items() if not isinstance(x, dict))
    nested = {name: x for name, x in tables.items() if isinstance(x, dict)}
    return plain + "".join(f"[{name}]\n{toml(x)}" for name, x in nested.items())


def measure(name, precision, checkpointing, rounds, starts=2):
    title, work, models, on_cpu, on_gpu = WORKS[name]
    batch, tokens = on_gpu if DEVICE == "cuda" else on_cpu
    settings = {"batch": batch, "rate": 1e-6, "clip": 0.1, "precision": precision, "checkpointing": checkpointing}
    paths = []
    for what, tables in [("settings", settings), ("models", models)]:
        paths.append(FOLDER / f"training-{name}.{what}.toml")
        paths[-1].write_text(toml(tables))
    arguments = [work, DEVICE, THREADS, batch, tokens, *paths]
    sides = [partial(Ours, *arguments, figure=slice(2), program=program) for program in ([TRAINING], [sys.executable, PEER])]
    ours, theirs = processes(lambda started: started(sides), starts, rounds)
    size = f", batch {batch}" + (f", {tokens} tokens" if tokens else "") + f", {precision}" if work != "adamw" else ""
    what = f"a step: {title}{size}" + (", layers computed again" if checkpointing and size else "")
    column = lambda side, at: [figures[at] for figures in side]
    table.row(what, "PyTorch", column(ours, 0), column(theirs, 0), TIME)
    if DEVICE == "cuda":
        held = [memory(side) for side in sides]
        table.row("its memory on the GPU", "PyTorch", held[:1], held[1:], MEMORY, "MiB")
    else:
        table.row("its peak memory", "PyTorch", column(ours, 1), column(theirs, 1), MEMORY, "MiB")


def loading(side=1024, batch=2, steps=6, models=APM):
    """The share of the time in which steps of the perception module wait for images, with the default workers and without a cache."""
    folder = FOLDER / "training-loading"
    shutil.rmtree(folder, ignore_errors=True)
    # Larger than the module's input, as radiographs are.
    run([TRAINER, "phantom", "--out", folder / "data", "--count", 40, "--size", side * 5 // 4, "--dicom-every", 0])
    text = {"width": 32, "layers": 1, "heads": 2, "feed_forward": 64, "positions": 64, "projection": 32}
    recipe = {
        "run": "run", "data": "data", "models.apm": models | {"image_size": side}, "models.text": text, "text": {"steps": 2},
        "apm": {"batch": batch, "steps": steps, "checkpoint_every": steps},
    }  # fmt: skip
    (folder / "recipe.toml").write_text(toml(recipe))
    said = ""
    for stage in ["text", "apm"]:
        command = [TRAINER, "train", stage, "--config", folder / "recipe.toml", "--device", DEVICE, "--threads", THREADS]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"train {stage}: {last(done.stderr)}")
        said = done.stderr
    idle = float(re.search(r"the steps waited for data ([\d.]+) % of the time", said)[1])
    what = f"share of the time in which steps of the perception module, {side} x {side}, batch {batch}, wait for data"
    table.row(what, "limit", [max(idle, 0.01)], [IDLE], 1.0, "%")


def memory(side):
    """Memory of the GPU that a side holds after two steps, when nothing else runs there."""
    used = lambda: float(subprocess.check_output(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]).split()[0])
    before = used()
    with side() as running:
        running()
        running()
        return used() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", choices=[*WORKS, "loading", []], help="the works to measure; all by default")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="compute inner values of layers again in the backward pass")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each of two processes of a side")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in options.works or [*WORKS, "loading"]:
        with table.attempt(name):
            if name == "loading":
                loading()
            else:
                measure(name, options.precision, options.checkpointing, options.rounds)
    table.write("bench-training")


if __name__ == "__main__":
    main()
