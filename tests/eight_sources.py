"""A miniature of the eight data sets of the paper in their published file layouts, drawn from phantoms.

`write(folder, phantoms)` takes the folder that `anatomix-trainer phantom` drew, with a DICOM file for each seed, and returns what it wrote,
as the truth that tests compare with. Names of patients and images are made up.
"""

import csv
import gzip
import hashlib
import json
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

# Phantoms of each source of images. Their seeds decide the splits of MIMIC-CXR: 0 and 20 for validation, 1 and 21 for test.
MIMIC, VINDR_TRAIN, VINDR_TEST, PADCHEST, SLAKE = range(24), range(24, 40), range(41, 45), range(45, 53), range(53, 59)
COUNT = 59
# Seeds of MIMIC-CXR with a peculiarity.
UNLABELLED, INCOMPLETE, WITH_LATERAL, MSCXR_TEST, MASKED = 5, 6, range(2, 24, 3), 13, 8
SPLITS = {"validate": "valid"}


@dataclass
class Phantom:
    seed: int
    folder: Path
    samples: list
    labels: dict

    @property
    def name(self):
        return f"phantom-{self.seed:07}"

    @property
    def image(self):
        return self.folder / f"images/{self.name}.png"

    @property
    def size(self):
        return Image.open(self.image).size

    @property
    def split(self):
        return {0: "validate", 1: "test"}.get(self.seed % 20, "train")

    # Names as MIMIC-CXR has them.
    @property
    def dicom(self):
        digest = hashlib.sha256(self.name.encode()).hexdigest()
        return "-".join(digest[at : at + 8] for at in range(0, 40, 8))

    @property
    def subject(self):
        return f"{10_000_032 + self.seed * 1009}"

    @property
    def study(self):
        return f"{50_414_267 + self.seed}"

    @property
    def path(self):
        return f"p{self.subject[:2]}/p{self.subject}/s{self.study}"

    def findings(self):
        """Phrase, diagnosis and boxes in pixels of each finding. Most phantoms have one box a finding: every third gets another."""
        grounded = [s for s in self.samples if s["task"] in ("phrase_grounding", "grounded_diagnosis")]
        for phrase, diagnosis in zip(grounded[::2], grounded[1::2]):
            boxes = phrase["boxes"] + ([[1.0, 2.0, 9.5, 12.0]] if self.seed % 3 == 0 else [])
            yield re.search("<ref>(.*?)</ref>", phrase["answer"])[1], diagnosis["answer"], boxes


@dataclass
class Truth:
    """What a correct reader finds."""

    counts: dict = field(default_factory=lambda: defaultdict(int))
    # Boxes in pixels by image and phrase.
    mscxr: dict = field(default_factory=dict)
    vindr: dict = field(default_factory=dict)
    padchest: dict = field(default_factory=dict)
    # Scene graphs by image.
    graphs: dict = field(default_factory=dict)
    phantoms: list = field(default_factory=list)


def phantoms(folder):
    samples, labels = defaultdict(list), {}
    for line in (folder / "instruct.jsonl").read_text().splitlines():
        sample = json.loads(line)
        samples[sample["image"]].append(sample)
    with open(folder / "mimic-cxr-2.0.0-chexpert.csv", newline="") as file:
        for row in csv.DictReader(file):
            labels[row["study_id"]] = row
    named = [f"phantom-{seed:07}" for seed in range(COUNT)]
    return [Phantom(seed, folder, samples[name], labels[name]) for seed, name in enumerate(named)]


def table(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def listing(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=1))


def jpeg(source, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).save(path, quality=95)


def write(folder, drawn):
    truth = Truth(phantoms=phantoms(drawn))
    of = lambda seeds: [truth.phantoms[seed] for seed in seeds]
    mimic(folder, of(MIMIC), truth)
    ms_cxr(folder / "ms-cxr", of(MIMIC), truth)
    mimic_vqa(folder / "mimic-cxr-vqa", of(MIMIC), truth)
    radialog(folder / "radialog", of(MIMIC), truth)
    vindr(folder / "vindr-cxr", of(VINDR_TRAIN), of(VINDR_TEST), truth)
    padchest(folder / "padchest-gr", of(PADCHEST), truth)
    slake(folder / "slake", of(SLAKE), truth)
    (folder / "prepare.toml").write_text(
        "[sources]\n"
        'chest_imagenome = "chest-imagenome"\nmimic_cxr_jpg = "mimic-cxr-jpg"\nmimic_cxr_reports = "mimic-cxr"\n'
        'ms_cxr = "ms-cxr"\nvindr_cxr = "vindr-cxr"\npadchest_gr = "padchest-gr"\nslake = "slake"\n'
        'mimic_cxr_vqa = "mimic-cxr-vqa"\nradialog_instruct = "radialog"\n'
    )
    return truth


def held_out(phantom):
    """Whether a patient of the training split is in the test split of MS-CXR."""
    return phantom.seed == MSCXR_TEST


def mimic(folder, own, truth):
    images, labels = folder / "mimic-cxr-jpg", []
    splits = []
    for phantom in own:
        jpeg(phantom.image, images / f"files/{phantom.path}/{phantom.dicom}.jpg")
        splits.append([phantom.dicom, phantom.study, phantom.subject, phantom.split])
        if phantom.seed in WITH_LATERAL:
            lateral = phantom.dicom[::-1]
            jpeg(phantom.image, images / f"files/{phantom.path}/{lateral}.jpg")
            splits.append([lateral, phantom.study, phantom.subject, phantom.split])
        values = {name: value for name, value in phantom.labels.items() if name not in ("study_id", "subject_id")}
        # Phantoms leave all blank that is not positive; MIMIC-CXR has negative and uncertain labels, too.
        values["Pneumothorax"] = values["Pneumothorax"] or "0.0"
        values["Edema"] = values["Edema"] or "-1.0"
        if phantom.seed != UNLABELLED:
            labels.append([phantom.subject, phantom.study, *values.values()])
        graph = json.loads((phantom.folder / f"silver_dataset/scene_graph/{phantom.name}_SceneGraph.json").read_text())
        graph |= {"image_id": phantom.dicom, "patient_id": int(phantom.subject), "study_id": int(phantom.study)}
        if phantom.seed == MASKED:
            healthy = {o["name"] for o in graph["objects"]} - {a["name"] for a in graph["attributes"]}
            graph["objects"] = [o for o in graph["objects"] if o["name"] not in sorted(healthy)[:3]]
        truth.graphs[phantom.dicom] = graph
        listing(folder / f"chest-imagenome/silver_dataset/scene_graph/{phantom.dicom}_SceneGraph.json", graph)
        text = (phantom.folder / f"reports/{phantom.name}.txt").read_text()
        findings, impression = re.search(r"FINDINGS: (.*)\n\nIMPRESSION: (.*)\n", text).groups()
        report = folder / f"mimic-cxr/files/{phantom.path}.txt"
        report.parent.mkdir(parents=True, exist_ok=True)
        parts = [" " * 33 + "FINAL REPORT", " EXAMINATION:  CHEST (PA AND LAT)", "", f" FINDINGS:  {findings}", ""]
        if phantom.seed != INCOMPLETE:
            parts += [" IMPRESSION: ", "", f" {impression}"]
        report.write_text("\n".join(parts) + "\n")
        if not held_out(phantom):
            truth.counts["anatomy_grounding", phantom.split] += 1
            positive = "1.0" in values.values() and phantom.seed != UNLABELLED
            truth.counts["mimic_cxr_classification", phantom.split] += positive
            truth.counts["mimic_report_gen", phantom.split] += phantom.seed != INCOMPLETE
    table(images / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], splits)
    names = [name for name in own[0].labels if name not in ("study_id", "subject_id")]
    table(images / "mimic-cxr-2.0.0-chexpert.csv.gz", ["subject_id", "study_id", *names], labels)


def ms_cxr(folder, own, truth):
    rows = []
    for phantom in own:
        width, height = phantom.size
        for phrase, category, boxes in phantom.findings():
            split = "test" if held_out(phantom) else {"validate": "val"}.get(phantom.split, phantom.split)
            for x0, y0, x1, y1 in boxes:
                place = [round(x0, 3), round(y0, 3), round(x1 - x0, 3), round(y1 - y0, 3)]
                path = f"files/{phantom.path}/{phantom.dicom}.jpg"
                rows.append([category, phrase, path, *place, phantom.dicom, width, height, split])
            truth.mscxr[phantom.dicom, phrase] = boxes
            truth.counts["mscxr", {"val": "validate"}.get(split, split)] += 3
    header = ["category_name", "label_text", "path", "x", "y", "w", "h", "dicom_id", "image_width", "image_height", "split"]
    table(folder / "MS_CXR_Local_Alignment_v1.1.0.csv", header, rows)


def mimic_vqa(folder, own, truth):
    entries = defaultdict(list)
    for phantom in own:
        asked = set()
        for sample in phantom.samples:
            kind = {"closed_question": "verify", "open_question": "query"}.get(sample["task"])
            if kind is None or sample["question"] in asked:
                continue
            asked.add(sample["question"])
            # No answer is an empty list.
            answer = [] if sample["answer"] == "None." else [sample["answer"].lower()]
            own_names = {"subject_id": int(phantom.subject), "study_id": int(phantom.study), "image_id": phantom.dicom}
            text = {"question": sample["question"], "content_type": "presence", "semantic_type": kind, "answer": answer}
            path = f"{phantom.path}/{phantom.dicom}.jpg"
            entries[phantom.split].append({"split": phantom.split, **own_names, "image_path": path, **text})
            truth.counts["mimic_vqa", phantom.split] += not held_out(phantom)
    for split, own_entries in entries.items():
        listing(folder / f"{SPLITS.get(split, split)}.json", own_entries)


def radialog(folder, own, truth):
    entries = []
    for phantom in own:
        report = next(s for s in phantom.samples if s["task"] == "report")
        closed = next(s for s in phantom.samples if s["task"] == "closed_question")
        said = [("human", f"<image>\n{report['question']}"), ("gpt", report["answer"])]
        said += [("human", closed["question"]), ("gpt", closed["answer"])]
        turns = [{"from": who, "value": what} for who, what in said]
        image = f"{phantom.path}/{phantom.dicom}.jpg"
        entries.append({"id": f"{phantom.study}_1", "image": image, "conversations": turns, "task_type": "binary"})
        truth.counts["radialog_instruct", phantom.split] += 2 * (not held_out(phantom))
    listing(folder / "mimic_cxr_instruct_llava_v2.json", entries)


def vindr(folder, train, test, truth):
    rows = {"train": [], "test": []}
    for split, own in (("train", train), ("test", test)):
        for phantom in own:
            image = hashlib.md5(phantom.name.encode()).hexdigest()
            (folder / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(phantom.folder / f"dicom/{phantom.name}.dcm", folder / split / f"{image}.dicom")
            found = {diagnosis: boxes for _, diagnosis, boxes in phantom.findings() if len(boxes) <= 2}
            truth.vindr[image] = (phantom.size, found)
            for reader in ["R8", "R9", "R10"] if split == "train" else [None]:
                named = [image] if reader is None else [image, reader]
                # One radiologist draws smaller boxes: the merged ones are the hull, that of the others.
                inset = 1 if reader == "R10" else 0
                for diagnosis, boxes in found.items():
                    for x0, y0, x1, y1 in boxes:
                        rows[split].append([*named, diagnosis, x0 + inset, y0 + inset, x1 - inset, y1 - inset])
                if not found:
                    rows[split].append([*named, "No finding", "", "", "", ""])
    header = ["class_name", "x_min", "y_min", "x_max", "y_max"]
    table(folder / "annotations/annotations_train.csv", ["image_id", "rad_id", *header], rows["train"])
    table(folder / "annotations/annotations_test.csv", ["image_id", *header], rows["test"])


def padchest(folder, own, truth):
    entries, rows = [], []
    (folder / "images").mkdir(parents=True)
    for phantom in own:
        split = ["train", "validation", "test"][max(0, phantom.seed - PADCHEST[-3])]
        image, (width, height) = f"{phantom.seed}_00-014-026.png", phantom.size
        shutil.copy(phantom.image, folder / "images" / image)
        findings = []
        for phrase, diagnosis, boxes in phantom.findings():
            fractions = [[x0 / width, y0 / height, x1 / width, y1 / height] for x0, y0, x1, y1 in boxes]
            text = {"sentence_en": f"{phrase}.", "sentence_es": "", "abnormal": True, "labels": [diagnosis], "locations": []}
            findings.append(text | {"boxes": fractions})
            truth.padchest[image, phrase] = boxes
            truth.counts["padchest_gr", {"validation": "validate"}.get(split, split)] += 1
        findings.append({"sentence_en": "No pneumothorax.", "abnormal": False, "boxes": [], "labels": [], "locations": []})
        entries.append({"StudyID": f"study{phantom.seed}", "ImageID": image, "findings": findings})
        rows += [[f"study{phantom.seed}", image, finding["sentence_en"], split] for finding in findings]
    listing(folder / "grounded_reports_20240819.json", entries)
    table(folder / "master_table.csv", ["StudyID", "ImageID", "label", "split"], rows)


def slake(folder, own, truth):
    entries = defaultdict(list)
    for phantom in own:
        split = ["train", "validate", "test"][max(0, phantom.seed - SLAKE[-3])]
        image = f"xmlab{phantom.seed}/source.jpg"
        jpeg(phantom.image, folder / "imgs" / image)
        questions = [s for s in phantom.samples if s["task"] in ("closed_question", "open_question")]
        for number, sample in enumerate(questions):
            kind = sample["task"].split("_")[0].upper()
            entry = {"img_id": phantom.seed, "img_name": image, "question": sample["question"], "answer": sample["answer"]}
            entry |= {"q_lang": "en", "location": "Lung", "modality": "X-Ray", "answer_type": kind, "base_type": "vqa"}
            entry |= {"content_type": "Abnormality", "qid": number}
            entries[split] += [entry, entry | {"q_lang": "zh"}, entry | {"modality": "CT", "img_name": "xmlab999/source.jpg"}]
        truth.counts["slake", split] += len({(s["question"], s["answer"]) for s in questions})
    for split, own_entries in entries.items():
        listing(folder / f"{split}.json", own_entries)
