"""Import, export and an answer at a model's real size: time and peak memory of each step; memory is compared with limits.

usage: scale.py FOLDER [--hidden N] [--layers N] [--rows N] [--keep]

Without options, the language model has the dimensions of MedGemma-4b-it. Weights are random, in the published layout. About 20 GB of
disk space are needed temporarily. `make test-4b` runs this program.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import medgemma
import numpy as np
import published
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

ROOT = Path(__file__).parents[1]
TRAINER, ANATOMIX = ROOT / "target/release/anatomix-trainer", ROOT / "target/release/anatomix"
GIB = 1 << 30
# Limits: memory of import and of export, which opens the bundle in the same process, and memory for an answer.
IMPORT_MEMORY, EXPORT_MEMORY, ANSWERING_MEMORY = GIB, 6 * GIB, 24 * GIB
RANK = 16


# Runs a command and writes its peak memory to a file. It is a separate process, because a process inherits the peak memory of its parent.
WATCH = "import resource, subprocess, sys; code = subprocess.call(sys.argv[2:]); open(sys.argv[1], 'w').write(" + (
    "str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(code if code >= 0 else 128 - code)"
)


def watched(*command, stdout=None, stderr=None):
    """Runs a program. Returns its exit code, seconds and peak resident bytes."""
    library = ROOT / ".deps/onnxruntime/libonnxruntime.so"
    with tempfile.NamedTemporaryFile("r") as peak:
        start = time.monotonic()
        command = [sys.executable, "-S", "-c", WATCH, peak.name, *map(str, command)]
        code = subprocess.call(command, stdout=stdout, stderr=stderr, env={**os.environ, "ORT_DYLIB_PATH": str(library)}, cwd=ROOT)
        return code, round(time.monotonic() - start, 1), int(peak.read()) * 1024


def measured(*command, out=os.devnull):
    """Runs a program that must succeed, with its output in a file. Returns seconds and peak resident bytes."""
    with open(out, "w") as file:
        code, seconds, peak = watched(*command, stdout=file)
    if code:
        sys.exit(f"{command[0]} {command[1]} failed")
    return {"seconds": seconds, "peak_bytes": peak}


def write_adapter(folder):
    """Writes adapters of all linear layers in PEFT's layout, and the projectors."""
    folder.mkdir(parents=True, exist_ok=True)
    random, tensors = np.random.default_rng(5), {}
    for name, shape in medgemma.shapes(medgemma.LAYERS):
        if "_proj" not in name:
            continue
        outputs, inputs = shape
        at = f"base_model.model.model.language_model.{name.removesuffix('.weight')}"
        tensors[f"{at}.lora_A.weight"] = (random.standard_normal((RANK, inputs), np.float32) * inputs**-0.5).astype(np.float32)
        tensors[f"{at}.lora_B.weight"] = random.standard_normal((outputs, RANK), np.float32) * np.float32(0.01)
    save_file(tensors, folder / "adapter_model.safetensors")
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "lora_dropout": 0.05, "target_modules": names, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    heads = published.projectors(256, 16, medgemma.HIDDEN)
    save_tensors({n: t.contiguous() for n, t in published.projector_state(heads).items()}, folder / "projectors.safetensors")


def write_perception(folder):
    """Writes a perception module of the published size, and a small sentence encoder."""
    torch.manual_seed(6)
    folder.mkdir(parents=True, exist_ok=True)
    state = published.Perception().eval().state_dict()
    state |= {f"project_head.proj.{name}": tensor for name, tensor in published.text_projection(48, 16).state_dict().items()}
    save_tensors({name: tensor.contiguous() for name, tensor in state.items()}, folder / "apm.safetensors")
    published.bert(folder / "bert", published=False)


def main(folder):
    steps = {}
    start = time.monotonic()
    medgemma.main(folder / "gemma", medgemma.LAYERS)
    write_adapter(folder / "adapter")
    write_perception(folder)
    weights = sum(file.stat().st_size for file in (folder / "gemma").glob("*.safetensors"))
    print(f"random weights: {weights / 1e9:.2f} GB in {time.monotonic() - start:.0f} s", flush=True)

    run, bundle = folder / "run", folder / "bundle"
    steps["import"] = measured(
        TRAINER, "import", "--out", run, "--apm", folder / "apm.safetensors", "--text-encoder", folder / "bert",
        "--language", folder / "gemma", "--adapter", folder / "adapter",
    )  # fmt: skip
    lists = [[f"Structure {i} is healthy.", f"Structure {i} shows lung opacity."] for i in range(36)]
    (run / "sentences.json").write_text(json.dumps(lists))
    radiographs = folder / "radiographs"
    measured(TRAINER, "phantom", "--out", radiographs, "--count", 4, "--seed", 7, "--dicom-every", 0)
    steps["export"] = measured(
        TRAINER, "export", run, "--out", bundle, "--decoder", "int4", "--apm", "int8", "--calibrate", radiographs / "images",
        "--name", "scale",
    )  # fmt: skip
    size = sum(file.stat().st_size for file in bundle.iterdir())
    phantom = ROOT / "examples/phantom.dcm"
    steps["perceive"] = measured(ANATOMIX, "perceive", phantom, "--bundle", bundle, "--json", out=folder / "perceive.json")
    steps["ask"] = measured(
        ANATOMIX, "ask", phantom, "Where is the heart?", "--bundle", bundle, "--max-tokens", 16, "--json", out=folder / "answer.json"
    )
    answer = json.loads((folder / "answer.json").read_text())
    steps["ask"] |= {"tokens": answer["tokens"], "timing_ms": {k: round(v) for k, v in answer["timing_ms"].items()}}
    for name, step in steps.items():
        print(f"{name}: {step['seconds']} s, peak {step['peak_bytes'] / GIB:.2f} GiB", flush=True)
    print(f"bundle: {size / 1e9:.2f} GB; answer: {answer['tokens']} tokens, {steps['ask']['timing_ms']} ms")
    figures = {"weights_bytes": weights, "bundle_bytes": size, "steps": steps}
    (folder / "figures.json").write_text(json.dumps(figures, indent=2))
    for name, limit in {"import": IMPORT_MEMORY, "export": EXPORT_MEMORY, "ask": ANSWERING_MEMORY}.items():
        assert steps[name]["peak_bytes"] <= limit, f"{name} takes more than {limit / GIB:.0f} GiB"
    assert answer["tokens"] > 0
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=medgemma.HIDDEN)
    parser.add_argument("--layers", type=int, default=medgemma.LAYERS)
    parser.add_argument("--rows", type=int, default=medgemma.ROWS)
    parser.add_argument("--keep", action="store_true", help="leave the files there")
    options = parser.parse_args()
    medgemma.resize(options.hidden, options.layers, options.rows)
    try:
        main(options.folder)
    finally:
        if not options.keep:
            for part in ["gemma", "adapter", "bert", "radiographs", "run", "bundle"]:
                shutil.rmtree(options.folder / part, ignore_errors=True)
