"""Times AnatomiX beside what a user would pick instead: `make bench`. One table: work, ours, peer, ratio.

Both sides take turns in one run, with the same threads; figures are medians. A ratio above 1 means that we are faster.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
THREADS = len(os.sched_getaffinity(0))
os.environ["ORT_DYLIB_PATH"] = str(ROOT / ".deps/onnxruntime/libonnxruntime.so")
PHANTOM = ROOT / "examples/phantom.dcm"
REFERENCE = ROOT / "examples/reference-bundle"


class Ours:
    """The SDK's side: does its work once whenever it is asked to."""

    def __init__(self, *arguments, questions=()):
        path = ROOT / "build/bench/questions.txt"
        path.write_text("\n".join(questions))
        command = [ROOT / "target/release/examples/bench", *map(str, arguments)]
        environment = {**os.environ, "ANATOMIX_QUESTIONS": str(path)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command} did not start")

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.numbers = [float(number) for number in self.process.stdout.readline().split()]
        return self.numbers[0]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(work):
    def run():
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3

    return run


def turns(ours, peer, rounds):
    """Medians of alternating runs, in milliseconds."""
    peer()
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return [median(side) for side in zip(*pairs, strict=True)]


ROWS = []


def row(work, peer, ours_ms, peer_ms, floor, unit="ms", amount=None):
    """Adds a line to the table; with an amount, figures are that many a second."""
    ratio = peer_ms / ours_ms
    figures = [f"{amount / t * 1e3:,.0f} {unit}" if amount else f"{t:,.2f} {unit}" for t in (ours_ms, peer_ms)]
    ROWS.append({"work": work, "ours": figures[0], "peer": f"{peer}: {figures[1]}", "ratio": round(ratio, 2), "floor": floor})
    print(f"{work:58} {figures[0]:>16}   {peer}: {figures[1]:>16}   ratio {ratio:.2f} (to reach {floor})", flush=True)


def retrieval(_):
    """The nearest sentence of 36 structures."""
    import faiss
    from safetensors.numpy import save_file

    faiss.omp_set_num_threads(THREADS)
    width = 16
    query = np.sin(np.arange(width, dtype=np.float32) * 0.7)[None]
    query /= np.linalg.norm(query)
    for total, floors in [(1_000, ("-", "-")), (100_000, (1.0, 2.0)), (1_000_000, ("-", "-"))]:
        random, tensors = np.random.default_rng(1), {}
        each = total // 36
        for structure in range(36):
            rows = random.standard_normal((each, width), np.float32)
            tensors[f"{structure:02}.embeddings"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            text = "".join(f"Sentence number {i:07}." for i in range(each)).encode()
            tensors[f"{structure:02}.text"] = np.frombuffer(text, np.uint8)
            tensors[f"{structure:02}.offsets"] = np.linspace(0, len(text), each + 1).round().astype(np.uint64)
        path = ROOT / "build/bench/sentences.safetensors"
        save_file(tensors, path, {"format": "anatomix-sentences", "version": "1"})
        ours = Ours("retrieval", path, width)
        tables = [tensors[f"{structure:02}.embeddings"] for structure in range(36)]
        indices = []
        for table in tables:
            index = faiss.IndexFlatIP(width)
            index.add(table)
            indices.append(index)
        work = f"top-1 over 36 structures, {total:,} sentences"
        peers = [("faiss flat", lambda: [index.search(query, 1) for index in indices]), ("numpy", lambda: [int((t @ query[0]).argmax()) for t in tables])]
        for (name, peer), floor in zip(peers, floors, strict=True):
            row(work, name, *turns(ours, timed(peer), 60), floor)
        ours.close()


def tensor(_):
    """From a file to what a network reads."""
    import cv2
    import pydicom
    import torch
    import torchvision
    from PIL import Image

    random, side = np.random.default_rng(2), 3000
    pixels = np.clip(np.cumsum(random.standard_normal((side, side)), 1) * 20 + 2000, 0, 4095).astype(np.uint16)
    folder = ROOT / "build/bench"
    source = pydicom.dcmread(PHANTOM)
    source.Rows = source.Columns = side
    source.BitsAllocated, source.BitsStored, source.HighBit, source.PixelRepresentation = 16, 12, 11, 0
    for keyword in ["WindowCenter", "WindowWidth", "PixelPaddingValue"]:
        if keyword in source:
            delattr(source, keyword)
    source.PixelData = pixels.tobytes()
    source.save_as(folder / "large.dcm")
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / "large.png")
    target = 1024

    def dicom():
        data = pydicom.dcmread(folder / "large.dcm")
        values = data.pixel_array.astype(np.float32)
        values = cv2.resize(values, (target, target), interpolation=cv2.INTER_AREA)
        return torch.from_numpy((values - values.min()) / (values.max() - values.min()))[None, None]

    resize = torchvision.transforms.Resize((target, target), antialias=True)

    def png():
        values = torchvision.transforms.functional.to_tensor(Image.open(folder / "large.png"))
        values = resize(values)
        return ((values - values.min()) / (values.max() - values.min()))[None]

    for work, file, name, peer in [
        ("file to tensor, 12-bit DICOM 3000x3000", "large.dcm", "pydicom + OpenCV", dicom),
        ("file to tensor, 8-bit PNG 3000x3000", "large.png", "Pillow + torchvision", png),
    ]:
        ours = Ours("tensor", folder / file, target)
        row(work, name, *turns(ours, timed(peer), 9), 2.0)
        ours.close()


def published_bundle(name, *options, image_size=1024):
    """A bundle with the perception module at its published size, and a Gemma of 121 million weights."""
    import published
    import torch
    from safetensors.torch import save_file
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder = ROOT / "build/bench"
    trainer = ROOT / "target/release/anatomix-trainer"
    run, parts = folder / f"run-{image_size}", folder / "published"
    if not parts.exists():
        parts.mkdir()
        torch.manual_seed(6)
        state = published.Perception().eval().state_dict()
        state |= {f"project_head.proj.{n}": t for n, t in published.text_projection(48, 16).state_dict().items()}
        save_file({n: t.contiguous() for n, t in state.items()}, parts / "apm.safetensors")
        published.bert(parts / "bert", published=False)
        published.gemma_tokenizer(parts / "gemma")
        config = Gemma3TextConfig(
            vocab_size=32768, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
            num_key_value_heads=1, head_dim=256, sliding_window=512, max_position_embeddings=8192, query_pre_attn_scalar=256,
        )  # fmt: skip
        model = Gemma3ForCausalLM(config).eval()
        model.save_pretrained(parts / "gemma")
        published.with_adapter(model, 4, 8, None).save_pretrained(parts / "adapter")
        heads = published.projectors(256, 16, 640)
        save_file({n: t.contiguous() for n, t in published.projector_state(heads).items()}, parts / "adapter/projectors.safetensors")
    if not run.exists():
        subprocess.run(
            [trainer, "import", "--out", run, "--apm", parts / "apm.safetensors", "--image-size", str(image_size),
             "--text-encoder", parts / "bert", "--language", parts / "gemma", "--adapter", parts / "adapter"],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        lists = [[f"Structure {i} is healthy.", f"Structure {i} shows lung opacity."] for i in range(36)]
        (run / "sentences.json").write_text(json.dumps(lists))
    bundle = folder / f"bundle-{name}"
    if not bundle.exists():
        subprocess.run([trainer, "export", run, "--out", bundle, "--measure", "never", *options], check=True, stderr=subprocess.DEVNULL)
    return bundle


def perception(_):
    """The perception module at 1024x1024."""
    import onnxruntime
    import openvino
    import published
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(THREADS)
    bundles = {name: published_bundle(name, "--decoder", "int4", "--apm", name) for name in ["int8", "fp32"]}
    state = load_file(ROOT / "build/bench/published/apm.safetensors")
    model = published.Perception().eval()
    model.load_state_dict({n: t for n, t in state.items() if not n.startswith("project_head")})
    image = torch.rand(1, 1, 1024, 1024)
    exported = ROOT / "build/bench/torch.onnx"
    if not exported.exists():
        torch.onnx.export(model, (image,), exported, input_names=["image"], dynamo=False)

    def eager():
        with torch.inference_mode():
            model(image)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    plain = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": THREADS}
    compiled = core.compile_model(core.read_model(exported), "CPU", settings)
    ours = {name: Ours("perceive", bundle, PHANTOM) for name, bundle in bundles.items()}
    peers = {
        "PyTorch eager": ("int8", eager, 8.0),
        "OpenVINO bf16": ("int8", lambda: compiled({"image": image.numpy()}), 1.3),
        "ONNX Runtime fp32 of torch.onnx": ("fp32", lambda: plain.run(None, {"image": image.numpy()}), 1.0),
    }
    for name, (precision, peer, floor) in peers.items():
        row(f"APM 1024x1024, {precision}", name, *turns(ours[precision], timed(peer), 5), floor)
    for side in ours.values():
        side.close()


def genai_model():
    """The same Gemma for onnxruntime-genai, by its own builder, in its fastest setting: int4 in blocks of 32."""
    out = ROOT / "build/bench/genai"
    if not out.exists():
        from onnxruntime_genai.models import builder
        from onnxruntime_genai.models.builders import gemma

        construct = gemma.Gemma3Model.__init__

        def flat_names(self, config, *arguments, **named):
            # It reads the names of transformers 4.
            config.rope_theta = config.rope_parameters["full_attention"]["rope_theta"]
            config.rope_local_base_freq = config.rope_parameters["sliding_attention"]["rope_theta"]
            construct(self, config, *arguments, **named)

        gemma.Gemma3Model.__init__ = flat_names
        gemma.Gemma3Model.make_rope_init = lambda self, config: None
        source, cache = str(ROOT / "build/bench/published/gemma"), str(ROOT / "build/bench/genai.cache")
        wanted = ["int4_block_size=32", "int4_accuracy_level=4", "prune_lm_head=1"]
        parsed = builder.parse_extra_options("", source, str(out), "int4", "cpu", cache, wanted)
        builder.create_model("", source, str(out), "int4", "cpu", cache, **parsed)
    return out


class Genai:
    """Prefills so many tokens, then decodes."""

    def __init__(self, prompt, new):
        import onnxruntime_genai

        self.library, self.prompt, self.new = onnxruntime_genai, prompt, new
        config = onnxruntime_genai.Config(str(genai_model()))
        self.model = onnxruntime_genai.Model(config)
        self.ids = np.random.default_rng(3).integers(300, 600, (1, prompt)).astype(np.int32)

    def __call__(self):
        params = self.library.GeneratorParams(self.model)
        length = self.prompt + self.new
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = self.library.Generator(self.model, params)
        start = time.perf_counter()
        generator.append_tokens(self.ids)
        generator.generate_next_token()
        first = time.perf_counter()
        count = 1
        while not generator.is_done() and count < self.new:
            generator.generate_next_token()
            count += 1
        end = time.perf_counter()
        self.prefill, self.decode = (first - start) * 1e3, (end - first) * 1e3 / max(count - 1, 1)
        return self.prefill + self.decode


def decoder(_):
    """Prefill and decode of a Gemma of 121 million weights in int4."""
    new = 64
    for image_size in [96, 1024]:
        bundle = published_bundle(f"decoder-{image_size}", "--decoder", "int4", image_size=image_size)
        ours = Ours("ask", bundle, PHANTOM, "plain", new, questions=["Where is the heart?"])
        ours()
        prompt = int(ours.numbers[3])
        peer = Genai(prompt, new)
        peer()
        figures = []
        for _ in range(5):
            ours()
            _, prefill, decode, prefilled, tokens = ours.numbers
            peer()
            figures.append((prefill / prefilled, peer.prefill / prompt, decode / max(tokens - 1, 1), peer.decode))
        a, b, c, d = (median(side) for side in zip(*figures, strict=True))
        row(f"prefill, int4, 121 M Gemma, {prompt} tokens", "onnxruntime-genai", a, b, 1.5, "tokens/s", 1)
        row(f"decode, int4, 121 M Gemma, after {prompt} tokens", "onnxruntime-genai", c, d, 1.1, "tokens/s", 1)
        ours.close()


STRUCTURES = ["left lung", "right lung", "trachea and main bronchus", "mediastinum", "left clavicle", "right clavicle", "aortic arch structure"]


def look_up(_):
    """Grounded answers with look-up beside plain decoding."""
    questions = [f"Where is the {name}?" for name in STRUCTURES]
    sides = [Ours("ask", REFERENCE, PHANTOM, mode, 64, questions=questions) for mode in ["look-up", "plain"]]
    figures = []
    for _ in range(15):
        [side() for side in sides]
        figures.append([side.numbers[2] for side in sides])
    quick, plain = (median(side) for side in zip(*figures, strict=True))
    row(f"{len(questions)} grounded answers, reference bundle", "ourselves without look-up", quick, plain, 1.8)
    [side.close() for side in sides]


WORKS = {work.__name__: work for work in [retrieval, tensor, look_up, perception, decoder]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", choices=[*WORKS, []], help="which; all if not said")
    works = parser.parse_args().works or list(WORKS)
    (ROOT / "build/bench").mkdir(parents=True, exist_ok=True)
    for work in works:
        WORKS[work](None)
    (ROOT / "build/bench.json").write_text(json.dumps({"threads": THREADS, "rows": ROWS}, indent=2))


if __name__ == "__main__":
    main()
