"""The metrics of `anatomix-trainer score`, against the packages that they equal."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import needed

LABELS = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
]  # fmt: skip
CASES = 1000
TOLERANCE = 1e-6
WORDS = (
    "the a no is are there of left right lung lungs heart pleural effusion effusions small large unchanged pneumothorax consolidation "
    "consolidations opacity opacities edema clear normal enlarged mildly stable seen noted without with at base bases bilateral nodule "
    "nodules mass masses fractured fracture fractures tube tip terminates above carina 3.5 cm 12 mm (PICC) \"worse\" follow-up 2-view "
    "evidence evident disease diseases increased increasing decreased feet bodies better best men lying went cardiomegaly acute process "
    "impression: findings; size silhouette, &amp; <5mm it's interval change. changes, improved improvement"
).split()


WORDNET = Path("/usr/share/wordnet")


def program(root):
    return needed(root / "target/release/anatomix-trainer", "trainer")


def score(root, lines, path, *options):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = subprocess.run([program(root), "score", path, *options], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()] if "--each" in options else json.loads(run.stdout)


def texts(draw, count):
    """Texts, each with one that is like it."""
    for _ in range(count):
        text = [draw.choice(WORDS) for _ in range(draw.randrange(0, 40))]
        other = [word for word in text if draw.random() > 0.2]
        for _ in range(draw.randrange(0, 8)):
            other.insert(draw.randrange(len(other) + 1), draw.choice(WORDS))
        if draw.random() < 0.2:
            draw.shuffle(other)
        separator = draw.choice([" ", " ", "\n"])
        yield separator.join(text).capitalize(), separator.join(other)


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """WordNet's database for both sides; without it METEOR is left out."""
    if not (WORDNET / "data.noun").exists():
        return None
    folder = shutil.copytree(WORDNET, tmp_path_factory.mktemp("wordnet") / "dict")
    # NLTK reads two more files, whose content does not matter here. Debian has neither.
    (folder / "lexnames").write_text("".join(f"{number:02}\tfile\t1\n" for number in range(45)))
    (folder / "index.sense").write_text("")
    return folder


@pytest.fixture(scope="module")
def scored(root, tmp_path_factory, wordnet):
    pairs = list(texts(random.Random(1), CASES))
    options = ["--wordnet", wordnet] if wordnet else []
    lines = [{"expected": expected, "predicted": predicted} for expected, predicted in pairs]
    path = tmp_path_factory.mktemp("scores") / "texts.jsonl"
    return pairs, score(root, lines, path, "--each", *options), score(root, lines, path, "--json")["all"]


def compare(found, expected):
    worst = np.abs(np.array(found) - np.array(expected)).max()
    assert len(found) == len(expected) >= CASES and worst < TOLERANCE, worst


def test_rouge(scored):
    from rouge_score.rouge_scorer import RougeScorer

    pairs, each, _ = scored
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    expected = [scorer.score(expected, predicted) for expected, predicted in pairs]
    for name, theirs in [("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")]:
        compare([scores[name] for scores in each], [scores[theirs].fmeasure for scores in expected])


def test_bleu(scored):
    import sacrebleu

    pairs, each, whole = scored
    expected = [sacrebleu.sentence_bleu(predicted, [expected]).score / 100 for expected, predicted in pairs]
    compare([scores["bleu"] for scores in each], expected)
    corpus = sacrebleu.corpus_bleu([predicted for _, predicted in pairs], [[expected for expected, _ in pairs]]).score / 100
    assert abs(whole["bleu"]["value"] - corpus) < TOLERANCE


def test_meteor(scored, wordnet, monkeypatch):
    if not wordnet:
        pytest.skip("WordNet's database is missing (Debian's wordnet-base)")
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.translate.meteor_score import single_meteor_score

    pairs, each, _ = scored
    nltk.data.path.append(str(wordnet))
    # Otherwise NLTK looks for its own copy of WordNet, to map synsets to it.
    monkeypatch.setattr(WordNetCorpusReader, "map_wn", lambda *_: None)
    reader = WordNetCorpusReader(str(wordnet), None)
    expected = [single_meteor_score(expected.split(), predicted.split(), wordnet=reader) for expected, predicted in pairs]
    compare([scores["meteor"] for scores in each], expected)


def boxes(draw, most):
    for _ in range(draw.randrange(0, most)):
        x, y = (draw.uniform(0, 900) for _ in range(2))
        yield [float(np.float32(v)) for v in (x, y, x + draw.uniform(1, 400), y + draw.uniform(1, 400))]


def near(draw, box):
    return sorted_box([float(np.float32(v + draw.gauss(0, 20))) for v in box])


def sorted_box(box):
    return [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]


def test_average_precision_and_iou(root, tmp_path):
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    draw = random.Random(2)
    samples = []
    for _ in range(CASES):
        expected = list(boxes(draw, 6))
        predicted = [near(draw, box) for box in expected if draw.random() < 0.8] + list(boxes(draw, 3))
        samples.append((predicted, expected))
    lines = [{"predicted_boxes": predicted, "expected_boxes": expected} for predicted, expected in samples]
    each = score(root, lines, tmp_path / "boxes.jsonl", "--each")
    whole = score(root, lines, tmp_path / "boxes.jsonl", "--json")["all"]

    def sides(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    def precision(numbers):
        truth, found = COCO(), []
        annotations = []
        for image in numbers:
            for box in samples[image][1]:
                x, y, width, height = sides(box)
                area = {"area": width * height, "iscrowd": 0, "id": len(annotations) + 1}
                annotations.append({"image_id": image, "category_id": 1, "bbox": [x, y, width, height], **area})
            found += [{"image_id": image, "category_id": 1, "bbox": sides(box), "score": 1.0} for box in samples[image][0]]
        truth.dataset = {"images": [{"id": image} for image in numbers], "annotations": annotations, "categories": [{"id": 1}]}
        truth.createIndex()
        if not annotations:
            return None
        if not found:
            return 0.0
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.iouThrs = np.array([0.25, 0.5, 0.75, 0.95])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        return float(evaluation.eval["precision"][:, :, 0, 0, -1].mean())

    alone = [precision([number]) for number in range(CASES)]
    assert [scores.get("map") is None for scores in each] == [value is None for value in alone]
    compare([scores.get("map") or 0.0 for scores in each], [value or 0.0 for value in alone])
    assert abs(whole["map_all"]["value"] - precision(list(range(CASES)))) < TOLERANCE
    best = []
    for (predicted, expected), scores in zip(samples, each):
        if predicted:
            ious = mask.iou([sides(b) for b in predicted], [sides(b) for b in expected], [0] * len(expected)) if expected else [[0.0]]
            best.append((scores["iou"], float(np.mean([max(row) for row in ious]))))
        else:
            assert "iou" not in scores
    assert len(best) > CASES / 2 and max(abs(a - b) for a, b in best) < TOLERANCE


def test_labels_and_calibration(root, tmp_path):
    import torch
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
    from torchmetrics.functional.classification import binary_calibration_error

    draw = np.random.default_rng(3)
    applies = draw.random((CASES, len(LABELS))) < np.linspace(0.02, 0.5, len(LABELS))
    given = np.where(draw.random(applies.shape) < 0.3, draw.random(applies.shape) < 0.3, applies)
    # Some scores are equal.
    scores = np.round(np.clip(applies * 0.3 + draw.random(applies.shape) * 0.7, 0, 1), 2).astype(np.float32).astype(float)
    lines = []
    for case in range(CASES):
        names = [[name for name, has in zip(LABELS, row[case]) if has] for row in (applies, given)]
        line = {"patient": str(case // 3), "expected_labels": names[0], "predicted_labels": names[1]}
        lines.append({**line, "label_scores": dict(zip(LABELS, scores[case].tolist()))})
    figures = score(root, lines, tmp_path / "labels.jsonl", "--json")["all"]
    for average in ["macro", "micro", "weighted"]:
        assert abs(figures[f"f1_{average}"]["value"] - f1_score(applies, given, average=average)) < TOLERANCE
    assert abs(figures["accuracy"]["value"] - accuracy_score(applies, given)) < TOLERANCE
    assert abs(figures["auroc"]["value"] - roc_auc_score(applies, scores, average="macro")) < TOLERANCE
    error = binary_calibration_error(torch.tensor(scores.ravel()), torch.tensor(applies.ravel().astype(int)), n_bins=15)
    assert abs(figures["calibration_error"]["value"] - float(error)) < TOLERANCE
    # The intervals hold the figures, and follow from the seed.
    for figure in figures.values():
        assert figure["interval"][0] < figure["value"] < figure["interval"][1] and figure["count"] == CASES
    again = score(root, lines, tmp_path / "labels.jsonl", "--json")["all"]
    other = score(root, lines, tmp_path / "labels.jsonl", "--json", "--seed", "1")["all"]
    assert figures == again and figures["auroc"]["interval"] != other["auroc"]["interval"]


def test_wrong_files_are_named(root, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"expected": "a", "predicted": "b"}\n{"expected": 1}\n')
    run = subprocess.run([program(root), "score", path], capture_output=True, text=True)
    assert run.returncode == 1 and "line 2" in run.stderr
    run = subprocess.run([program(root), "score", path, "--wordnet", tmp_path], capture_output=True, text=True)
    assert run.returncode == 1
    path.write_text('{"expected": "a", "predicted": "b"}\n')
    run = subprocess.run([program(root), "score", path, "--wordnet", tmp_path], capture_output=True, text=True)
    assert run.returncode == 1 and "adj.exc" in run.stderr and "WordNet" in run.stderr
