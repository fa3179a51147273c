"""Comparisons without the language model: file to tensor, the perception module, retrieval."""

from functools import partial

import numpy as np

from machine import floor
from made import language_bundle, published_bundle
from sides import BENCH, FOLDER, PAUSE, PHANTOM, THREADS, Ours, processes, run, timed, turns
from table import attempt, row


def retrieval():
    """The nearest sentence of 36 structures."""
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
        run([BENCH, "sentences", FOLDER / "embeddings.f32", width, path])
        ours = Ours("retrieval", path, width)
        work = f"top-1 over 36 structures, {total:,} sentences"
        for peer, name, least in zip([faiss_search, numpy_search], ["faiss flat", "numpy"], floors, strict=True):
            with attempt(f"{work}, beside {name}"):
                row(work, name, *turns(ours, timed(peer(tables, query)), 60), least)
        ours.close()


def faiss_search(tables, query):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    indices = []
    for table in tables:
        index = faiss.IndexFlatIP(query.shape[1])
        index.add(table)
        indices.append(index)
    return lambda: [index.search(query, 1) for index in indices]


def numpy_search(tables, query):
    return lambda: [int((table @ query[0]).argmax()) for table in tables]


def tensor():
    """From a file to the network's input."""
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

    for work, kind, file, name, peer, least in [
        ("file to tensor, 12-bit DICOM 3000x3000", "tensor", "large.dcm", "pydicom + OpenCV", dicom, 2.0),
        ("the same, and the file's SHA-256", "hashed", "large.dcm", "pydicom + OpenCV, no hash", dicom, None),
        ("file to tensor, 8-bit PNG 3000x3000", "tensor", "large.png", "Pillow + torchvision", png, 2.0),
    ]:
        with attempt(work):
            sides = lambda started, kind=kind, file=file, peer=peer: [*started([partial(Ours, kind, FOLDER / file, target)]), timed(peer)]
            row(work, name, *processes(sides, 5, 5), least)


def perception():
    """The perception module at 1024x1024."""
    import published
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(THREADS)
    bundles = {}
    # Decoding takes the bundle in int8, too: images of this side make its longer prompts.
    for precision, bundle in {"int8": lambda: language_bundle(2500), "fp32": lambda: published_bundle("fp32", "fp32")}.items():
        with attempt(f"APM 1024x1024, {precision}"):
            bundles[precision] = bundle()
    state = load_file(FOLDER / "published/apm.safetensors")
    model = published.Perception().eval()
    model.load_state_dict({n: t for n, t in state.items() if not n.startswith("project_head")})
    image = torch.rand(1, 1, 1024, 1024)
    exported = FOLDER / "torch.onnx"
    if not exported.exists():
        torch.onnx.export(model, (image,), exported, input_names=["image"], dynamo=False)

    def eager():
        def once():
            with torch.inference_mode():
                model(image)

        return once

    # Processors without VNNI do at most twice as many multiplications in 8 bits as in fp32, and have no bf16 for OpenVINO.
    for precision, name, peer, least in [
        ("int8", "PyTorch eager", eager, floor(8.0, without_vnni=3.0)),
        ("int8", "OpenVINO bf16", lambda: openvino_module(exported, image.numpy()), floor(1.3, without_vnni=None)),
        ("fp32", "ONNX Runtime fp32 of torch.onnx", lambda: onnxruntime_module(exported, image.numpy()), 1.0),
    ]:
        if precision in bundles:
            with attempt(f"APM 1024x1024, {precision}, beside {name}"):
                sides = lambda started: [*started([partial(Ours, "perceive", bundles[precision], PHANTOM)]), timed(peer())]
                row(f"APM 1024x1024, {precision}", name, *processes(sides, 5, 4, PAUSE), least)


def openvino_module(exported, image):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": THREADS}
    compiled = core.compile_model(core.read_model(exported), "CPU", settings)
    return lambda: compiled({"image": image})


def onnxruntime_module(exported, image):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    plain = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    return lambda: plain.run(None, {"image": image})


WORKS = [retrieval, tensor, perception]
