"""What is done before the language model: file to tensor, the perception module, retrieval."""

import numpy as np

from made import published_bundle
from sides import FOLDER, PHANTOM, THREADS, Ours, timed, turns
from table import row


def retrieval():
    """The nearest sentence of 36 structures."""
    import faiss
    from safetensors.numpy import save_file

    faiss.omp_set_num_threads(THREADS)
    width = 16
    query = np.sin(np.arange(width, dtype=np.float32) * 0.7)[None]
    query /= np.linalg.norm(query)
    for total, floors in [(1_000, (None, None)), (100_000, (1.0, 2.0)), (1_000_000, (None, None))]:
        random, tensors = np.random.default_rng(1), {}
        each = total // 36
        for structure in range(36):
            rows = random.standard_normal((each, width), np.float32)
            tensors[f"{structure:02}.embeddings"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            text = "".join(f"Sentence number {i:07}." for i in range(each)).encode()
            tensors[f"{structure:02}.text"] = np.frombuffer(text, np.uint8)
            tensors[f"{structure:02}.offsets"] = np.linspace(0, len(text), each + 1).round().astype(np.uint64)
        path = FOLDER / "sentences.safetensors"
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

    for work, file, name, peer in [
        ("file to tensor, 12-bit DICOM 3000x3000", "large.dcm", "pydicom + OpenCV", dicom),
        ("file to tensor, 8-bit PNG 3000x3000", "large.png", "Pillow + torchvision", png),
    ]:
        ours = Ours("tensor", FOLDER / file, target)
        row(work, name, *turns(ours, timed(peer), 9), 2.0)
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
