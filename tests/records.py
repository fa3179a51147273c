"""What the command line prints as JSON, and checks of it."""

import re

import numpy as np

STRUCTURE_COUNT = 36
LABELS = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
]
HEART, LEFT_LUNG, RIGHT_LUNG = 4, 11, 20


def boxes(study: dict) -> np.ndarray:
    return np.array([found["box"] for found in study["structures"]])


def check_inside(box, width, height):
    x0, y0, x1, y1 = box
    assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height, box


def check_flags(flags):
    for flag in flags:
        assert set(flag) == {"code", "severity", "message"}
        assert flag["severity"] in ("info", "warning") and flag["message"]


def check_provenance(provenance, manifest):
    assert provenance["bundle"] == manifest["name"]
    assert provenance["provider"] == "cpu"
    assert len(provenance["bundle_sha256"]) == len(provenance["input_sha256"]) == 64
    assert provenance["scores"] == "uncalibrated"
    assert "not a medical device" in provenance["intended_use"]
    assert re.fullmatch(r"1\.\d+\.\d+", provenance["onnx_runtime"])


def check_study(study, manifest):
    assert set(study) == {
        "image", "width", "height", "structures", "labels", "flags", "provenance", "timing_ms"
    }
    assert len(study["structures"]) == STRUCTURE_COUNT
    for index, found in enumerate(study["structures"]):
        assert set(found) == {"index", "name", "box", "sentence", "similarity", "margin"}
        assert found["index"] == index
        check_inside(found["box"], study["width"], study["height"])
        assert found["sentence"].endswith(".") and -1 <= found["similarity"] <= 1.0001 and found["margin"] >= 0
    assert study["structures"][HEART]["name"] == "Cardiac shadow viewed radiologically or Heart"
    assert list(study["labels"]) == LABELS
    assert all(0 <= score <= 1 for score in study["labels"].values())
    check_flags(study["flags"])
    check_provenance(study["provenance"], manifest)
    assert study["timing_ms"] and all(value >= 0 for value in study["timing_ms"].values())


def check_answer(answer, manifest):
    assert set(answer) >= {
        "question", "task", "text", "groundings", "prefilled", "tokens", "runs", "finish", "flags", "provenance", "timing_ms"
    }
    assert answer["text"] and not any(tag in answer["text"] for tag in ("<ref>", "<box>", "<end_of_turn>"))
    assert answer["tokens"] > 0 and answer["runs"] > 0 and answer["prefilled"] > 0 and answer["finish"] in ("end_of_turn", "max_tokens")
    for grounding in answer["groundings"]:
        assert set(grounding) == {"phrase", "boxes"}
    check_flags(answer["flags"])
    check_provenance(answer["provenance"], manifest)
    assert set(answer["timing_ms"]) == {"prefill", "decode", "total"}
