"""The command `tables`: a bundle's figures beside the paper's, other models' answers, and what an interruption leaves."""

import csv
import json
import re
import subprocess

import numpy as np
import pytest
from conftest import ROOT

PHANTOMS = 6
SEED = 3_500_000
MODELS = ["radvlm", "maira2", "chexagent", "medgemma", "radialog"]


@pytest.fixture(scope="module")
def data(trainer, tmp_path_factory):
    """Phantoms, and the same without markers."""
    folder = tmp_path_factory.mktemp("tables")
    for name, options in [("marked", []), ("unmarked", ["--without-markers"])]:
        trainer("phantom", "--out", folder / name, "--count", PHANTOMS, "--seed", SEED, "--dicom-every", 0, *options)
    return folder


@pytest.fixture(scope="module")
def measured(trainer, bundle, data):
    """The command with all conditions, and its results."""
    command = ["tables", "--bundle", bundle, "--data", data / "marked", "--without-markers", data / "unmarked", "--out", data / "out"]
    trainer(*command, "--form", ",".join(MODELS))
    return command, json.loads((data / "out/tables.json").read_text())


def rows(results, table, start):
    table = next(own for own in results["tables"] if own["id"] == table)
    return [(row, dict(zip(table["columns"], row["cells"]))) for row in table["rows"] if row["label"].startswith(start)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answered(data, model, part=1):
    """The questions for a model with the bundle's own answers to every `part`-th of them."""
    path = data / f"{model}.jsonl"
    questions = lines(data / f"out/{model}.jsonl")
    assert all("answer" not in line for line in questions)
    filled = [line if number % part else {**line, "answer": line["bundle_answer"]} for number, line in enumerate(questions)]
    path.write_text("".join(json.dumps(line) + "\n" for line in filled))
    return path, len(filled)


def failed(command, *options):
    arguments = [ROOT / "target/release/anatomix-trainer", *map(str, command), *options]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "panicked" not in done.stderr, done.stderr
    return done.stderr


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_figures_are_those_of_the_answers(measured, data):
    results = measured[1]
    samples = lines(data / "marked/prepared/samples/phantom.test.jsonl")
    images = {image["id"]: image for image in lines(data / "marked/prepared/images.jsonl")}
    records = {record["image"]: record for record in lines(data / "out/upright.jsonl")[1:]}
    assert len(records) == PHANTOMS == results["images"]
    for task, column in [("anatomy_grounding", "IoU, anatomy"), ("phrase_grounding", "IoU, phrases")]:
        found = []
        for image, record in records.items():
            own = [sample for sample in samples if sample["image"] == image]
            assert len(own) == len(record["answers"])
            for sample, answer in zip(own, record["answers"]):
                if sample["task"] == task:
                    best = [max(iou(box, expected) for expected in sample["boxes"]) for box in answer.get("boxes", [])]
                    found.append(np.mean(best) if best else 0.0)
        cells = [cells[column] for row, cells in rows(results, "1", "bundle ") if row["protocol"] != "paper's"]
        assert abs(cells[0]["value"] - np.mean(found)) < 1e-6 and cells[0]["count"] == len(found)
    # The mirrored image has mirrored boxes: perception is as good there as it is.
    boxes = {"upright": [], "mirrored": []}
    for condition, found in boxes.items():
        for record in lines(data / f"out/{condition}.jsonl")[1:]:
            image = images[record["image"]]
            for box, expected in zip(record["boxes"], image["boxes"]):
                if expected:
                    x0, y0, x1, y1 = expected
                    found.append(iou(box, [image["width"] - x1, y0, image["width"] - x0, y1] if condition == "mirrored" else expected))
        cells = next(cells for row, cells in rows(results, "E1", "bundle ") if row["label"].endswith(condition))
        assert abs(cells["IoU, perception"]["value"] - np.mean(found)) < 1e-5
    assert lines(data / "out/upright.jsonl")[1]["boxes"] != lines(data / "out/unmarked.jsonl")[1]["boxes"]


def test_every_cell_is_a_figure_or_says_why_not(measured, data):
    results = measured[1]
    assert [table["id"] for table in results["tables"]] == ["1", "2", "3", "4", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "E1"]
    for table in results["tables"]:
        for row in table["rows"]:
            for cell in row["cells"]:
                assert (cell["value"] is not None) or cell["note"], (table["id"], row["label"])
                if cell["value"] is not None and not row["quoted"] and cell["interval"]:
                    assert cell["interval"][0] - 1e-9 <= cell["value"] <= cell["interval"][1] + 1e-9
    (row, cells), *_ = rows(results, "2", "AnatomiX")
    assert row["quoted"] and cells["ROUGE"]["value"] == 0.53
    (_, cells), *_ = rows(results, "2", "bundle ")
    assert cells["ROUGE"]["value"] > 0.5 and "--bertscore" in cells["BERTScore"]["note"]
    table = list(csv.DictReader((data / "out/tables.csv").read_text().splitlines()))
    assert len(table) == sum(len(own["rows"]) * len(own["columns"]) for own in results["tables"])
    text = (data / "out/tables.md").read_text()
    page = (data / "out/tables.html").read_text()
    images = set(re.findall(r'href="(images/[^"]+)"', page))
    assert images and all((data / "out" / image).read_bytes().startswith(b"\x89PNG") for image in images)
    assert page.count("<svg") > 7 and "The worst answers of report" in page and 'stroke="lime"' in page and 'stroke="red"' in page
    assert "not calibrated" in page and "<ref>" not in page
    # A task without a wrong answer has no heading.
    sections = page.split("<h2>")[1:]
    assert len(sections) > 2 and all("<figure>" in section for section in sections)
    assert text.count("## Table ") == 12 and "(quoted from the paper)" in text and "Research use" in text


def test_an_interrupted_measurement_goes_on(measured, trainer, data):
    command, results = measured
    path = data / "out/upright.jsonl"
    whole = path.read_bytes()
    kept = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:3]) + kept[3][:100])
    done = subprocess.run([ROOT / "target/release/anatomix-trainer", *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "upright: 4 images" in done.stderr and "2 were measured before" in done.stderr and "images/s" in done.stderr
    again = json.loads((data / "out/tables.json").read_text())
    assert again["tables"] == results["tables"]
    # Answers to other questions do not go on there.
    done = subprocess.run(
        [ROOT / "target/release/anatomix-trainer", *map(str, command), "--questions", "1"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "other questions" in done.stderr


def test_answers_in_the_form_of_other_models_are_scored(measured, trainer, data):
    """The bundle's own answers, written in each model's form, have almost the bundle's figures."""
    command, results = measured
    trainer(*command, *(f"--predictions={model}={answered(data, model)[0]}" for model in MODELS))
    results = json.loads((data / "out/tables.json").read_text())
    (_, own), *_ = rows(results, "1", "bundle ")
    for model in MODELS:
        (_, cells), *_ = rows(results, "1", model)
        for column in ["IoU, anatomy", "IoU, phrases"]:
            if model == "radialog":
                assert cells[column]["value"] is None
            elif model == "maira2":
                # What is outside of the central square is cut.
                assert cells[column]["value"] > 0.5
            else:
                assert abs(cells[column]["value"] - own[column]["value"]) < 0.04, (model, column)
        assert cells["ROUGE, captioning"]["value"] == own["ROUGE, captioning"]["value"]
        assert rows(results, "E1", f"{model}, mirrored")
    head = (data / "out/tables.md").read_text()
    assert "radvlm, mirrored: " in head and " 0 boxes that could not be read" in head


def test_only_what_a_model_answered_is_its_answer(measured, trainer, data):
    """The bundle's answers beside the questions are not scored as the model's, and answers are not replaced by questions."""
    command, _ = measured
    file = data / "out/radvlm.jsonl"
    assert "answers no question" in failed(command, f"--predictions=RadVLM={file}")
    path, count = answered(data, "radvlm", part=2)
    trainer(*command, f"--predictions=RadVLM={path}")
    conditions = json.loads((data / "out/tables.json").read_text())["models"][1]["conditions"]
    assert sum(own["unanswered"] for own in conditions.values()) == count // 2
    questions = file.read_bytes()
    try:
        file.write_bytes(path.read_bytes())
        error = failed(command, "--form", "MedGemma,RadVLM")
        assert f"--form radvlm would replace {file}" in error and "move that file" in error
        assert file.read_bytes() == path.read_bytes()
    finally:
        file.write_bytes(questions)


def test_answers_on_other_pictures_are_not_taken(measured, data):
    command, _ = measured
    marked, unmarked = data / "marked", data / "unmarked"
    assert json.loads((marked / "phantoms.json").read_text())["markers"]
    assert "holds phantoms with markers" in failed([arg if arg != unmarked else marked for arg in command])
    image = next(iter(lines(marked / "prepared/images.jsonl")))["path"]
    (path,) = marked.glob(f"**/{image}")
    own = path.read_bytes()
    try:
        # The same image and questions without the letters, as after painting over them.
        path.write_bytes((unmarked / path.relative_to(marked)).read_bytes())
        error = failed(command)
        assert f"{data / 'out/upright.jsonl'} is of another bundle, other images" in error
        path.write_bytes(own[:200])
        assert image in failed(command)
    finally:
        path.write_bytes(own)


def test_wrong_predictions_are_named(measured, data, tmp_path):
    command, _ = measured

    def error(given):
        return failed(command, "--predictions", given)

    path = tmp_path / "answers.jsonl"
    path.write_text('{"sample": "0123456789abcdef", "answer": "a"}\nnothing\n')
    assert f"{path} line 2" in error(f"RadVLM={path}")
    path.write_text('{"sample": "0123456789abcdef", "answer": "a"}\n')
    assert "answers no question of these data" in error(f"RadVLM={path}")
    assert "no form of answers" in error(f"GPT={path}")
    assert "MODEL=FILE" in error("RadVLM")
