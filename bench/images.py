"""What is done before the language model: file to tensor, the perception module, retrieval."""

import subprocess

import numpy as np

from made import published_bundle
from sides import BENCH, FOLDER, PHANTOM, THREADS, Ours, timed, turns
from table import row


def retrieval():
    """The nearest sentence of 36 structures."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    width = 16
    query = np.sin(np.arange(width, dtype=np.float32) * 0.7)[None]
    query /= np.linalg.norm(query)
    for total, floors in [(1_000, (None, None)), (100_000, (1.0, 2.0)), (1_000_000, (None, None))]:
        random, tables = np.random.default_rng(1), []
        for _ in range(36):
            rows = random.standard_normal((total // 36, width), np.float32)
            tables.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        path = FOLDER / "sentences.safetensors"
        np.stack(tables).tofile(FOLDER / "embeddings.f32")
        subprocess.run([BENCH, "sentences", FOLDER / "embeddings.f32", str(width), path], check=True)
        ours = Ours("retrieval", path, width)
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


def tensor():
    """From a file to what a network reads."""
    import cv2
    import pydicom
    import torch
    import torchvision
    from PIL import Image

    random, side = np.random.default_rng(2), 3000
    pixels = np.clip(np.cumsum(random.standard_normal((side, side)), 1) * 20 + 2000, 0, 4095).astype(np.uint16)
    source = pydicom.dcmread(PHANTOM)
    source.Rows = source.Columns = side
    source.BitsAllocated, source.BitsStored, source.HighBit, source.PixelRepresentation = 16, 12, 11, 0
    for keyword in ["WindowCenter", "WindowWidth", "PixelPaddingValue"]:
        if keyword in source:
            delattr(source, keyword)
    source.PixelData = pixels.tobytes()
    source.save_as(FOLDER / "large.dcm")
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(FOLDER / "large.png")
    target = 1024

    def dicom():
        data = pydicom.dcmread(FOLDER / "large.dcm")
        values = data.pixel_array.astype(np.float32)
        values = cv2.resize(values, (target, target), interpolation=cv2.INTER_AREA)
        return torch.from_numpy((values - values.min()) / (values.max() - values.min()))[None, None]

    resize = torchvision.transforms.Resize((target, target), antialias=True)

    def png():
        values = torchvision.transforms.functional.to_tensor(Image.open(FOLDER / "large.png"))
        values = resize(values)
        return ((values - values.min()) / (values.max() - values.min()))[None]

    for work, kind, file, name, peer, floor in [
        ("file to tensor, 12-bit DICOM 3000x3000", "tensor", "large.dcm", "pydicom + OpenCV", dicom, 2.0),
        ("the same, and the file's SHA-256", "hashed", "large.dcm", "pydicom + OpenCV, no hash", dicom, None),
        ("file to tensor, 8-bit PNG 3000x3000", "tensor", "large.png", "Pillow + torchvision", png, 2.0),
    ]:
        ours = Ours(kind, FOLDER / file, target)
        row(work, name, *turns(ours, timed(peer), 9), floor)
        ours.close()


def perception():
    """The perception module at 1024x1024."""
    import onnxruntime
    import openvino
    import published
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(THREADS)
    bundles = {name: published_bundle(name, "--decoder", "int4", "--apm", name) for name in ["int8", "fp32"]}
    state = load_file(FOLDER / "published/apm.safetensors")
    model = published.Perception().eval()
    model.load_state_dict({n: t for n, t in state.items() if not n.startswith("project_head")})
    image = torch.rand(1, 1, 1024, 1024)
    exported = FOLDER / "torch.onnx"
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


WORKS = [retrieval, tensor, perception]
