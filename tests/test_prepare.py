"""`anatomix-trainer prepare` over a miniature of the eight data sets: counts, boxes and texts, then one damage after the other."""

import collections
import gzip
import hashlib
import json
import re
import shutil
import subprocess

import eight_sources
import pydicom
import pytest
from conftest import ROOT, iou, needed

SETS = {
    "mimic_vqa": ["closed_question", "open_question"],
    "radialog_instruct": ["closed_question", "open_question"],
    "slake": ["closed_question", "open_question"],
    "anatomy_grounding": ["anatomy_grounding"],
    "mscxr": ["grounded_captioning", "grounded_diagnosis", "phrase_grounding"],
    "vindr_instruct": ["abnormality_detection", "grounded_diagnosis", "phrase_grounding"],
    "padchest_gr": ["phrase_grounding"],
    "mimic_cxr_classification": ["classification"],
    "mimic_report_gen": ["report"],
}
BOX = re.compile(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box>")


class Prepared:
    """What is in a prepared folder."""

    def __init__(self, folder):
        self.folder = folder
        self.summary = json.loads((folder / "prepared.json").read_text())
        self.images = {image["id"]: image for image in map(json.loads, open(folder / "images.jsonl"))}
        self.skipped = [json.loads(line) for line in open(folder / "skipped.jsonl")]
        self.samples = collections.defaultdict(list)
        for path in sorted((folder / "samples").iterdir()):
            name, split, _ = path.name.split(".")
            for sample in map(json.loads, open(path)):
                assert sample["split"] == split
                self.samples[name].append(sample)

    def counts(self):
        return collections.Counter((name, s["split"]) for name, samples in self.samples.items() for s in samples)

    def grid(self, image, bounds):
        """A box in pixels on the prompt's grid over the letterboxed square, computed apart from the program."""
        width, height = self.images[image]["width"], self.images[image]["height"]
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        x0, y0, x1, y1 = bounds
        return [int((v + offset) / side * 1024 + 1e-4) for v, offset in [(x0, left), (y0, top), (x1, left), (y1, top)]]


@pytest.fixture(scope="module")
def miniature(trainer, tmp_path_factory):
    """The folder of the eight data sets, and the truth about it."""
    drawn, folder = tmp_path_factory.mktemp("drawn"), tmp_path_factory.mktemp("sources")
    trainer("phantom", "--out", drawn, "--count", eight_sources.COUNT, "--size", 128, "--dicom-every", 1)
    return folder, eight_sources.write(folder, drawn)


def prepare(folder, *options):
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")
    command = [program, "prepare", "--config", folder / "prepare.toml", "--out", folder / "out", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "panicked" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def prepared(miniature):
    """The prepared folder. Nothing in the miniature is damaged, so `--strict` accepts it."""
    done = prepare(miniature[0], "--strict", "--json")
    assert done.returncode == 0, done.stderr
    prepared = Prepared(miniature[0] / "out")
    assert json.loads(done.stdout) == prepared.summary
    return prepared


def test_counts_are_those_of_the_sources(miniature, prepared):
    truth, found = miniature[1], prepared.counts()
    for name in SETS:
        if name != "vindr_instruct":
            for split in ("train", "validate", "test"):
                assert found[name, split] == truth.counts[name, split], (name, split)
    assert all(found[name, split] > 0 for name in SETS for split in ("train", "test"))
    for name, counts in prepared.summary["sets"].items():
        assert {split: count["found"] for split, count in counts.items()} == {split: found[name, split] for split in counts}
    assert prepared.summary["sets"]["anatomy_grounding"]["train"]["paper"] == 237_938
    assert {name: sorted({s["task"] for s in prepared.samples[name]}) for name in SETS} == SETS


def test_every_sample_has_its_image(prepared):
    for samples in prepared.samples.values():
        for sample in samples:
            image = prepared.images[sample["image"]]
            assert (sample["patient"], sample["study"]) == (image["patient"], image["study"])
            for x0, y0, x1, y1 in sample["boxes"] if "boxes" in sample else []:
                assert 0 <= x0 < x1 <= image["width"] and 0 <= y0 < y1 <= image["height"]
            for text in (sample["question"], sample["answer"]):
                assert text and "{" not in text


def boxes_in(text):
    return [list(map(int, corners)) for corners in BOX.findall(text)]


def test_boxes_in_texts_follow_the_letterbox(prepared):
    seen = collections.Counter()
    for name, samples in prepared.samples.items():
        for sample in samples:
            found = boxes_in(sample["question"] + sample["answer"])
            for one, bounds in zip(found, sample.get("boxes", []), strict=True):
                expected = prepared.grid(sample["image"], bounds)
                assert all(abs(a - b) <= 1 for a, b in zip(one, expected)), (sample, expected)
                seen[name] += 1
    assert all(seen[name] > 10 for name in ("anatomy_grounding", "mscxr", "vindr_instruct", "padchest_gr")), seen
    sides = {(image["width"], image["height"]) for image in prepared.images.values()}
    assert any(width != height for width, height in sides), "the letterbox is tested on images that are not square"


def same_boxes(found, expected, tolerance=0.02):
    found, expected = sorted(found), sorted(expected)
    assert len(found) == len(expected), (found, expected)
    assert all(abs(a - b) < tolerance for one, other in zip(found, expected) for a, b in zip(one, other)), (found, expected)


def phrases(prepared, name):
    """Boxes of phrase grounding by image and phrase."""
    grounded = [s for s in prepared.samples[name] if s["task"] == "phrase_grounding"]
    found = {(s["image"].split("/")[1], re.search("<ref>(.*?)</ref>", s["answer"])[1]): s["boxes"] for s in grounded}
    assert len(found) == len(grounded)
    return found


@pytest.mark.parametrize("name", ["mscxr", "padchest_gr"])
def test_every_box_of_a_phrase_is_kept(miniature, prepared, name):
    truth = {"mscxr": miniature[1].mscxr, "padchest_gr": miniature[1].padchest}[name]
    found = phrases(prepared, name)
    assert found.keys() == truth.keys()
    assert any(len(boxes) > 1 for boxes in truth.values()), "no finding has several boxes"
    for key, boxes in truth.items():
        same_boxes(found[key], boxes)


def test_vindr_boxes_of_several_radiologists_are_merged(miniature, prepared):
    found, truth = phrases(prepared, "vindr_instruct"), miniature[1].vindr
    assert found.keys() == {(image, name) for image, (_, findings) in truth.items() for name in findings}
    for image, (size, findings) in truth.items():
        own = prepared.images[f"vindr_cxr/{image}"]
        assert (own["width"], own["height"]) == size
        for name, boxes in findings.items():
            same_boxes(found[image, name], boxes, 0.001)
    detected = [s for s in prepared.samples["vindr_instruct"] if s["task"] == "abnormality_detection"]
    assert len(detected) == sum(sum(map(len, findings.values())) <= 5 for _, findings in truth.values())
    for sample in detected:
        findings = truth[sample["image"].split("/")[1]][1]
        assert set(re.findall("<ref>(.*?)</ref>", sample["answer"])) == set(findings)
        assert findings or sample["answer"] == "No finding"
    # The validation images follow from their names: they are the same in each run, whatever is added or removed.
    for image, (_, _) in truth.items():
        share = int.from_bytes(hashlib.sha256(f"2025 validation {image}".encode()).digest()[:4], "big") / 0xFFFFFFFF
        expected = "validate" if share < 0.1 else "train"
        assert prepared.images[f"vindr_cxr/{image}"]["split"] in (expected, "test")


@pytest.mark.parametrize("name", ["vindr_instruct", "mscxr"])
def test_wrong_options_are_absent_from_the_image(miniature, prepared, name):
    present = collections.defaultdict(set)
    for image, (_, findings) in miniature[1].vindr.items():
        present[f"vindr_cxr/{image}"] |= set(findings)
    for phantom in miniature[1].phantoms:
        present[f"mimic_cxr_jpg/{phantom.dicom}"] |= {diagnosis for _, diagnosis, _ in phantom.findings()}
    offered = 0
    for sample in prepared.samples[name]:
        options = dict(re.findall(r"\(([A-Z])\) (.*?)(?= \([A-Z]\)| Answer|$)", sample["question"]))
        if sample["task"] != "grounded_diagnosis" or not options:
            continue
        offered += 1
        right = options.pop(re.match(r"\(?([A-Z])\b", sample["answer"])[1])
        assert right in present[sample["image"]], sample
        assert options and not set(options.values()) & present[sample["image"]], sample
    assert offered > 3


def test_structures_are_as_in_the_scene_graphs(miniature, prepared):
    masked = 0
    for phantom in miniature[1].phantoms[: len(eight_sources.MIMIC)]:
        graph = miniature[1].graphs[phantom.dicom]
        image = prepared.images[f"mimic_cxr_jpg/{phantom.dicom}"]
        assert len(image["boxes"]) == len(image["sentences"]) == 36
        found = [box for box in image["boxes"] if box is not None]
        corners = [[o[f"original_{c}"] for c in ("x1", "y1", "x2", "y2")] for o in graph["objects"]]
        same_boxes(found, corners)
        masked += 36 - len(found)
        # Each finding that is asserted is in the sentence of its structure, once.
        terms = [{t.split("|")[2] for t in a["attributes"][0]} for a in graph["attributes"]]
        shown = [s[:-1].split(" shows ")[1].split(" and ") for s in image["sentences"] if s is not None and " shows " in s]
        assert sorted(map(sorted, shown)) == sorted(map(sorted, terms))
    assert masked > 0, "no structure is missing, so that masks are not tested"


def test_structures_are_asked_for_equally_often(prepared):
    asked = collections.Counter(re.search("<ref>(.*?)</ref>", s["answer"])[1] for s in prepared.samples["anatomy_grounding"])
    assert max(asked.values()) <= 3, asked
    for sample in prepared.samples["anatomy_grounding"]:
        [bounds] = sample["boxes"]
        assert bounds in prepared.images[sample["image"]]["boxes"]


def test_labels_have_four_states(miniature, prepared):
    values = collections.Counter()
    for phantom in miniature[1].phantoms[: len(eight_sources.MIMIC)]:
        labels = prepared.images[f"mimic_cxr_jpg/{phantom.dicom}"].get("labels")
        if phantom.seed == eight_sources.UNLABELLED:
            assert labels is None
            continue
        values.update(labels)
    assert set(values) == {1, 0, -1, None}
    for sample in prepared.samples["mimic_cxr_classification"]:
        labels = prepared.images[sample["image"]]["labels"]
        assert len(sample["answer"].split(", ")) == labels.count(1)


def test_no_patient_is_in_two_splits(miniature, prepared):
    splits = collections.defaultdict(set)
    for samples in prepared.samples.values():
        for sample in samples:
            splits[sample["patient"]].add(sample["split"])
    for image in prepared.images.values():
        if image["split"] is not None:
            splits[image["patient"]].add(image["split"])
    assert all(len(own) == 1 for own in splits.values())
    # MS-CXR tests on a patient of the training split of MIMIC-CXR.
    held = miniature[1].phantoms[eight_sources.MSCXR_TEST]
    assert splits[f"mimic_cxr_jpg/{held.subject}"] == {"test"}
    assert prepared.images[f"mimic_cxr_jpg/{held.dicom}"]["split"] is None
    assert prepared.summary["patients_in_several_splits"]["mimic_cxr_jpg train, mscxr test"] == 1
    assert prepared.summary["skipped"]["held_out"]["count"] > 1
    # RaDialog-Instruct has no split of its own: it follows that of MIMIC-CXR.
    expected = {f"mimic_cxr_jpg/{p.dicom}": p.split for p in miniature[1].phantoms}
    assert all(s["split"] == expected[s["image"]] for s in prepared.samples["radialog_instruct"])


def test_sentences_come_from_the_validation_split(prepared):
    sentences = json.loads((prepared.folder / "sentences.json").read_text())
    expected = [set() for _ in range(36)]
    for image in prepared.images.values():
        if image["split"] == "validate":
            for own, sentence in zip(expected, image.get("sentences", [])):
                own |= {sentence} - {None}
    assert sentences == [sorted(own) for own in expected]
    assert prepared.summary["sentences"] == sum(map(len, sentences)) > 36


def test_turns_keep_those_before_them(prepared):
    samples = prepared.samples["radialog_instruct"]
    second = [s for s in samples if "history" in s]
    assert len(second) * 2 == len(samples)
    for sample in second:
        [[question, answer]] = sample["history"]
        assert {"question": question, "answer": answer}.items() <= next(
            s for s in samples if s["image"] == sample["image"] and "history" not in s
        ).items()
        assert "<image>" not in question and sample["task"] == "closed_question"


def test_left_out_rows_are_counted(prepared):
    counts = {reason: entry["count"] for reason, entry in prepared.summary["skipped"].items()}
    assert counts["no_scene_graph"] == len(eight_sources.WITH_LATERAL)
    assert counts["no_labels"] == counts["report_incomplete"] == 1
    assert counts["other_language"] == counts["other_image"] > 0
    assert all(entry["outcome"] == "left_out" for entry in prepared.summary["skipped"].values())


def test_equal_runs_give_equal_bytes(miniature, prepared, tmp_path):
    program, config = ROOT / "target/release/anatomix-trainer", miniature[0] / "prepare.toml"
    subprocess.run([program, "prepare", "--config", config, "--out", tmp_path / "again"], check=True, capture_output=True)
    files = sorted(path.relative_to(prepared.folder) for path in prepared.folder.rglob("*") if path.is_file())
    assert len(files) > 20
    for name in files:
        assert (prepared.folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_source_alone_is_enough(miniature, tmp_path):
    config = f'[sources]\nslake = "{miniature[0] / "slake"}"\n'
    (tmp_path / "prepare.toml").write_text(config)
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not configured: chest_imagenome, mimic_cxr_jpg, ms_cxr, vindr_cxr, padchest_gr, mimic_cxr_vqa" in done.stdout
    assert [path.name for path in sorted((tmp_path / "out/samples").iterdir())] == [
        "slake.test.jsonl",
        "slake.train.jsonl",
        "slake.validate.jsonl",
    ]
    # What others put there is not deleted.
    (tmp_path / "out/notes.txt").write_text("mine")
    done = prepare(tmp_path)
    assert done.returncode == 1 and "notes.txt" in done.stderr and (tmp_path / "out/notes.txt").exists()


def test_published_splits_can_be_kept(miniature, tmp_path):
    text = (miniature[0] / "prepare.toml").read_text().replace('= "', f'= "{miniature[0]}/')
    (tmp_path / "prepare.toml").write_text(f'on_leak = "keep"\n{text}')
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    kept = Prepared(tmp_path / "out")
    held = miniature[1].phantoms[eight_sources.MSCXR_TEST]
    assert kept.images[f"mimic_cxr_jpg/{held.dicom}"]["split"] == "train"
    assert "held_out" not in kept.summary["skipped"]
    assert kept.summary["patients_in_several_splits"]["mimic_cxr_jpg train, mscxr test"] == 1


# Damages: file (of the last training phantom of MIMIC-CXR if it has one), what is done to it, the reason, and a part of the detail.
def text(change):
    return lambda path: path.write_text(change(path.read_text()))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def entries(change):
    def apply(path):
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return apply


def packed(change):
    return lambda path: path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))


def without_column(name):
    return lambda content: content.replace(name, "other", 1)


def second_row(change):
    """Changes the first row after the header."""

    def apply(content):
        header, row, rest = content.split("\n", 2)
        return "\n".join([header, change(row.rstrip("\r")), rest])

    return apply


def cell(at, value):
    return second_row(lambda row: ",".join([*row.split(",")[:at], value, *row.split(",")[at + 1 :]]))


def compress(path):
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)


SPLIT, CHEXPERT = "mimic-cxr-jpg/mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-jpg/mimic-cxr-2.0.0-chexpert.csv.gz"
MSCXR, TRAIN = "ms-cxr/MS_CXR_Local_Alignment_v1.1.0.csv", "vindr-cxr/annotations/annotations_train.csv"
PADCHEST, MASTER = "padchest-gr/grounded_reports_20240819.json", "padchest-gr/master_table.csv"
RADIALOG = "radialog/mimic_cxr_instruct_llava_v2.json"
GRAPH, JPEG, REPORT, DICOM, PNG = "GRAPH", "JPEG", "REPORT", "vindr-cxr/train/*.dicom", "padchest-gr/images/*.png"
DAMAGES = {
    "split without a column": (SPLIT, packed(without_column("study_id")), "column_missing", "no column study_id"),
    "split cut": (SPLIT, cut, "file_unreadable", ""),
    "split missing": (SPLIT, lambda path: path.unlink(), "file_unreadable", "No such file"),
    "split row twice": (SPLIT, packed(second_row(lambda row: f"{row}\n{row}")), "row_repeated", ""),
    "split row short": (SPLIT, packed(second_row(lambda row: "a,b")), "row_malformed", "2 fields, the header 4"),
    "split of another name": (SPLIT, packed(cell(3, "holdout")), "row_malformed", "holdout"),
    "image name leads elsewhere": (SPLIT, packed(cell(0, "../../x")), "name_unsafe", "../../x"),
    "label of another value": (CHEXPERT, packed(cell(2, "maybe")), "row_malformed", "maybe"),
    "labels without a column": (CHEXPERT, packed(without_column("Pneumonia")), "column_missing", "Pneumonia"),
    "scene graph cut": (GRAPH, cut, "file_unreadable", "not a scene graph"),
    "scene graph with NaN": (GRAPH, entries(lambda g: g["objects"][0].update(original_x1=float("nan"))), "box_invalid", "NaN"),
    "structure outside": (GRAPH, entries(lambda g: g["objects"][1].update(original_x1=4e3, original_x2=5e3)), "box_invalid", "outside"),
    "structure twice": (GRAPH, entries(lambda g: g["objects"].append(g["objects"][0])), "row_repeated", ""),
    "scene graph of another image": (
        GRAPH,
        entries(lambda g: [o.update(original_width=4000) for o in g["objects"]]),
        "image_other",
        "4000",
    ),
    "image missing": (JPEG, lambda path: path.unlink(), "image_missing", ""),
    "image is no image": (JPEG, lambda path: path.write_text("<html>"), "image_unreadable", ""),
    "report missing": (REPORT, lambda path: path.unlink(), "report_missing", ""),
    "report with a token": (REPORT, text(lambda t: t.replace("FINDINGS:", "FINDINGS: <end_of_turn>")), "text_unsafe", "<end_of_turn>"),
    "phrase without a column": (MSCXR, text(without_column("label_text")), "column_missing", "label_text"),
    "phrase box is NaN": (MSCXR, text(cell(3, "nan")), "box_invalid", "not a number"),
    "phrase box is a word": (MSCXR, text(cell(3, "left")), "row_malformed", "left"),
    "phrase box outside": (MSCXR, text(cell(3, "9999")), "box_invalid", "outside"),
    "phrase of an unknown image": (MSCXR, text(cell(7, "unknown")), "image_unknown", "unknown"),
    "phrase of another size": (MSCXR, text(cell(8, "9999")), "image_other", "9999"),
    "boxes without an end": (
        TRAIN,
        text(lambda t: t + "".join(f"{t.splitlines()[1].split(',')[0]},R1,Mass,{i},5,{i + 9}.5,50\n" for i in range(3000))),
        "row_malformed",
        "boxes on one image",
    ),
    "table missing": (TRAIN, lambda path: path.unlink(), "file_unreadable", ""),
    "DICOM missing": (DICOM, lambda path: path.unlink(), "image_missing", ""),
    "DICOM cut in its header": (DICOM, lambda path: path.write_bytes(path.read_bytes()[:400]), "image_unreadable", ""),
    "reports cut": (PADCHEST, cut, "file_unreadable", "entries were read"),
    "report entry of another form": (PADCHEST, entries(lambda e: e.insert(0, {"StudyID": 3})), "row_malformed", ""),
    "report box of three numbers": (
        PADCHEST,
        entries(lambda e: e[0]["findings"][0]["boxes"].append([1, 2, 3])),
        "box_invalid",
        "3 numbers",
    ),
    "report box is NaN": (PADCHEST, entries(lambda e: e[0]["findings"][0]["boxes"].append([float("nan")] * 4)), "box_invalid", ""),
    "study in two splits": (MASTER, text(cell(3, "test")), "row_malformed", "is in the split test, too"),
    "picture missing": (PNG, lambda path: path.unlink(), "image_missing", ""),
    "questions cut": ("slake/train.json", cut, "file_unreadable", "entries were read"),
    "question twice": ("mimic-cxr-vqa/train.json", entries(lambda e: e.append(e[0])), "row_repeated", ""),
    "answer is a number": ("mimic-cxr-vqa/train.json", entries(lambda e: e[0].update(answer=3)), "row_malformed", "answer"),
    "conversation without an answer": (RADIALOG, entries(lambda e: e[0]["conversations"].pop()), "row_malformed", "one after the other"),
}


def damaged_file(folder, truth, name):
    phantom = next(p for p in truth.phantoms if p.seed == 2)
    named = {
        GRAPH: f"chest-imagenome/silver_dataset/scene_graph/{phantom.dicom}_SceneGraph.json",
        JPEG: f"mimic-cxr-jpg/files/{phantom.path}/{phantom.dicom}.jpg",
        REPORT: f"mimic-cxr/files/{phantom.path}.txt",
    }
    return sorted(folder.glob(named.get(name, name)))[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_rest_is_used(miniature, prepared, tmp_path, damage):
    name, change, reason, detail = DAMAGES[damage]
    folder = tmp_path / "sources"
    shutil.copytree(miniature[0], folder, ignore=shutil.ignore_patterns("out"))
    path = damaged_file(folder, miniature[1], name)
    change(path)
    done = prepare(folder)
    assert done.returncode == 0, done.stderr
    found = Prepared(folder / "out")
    own = [e for e in found.skipped if e["reason"] == reason and e["file"] in (str(path), str(path).removesuffix(".gz"))]
    assert own and any(detail in e["detail"] for e in own), found.skipped[:5]
    assert found.summary["skipped"][reason]["outcome"] == "skipped"
    # Of the sources that the file does not belong to, everything is there.
    lost = prepared.counts() - found.counts()
    # Without a table of splits, or with other ones, patients are held out of less, and the reason says so.
    assert not found.counts() - prepared.counts() or name in (SPLIT, MSCXR, MASTER)
    mimic = {"mimic_vqa", "radialog_instruct", "mscxr", "anatomy_grounding", "mimic_cxr_classification", "mimic_report_gen"}
    allowed = {"vindr-cxr": {"vindr_instruct"}, "padchest-gr": {"padchest_gr"}, "slake": {"slake"}}
    assert {key[0] for key in lost} <= allowed.get(path.relative_to(folder).parts[0], mimic)
    # --strict stops there, with file and reason, and writes nothing.
    shutil.rmtree(folder / "out")
    strict = prepare(folder, "--strict")
    assert strict.returncode == 1 and str(path).removesuffix(".gz") in strict.stderr and ";" in strict.stderr
    assert not (folder / "out").exists()


def test_compressed_dicom_and_plain_tables_are_read(miniature, prepared, tmp_path):
    folder = tmp_path / "sources"
    shutil.copytree(miniature[0], folder, ignore=shutil.ignore_patterns("out"))
    for path in (folder / "vindr-cxr/train").iterdir():
        compress(path)
    for name in (SPLIT, CHEXPERT):
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress((folder / name).read_bytes()))
        (folder / name).unlink()
    packed_table = folder / f"{TRAIN}.gz"
    packed_table.write_bytes(gzip.compress((folder / TRAIN).read_bytes()))
    (folder / TRAIN).unlink()
    done = prepare(folder, "--strict")
    assert done.returncode == 0, done.stderr
    assert Prepared(folder / "out").counts() == prepared.counts()


def test_smaller_copies_of_images_are_used(miniature, prepared, tmp_path):
    """MIMIC-CXR-JPG is often kept in a smaller size: boxes follow."""
    from PIL import Image

    folder = tmp_path / "sources"
    shutil.copytree(miniature[0], folder, ignore=shutil.ignore_patterns("out"))
    for path in (folder / "mimic-cxr-jpg/files").rglob("*.jpg"):
        image = Image.open(path)
        image.resize((image.width // 2, image.height // 2)).save(path)
    done = prepare(folder, "--strict")
    assert done.returncode == 0, done.stderr
    small = Prepared(folder / "out")
    assert small.counts() == prepared.counts()
    for key, image in small.images.items():
        if image["source"] == "mimic_cxr_jpg":
            full = prepared.images[key]
            for box, whole in zip(image.get("boxes", []), full.get("boxes", []), strict=True):
                assert (box is None) == (whole is None)
                assert box is None or iou([2 * v for v in box], whole) > 0.7
