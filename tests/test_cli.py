"""The command line: its output, determinism, file formats, real radiographs, times."""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import time

import numpy as np
import pydicom
import pytest
from conftest import iou
from PIL import Image

STRUCTURES = 36
LABELS = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
]
HEART, LEFT_LUNG, RIGHT_LUNG = 4, 11, 20
# Boxes that were read by eye on RG1, in its pixels.
RG1_BY_EYE = {HEART: (620, 780, 1430, 1480), LEFT_LUNG: (1000, 140, 1680, 1600), RIGHT_LUNG: (110, 140, 790, 1560)}


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
    assert len(study["structures"]) == STRUCTURES
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


def test_perceive_prints_a_study_a_line(succeed, phantom_dicom, radiographs, manifest):
    paths = [str(phantom_dicom), str(radiographs / "RG1_UNCI.dcm")]
    lines = succeed("perceive", *paths, "--json").splitlines()
    studies = [json.loads(line) for line in lines]
    assert [study["image"] for study in studies] == paths
    for study in studies:
        check_study(study, manifest)
    assert (studies[1]["width"], studies[1]["height"]) == (1841, 1955)


def test_perceive_for_people(succeed, phantom_dicom):
    text = succeed("perceive", phantom_dicom)
    for name in ("Left lung", "Right lung", "Vertebral column", "Pleural Effusion"):
        assert name in text


def test_ask(succeed, phantom_dicom, manifest, perceive):
    answer = json.loads(succeed("ask", phantom_dicom, "Where is the left lung?", "--json"))
    check_answer(answer, manifest)
    assert answer["question"] == "Where is the left lung?"
    [grounding] = answer["groundings"]
    assert "lung" in grounding["phrase"].lower()
    [box] = grounding["boxes"]
    study = perceive(phantom_dicom)
    check_inside(box, study["width"], study["height"])
    # The decoder copies the box from its context, where it is on a grid of 1024.
    assert iou(box, study["structures"][LEFT_LUNG]["box"]) > 0.7


def test_decoding(succeed, phantom_dicom):
    def report(*options):
        return json.loads(succeed("report", phantom_dicom, "--json", *options))

    whole = report("--log-probabilities")
    assert len(whole["log_probabilities"]) == whole["tokens"] and max(whole["log_probabilities"]) <= 0
    plain = report("--no-look-up")
    assert plain["text"] == whole["text"] and "log_probabilities" not in plain
    cut = report("--stop", "Impression")
    assert cut["finish"] == "stop_text" and whole["text"].split("Impression")[0] == cut["text"]
    assert report("--deadline", "0.001")["finish"] == "deadline"
    drawn = [report("--temperature", "3", "--max-tokens", "40", "--seed", seed) for seed in ("1", "2", "1")]
    assert drawn[0]["text"] == drawn[2]["text"] != drawn[1]["text"]
    assert drawn[0]["provenance"]["decoding"] == "sampled, temperature 3, top_k 0, top_p 1, seed 1, grounded"


def test_forms(succeed, run, phantom_dicom, tmp_path):
    schema = tmp_path / "schema.json"
    side = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}, "required": ["side"], "additionalProperties": False}
    schema.write_text(json.dumps(side))
    ask = ("ask", phantom_dicom, "Which lung is larger?", "--json", "--temperature", "3")
    answer = json.loads(succeed(*ask, "--json-schema", schema))
    assert json.loads(answer["text"])["side"] in ("left", "right")
    assert answer["provenance"]["decoding"].endswith(", JSON by schema")
    assert json.loads(succeed(*ask, "--unconstrained"))["provenance"]["decoding"].endswith(", unconstrained")
    schema.write_text('{"type": "objekt"}')
    assert "JSON schema cannot be used" in run(*ask, "--json-schema", schema).stderr
    assert run(*ask, "--json-schema", tmp_path / "none").returncode == 1


def test_chat(succeed, run, phantom_dicom, tmp_path):
    questions = ["Where is the left lung?", "Is there a pleural effusion?", "What does it show?"]
    asked = [json.loads(line) for line in succeed("ask", phantom_dicom, *questions, "--follow-up", "--json").splitlines()]
    lines = [*questions, "/rewind", "", questions[2], "/rewind 2", questions[1], "/closed_question Is the heart enlarged?"]
    talked = run("chat", phantom_dicom, "--json", "--save", tmp_path / "study", input="\n".join(lines))
    assert talked.returncode == 0, talked.stderr
    answers = [json.loads(line) for line in talked.stdout.splitlines()]
    said = lambda answer: (answer["question"], answer["text"], answer["tokens"])
    # After a rewind, the same questions have the same answers.
    assert [said(answer) for answer in answers[:5]] == [said(asked[i]) for i in (0, 1, 2, 2, 1)]
    assert answers[5]["task"] == "closed_question" and len(answers) == 6
    assert answers[0]["prefilled"] > 300 and max(answer["prefilled"] for answer in answers[1:]) < 60
    assert "questions left: 2" in talked.stderr and "questions left: 1" in talked.stderr
    assert json.loads(succeed("ask", tmp_path / "study", questions[0], "--json"))["text"] == asked[0]["text"]

    wrong = run("chat", phantom_dicom, input=f"/nothing\n{'very ' * 9000}\n/rewind x\n/report\n/quit\nWhere?")
    assert wrong.returncode == 1 and "Findings" in wrong.stdout and "Where" not in wrong.stdout
    assert wrong.stderr.count("error: ") == 3 and "/help lists them" in wrong.stderr


def test_chat_on_a_terminal(anatomix, onnxruntime_library, phantom_dicom, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1400}))
    variables = {**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library), "TERM": "xterm"}
    shown = b""

    def show(ours, until):
        """Reads the terminal's output up to `until`, and returns what came before."""
        nonlocal shown
        while until not in shown:
            assert select.select([ours], [], [], 60)[0], f"{until} was not shown: {shown}"
            shown += os.read(ours, 65536)
        before, shown = shown.split(until, 1)
        return before

    for answering in ("a place", "numbers without end"):
        ours, theirs = pty.openpty()
        options = [] if answering == "a place" else ["--json-schema", schema, "--max-tokens", "2500"]
        chat = subprocess.Popen([anatomix, "chat", phantom_dicom, *options], stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
        os.close(theirs)
        try:
            show(ours, b"> ")
            os.write(ours, b"Where is the left lung?\r")
            if options:
                # Ctrl-C during an answer ends the answer.
                show(ours, b",")
                chat.send_signal(signal.SIGINT)
                assert b"stopped" in show(ours, b"> ")
            else:
                assert b"Left lung" in show(ours, b"> ")
            # Where nothing is said it takes back the line.
            os.write(ours, b"Where is\x03")
            show(ours, b"> ")
            os.write(ours, b"/rewind\r")
            assert b"questions left: 0" in show(ours, b"> ")
            os.write(ours, b"\x04")
            assert chat.wait(60) == 0
        finally:
            chat.kill()
            chat.wait()
            os.close(ours)
        shown = b""


def test_a_chat_that_somebody_else_reads_is_answers_alone(anatomix, onnxruntime_library, phantom_dicom):
    ours, theirs = pty.openpty()
    variables = {**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library), "TERM": "dumb"}
    os.write(ours, b"Where is the left lung?\n/quit\n")
    command = [anatomix, "chat", phantom_dicom, "--json"]
    done = subprocess.run(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables, timeout=120, check=True)
    assert json.loads(done.stdout)["question"] == "Where is the left lung?"
    os.close(ours), os.close(theirs)


def test_what_is_read_is_not_replaced(run, succeed, phantom_dicom, tmp_path):
    image, other = tmp_path / "image.dcm", tmp_path / "other"
    image.write_bytes(phantom_dicom.read_bytes())
    for option in ("--save", "--overlay"):
        refused = run("report", image, option, image)
        assert refused.returncode == 2 and f"{option} would replace" in refused.stderr
    refused = run("report", image, "--save", other, "--overlay", other)
    assert refused.returncode == 2 and "name the same file" in refused.stderr and not other.exists()
    refused = run("report", image, "--save", "x", "--overlay", "./x", cwd=tmp_path)
    assert refused.returncode == 2 and "name the same file" in refused.stderr
    assert image.read_bytes() == phantom_dicom.read_bytes()


def test_one_thread_takes_one_core(run, radiographs, tmp_path):
    images = [tmp_path / f"{i}.dcm" for i in range(24)]
    [image.write_bytes((radiographs / "RG1_UNCI.dcm").read_bytes()) for image in images]

    def cores(*options):
        """Mean number of busy cores: processor time divided by wall-clock time."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        assert run("perceive", *images, "--json", *options).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / (time.perf_counter() - start)

    one, all = cores("--threads", "1"), cores()
    print(f"{one:.2f} cores of one, {all:.2f} of all")
    # Opening an engine takes more than one core for a moment.
    assert one < 1.25
    if all < 1.3:
        pytest.skip(f"all threads together had {all:.2f} cores: a missing limit would not be seen here")


def test_memory_is_limited_and_the_golden_input_left_out(succeed, run, phantom_dicom, tmp_path):
    ask = ["ask", phantom_dicom, "Where is the left lung?", "--json", "--memory-limit"]
    refused = run(*ask, "1")
    assert refused.returncode == 1 and "allow more" in refused.stderr
    answer = json.loads(succeed(*ask, "64", "--no-golden-check"))
    assert answer["text"] == json.loads(succeed(*ask[:-1]))["text"]
    # An answer without an end is cut at the smallest budget with which the question can be asked.
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1400}))
    least = next(str(mib) for mib in range(2, 65) if run(*ask, str(mib), "--no-golden-check").returncode == 0)
    endless = [*ask, least, "--no-golden-check", "--json-schema", schema, "--max-tokens", "2500"]
    cut = json.loads(succeed(*endless))
    assert cut["finish"] == "memory" and cut["tokens"] >= 512 and cut["raw"].startswith("[")
    assert "the answer is cut: it would have taken more memory" in run(*[part for part in endless if part != "--json"]).stderr


def test_conversations_and_saved_studies(succeed, run, phantom_dicom, tmp_path):
    questions, saved = ["Where is the left lung?", "Is there a pleural effusion?"], tmp_path / "study"

    def ask(*arguments):
        return [json.loads(line) for line in succeed("ask", *arguments, "--json").splitlines()]

    first, second = ask(phantom_dicom, *questions, "--save", saved)
    assert [first["text"]] == [answer["text"] for answer in ask(phantom_dicom, questions[0])]
    assert [second["text"]] == [answer["text"] for answer in ask(phantom_dicom, questions[1])]
    # A saved study gives the same answers without prefilling its context again.
    for fresh, again in zip((first, second), ask(saved, *questions), strict=True):
        assert (fresh["text"], fresh["groundings"]) == (again["text"], again["groundings"])
        assert fresh["provenance"] == again["provenance"]
    assert ask(saved, questions[0])[0]["timing_ms"]["prefill"] < first["timing_ms"]["prefill"]
    assert len(ask(phantom_dicom, *questions, "--follow-up")) == 2

    refused = run("ask", saved, questions[0], "--overlay", tmp_path / "a.png")
    assert refused.returncode == 2 and "saved study" in refused.stderr
    saved.write_bytes(saved.read_bytes()[:5000])
    refused = run("ask", saved, questions[0])
    assert refused.returncode == 1 and str(saved) in refused.stderr and "is damaged" in refused.stderr


@pytest.mark.parametrize("task", ["report", "classification", "abnormality_detection"])
def test_tasks_without_a_question(succeed, phantom_dicom, manifest, task):
    answer = json.loads(succeed("ask", phantom_dicom, "", "--task", task, "--json"))
    check_answer(answer, manifest)
    assert answer["task"] == task


def test_a_region_is_asked_about_in_pixels(succeed, phantom_dicom, perceive, manifest):
    x0, y0, x1, y1 = map(round, perceive(phantom_dicom)["structures"][RIGHT_LUNG]["box"])
    region = f"<box>({x0},{y0}),({x1},{y1})</box>"
    answer = json.loads(succeed("ask", phantom_dicom, region, "--task", "grounded_captioning", "--json"))
    check_answer(answer, manifest)
    assert region in answer["question"]


@pytest.mark.parametrize("question", ["Is there a pleural effusion?", "Is this image normal?"])
def test_closed_questions(succeed, phantom_dicom, question):
    assert succeed("ask", phantom_dicom, question).strip().lower().rstrip(".") in ("yes", "no")


def test_report(succeed, phantom_dicom, manifest):
    answer = json.loads(succeed("report", phantom_dicom, "--json"))
    check_answer(answer, manifest)
    assert answer["task"] == "report"
    # Without --json, standard output is the same text and nothing else.
    assert succeed("report", phantom_dicom).strip() == answer["text"].strip()


def test_results_do_not_depend_on_the_run(succeed, phantom_dicom):
    def once():
        study = json.loads(succeed("perceive", phantom_dicom, "--json"))
        report = json.loads(succeed("report", phantom_dicom, "--json"))
        for result in (study, report):
            del result["timing_ms"]
        return study, report

    assert once() == once()


def test_overlay(succeed, phantom_dicom, tmp_path, perceive):
    before = phantom_dicom.stat().st_mtime_ns
    path = tmp_path / "overlay.png"
    succeed("perceive", phantom_dicom, "--overlay", path)
    study = perceive(phantom_dicom)
    with Image.open(path) as picture:
        picture.load()
        assert picture.mode in ("RGB", "RGBA")
        assert picture.width >= study["width"] and picture.height >= study["height"]
        colours = np.asarray(picture.convert("RGB")).astype(int)
    # The radiograph is grey, and left and right have different colours.
    coloured = (colours.max(-1) - colours.min(-1)) > 60
    assert 0.002 < coloured.mean() < 0.5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["overlay.png"]
    assert phantom_dicom.stat().st_mtime_ns == before


def test_overlay_of_an_answer(succeed, phantom_dicom, tmp_path):
    path = tmp_path / "answer.png"
    succeed("ask", phantom_dicom, "Where is the left lung?", "--json", "--overlay", path)
    with Image.open(path) as picture:
        picture.load()


def test_an_overlay_does_not_replace_its_image(run, phantom_pixels, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray((phantom_pixels >> 4).astype(np.uint8)).save(path)
    before = path.read_bytes()
    assert run("perceive", path, "--overlay", path).returncode == 2
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def phantom_pixels(phantom_dicom) -> np.ndarray:
    """The phantom as it is displayed, 12 bit."""
    dataset = pydicom.dcmread(phantom_dicom)
    pixels = dataset.pixel_array.astype(np.uint16)
    return 4095 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def test_formats_agree(perceive, phantom_dicom, phantom_pixels, tmp_path):
    grey = (phantom_pixels / 4095 * 255).round().astype(np.uint8)
    written = {
        "grey.png": Image.fromarray(grey),
        "deep.png": Image.fromarray((phantom_pixels.astype(np.uint32) * 65535 // 4095).astype(np.uint16)),
        "grey.jpg": Image.fromarray(grey),
        "colour.png": Image.fromarray(np.stack([grey] * 3, -1)),
        "alpha.png": Image.fromarray(np.stack([grey] * 3 + [np.full_like(grey, 255)], -1), "RGBA"),
        # The bytes of a file determine its format, not its name.
        "misnamed.dcm": Image.fromarray(grey),
    }
    expected = boxes(perceive(phantom_dicom))
    side = max(phantom_pixels.shape)
    for name, image in written.items():
        path = tmp_path / name
        options = {"quality": 95} if name.endswith("jpg") else {}
        image.save(path, format="JPEG" if name.endswith("jpg") else "PNG", **options)
        assert abs(boxes(perceive(path)) - expected).max() < 0.03 * side, name


def test_a_mirrored_image_is_flagged(perceive, phantom_pixels, tmp_path):
    grey = (phantom_pixels / 4095 * 255).round().astype(np.uint8)
    codes, centres = {}, {}
    for name, pixels in {"plain": grey, "mirrored": grey[:, ::-1]}.items():
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        study = perceive(path)
        codes[name] = {flag["code"] for flag in study["flags"]}
        centres[name] = boxes(study)[LEFT_LUNG, [0, 2]].mean() / study["width"]
    assert "mirrored" in codes["mirrored"] and "mirrored" not in codes["plain"]
    # Names are the patient's: the left lung of a mirrored image is on the left of the picture.
    assert centres["mirrored"] < 0.5 < centres["plain"]


def test_a_constant_image_is_flagged(perceive, tmp_path):
    path = tmp_path / "grey.png"
    Image.new("L", (300, 200), 90).save(path)
    assert "near_constant" in {flag["code"] for flag in perceive(path)["flags"]}


def test_every_box_lies_inside_an_oblong_image(perceive, phantom_pixels, tmp_path, manifest):
    grey = (phantom_pixels / 4095 * 255).round().astype(np.uint8)
    for name, crop in {"wide": grey[: grey.shape[0] // 3], "tall": grey[:, : grey.shape[1] // 3]}.items():
        path = tmp_path / f"{name}.png"
        Image.fromarray(crop).save(path)
        check_study(perceive(path), manifest)


def test_codecs_of_a_real_radiograph_agree(perceive, radiographs):
    # UNCR is the original, J2KR its lossless compression, J2KI a lossy compression, and UNCI the latter as another decoder read it.
    found = {name: boxes(perceive(radiographs / f"RG1_{name}.dcm")) for name in ("UNCR", "J2KR", "UNCI", "J2KI")}
    assert (found["UNCR"] == found["J2KR"]).all()
    worst = {name: float(abs(found["UNCR"] - value).max()) for name, value in found.items()}
    print("pixels apart, of 1841 x 1955:", worst)
    assert max(worst.values()) < 10 and abs(found["UNCI"] - found["J2KI"]).max() < 2


def test_lungs_and_heart_of_a_real_radiograph(perceive, radiographs):
    study = perceive(radiographs / "RG1_UNCI.dcm")
    values = {index: iou(study["structures"][index]["box"], box) for index, box in RG1_BY_EYE.items()}
    print("IoU with boxes read by eye:", {study["structures"][i]["name"]: round(v, 2) for i, v in values.items()})
    assert sum(values.values()) / len(values) >= 0.5
    assert "mirrored" not in {flag["code"] for flag in study["flags"]}


def test_an_extremity_is_flagged_and_asked_on_demand_only(run, succeed, radiographs, tmp_path):
    image = radiographs / "RG3_UNCI.dcm"
    codes = [flag["code"] for flag in json.loads(succeed("perceive", image, "--json"))["flags"]]
    assert "not_chest" in codes
    for command in (["report", image], ["ask", image, "Where is the heart?"], ["chat", image]):
        result = run(*command, "--save", tmp_path / "study", input="Where is the heart?\n")
        assert (result.returncode, result.stdout) == (3, ""), result.stderr
        assert str(image) in result.stderr and "not_chest" in result.stderr and "--accept-flags" in result.stderr
        assert not list(tmp_path.iterdir())
    answer = json.loads(succeed("report", image, "--json", "--accept-flags"))
    assert answer["text"] and "not_chest" in [flag["code"] for flag in answer["flags"]]
    assert "--accept-flags" in succeed("--help")


def test_one_bad_image_of_several_is_named(run, phantom_dicom, tmp_path):
    result = run("perceive", phantom_dicom, tmp_path / "missing.dcm", "--json")
    assert result.returncode == 1 and "missing.dcm" in result.stderr
    # The studies that were printed before the error are complete.
    assert all(json.loads(line) for line in result.stdout.splitlines())


def test_a_bad_image_spoils_none_of_its_batch(run, phantom_dicom, perceive, tmp_path):
    """Several images are perceived together, in order. Each gives the same study as by itself, and errors name the bad ones."""
    (tmp_path / "damaged.dcm").write_bytes(phantom_dicom.read_bytes()[:3000])
    images = [phantom_dicom, tmp_path / "missing.dcm", *[phantom_dicom] * 8, tmp_path / "damaged.dcm", phantom_dicom]
    result = run("perceive", *images, "--json")
    assert result.returncode == 1
    assert [name for name in ("missing.dcm", "damaged.dcm") if name in result.stderr] == ["missing.dcm", "damaged.dcm"]
    assert len(result.stderr.splitlines()) == 2, result.stderr
    studies, alone = [json.loads(line) for line in result.stdout.splitlines()], perceive(phantom_dicom)
    assert len(studies) == 10
    for study in studies:
        assert [s["sentence"] for s in study["structures"]] == [s["sentence"] for s in alone["structures"]]
        assert abs(boxes(study) - boxes(alone)).max() < 0.05


def test_bundle_and_providers(succeed, bundle, manifest):
    info = succeed("bundle", "info", bundle)
    assert manifest["name"] in info
    succeed("bundle", "verify", bundle)
    assert "cpu" in succeed("providers").lower()


def test_version_and_help(succeed, root):
    assert succeed("--version").startswith("anatomix ")
    text = succeed("--help")
    for command in ("perceive", "ask", "report", "bundle", "providers"):
        assert command in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["perceive"],
        ["perceive", "a.png", "--nonsense"],
        ["ask", "a.png"],
        ["ask", "a.png", "Why?", "--task", "nonsense"],
        ["perceive", "a.png", "--provider", "nonsense"],
        ["bundle"],
        ["bundle", "nonsense"],
    ],
    ids=lambda a: " ".join(a) or "nothing",
)
def test_wrong_usage_exits_with_2(run, arguments):
    result = run(*arguments)
    assert result.returncode == 2 and result.stderr and "panicked" not in result.stderr
    assert result.stdout == ""


def test_a_closed_pipe_is_no_panic(anatomix, onnxruntime_library, phantom_dicom, root):
    process = subprocess.Popen(
        [anatomix, "perceive", phantom_dicom, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library)},
    )
    process.stdout.close()
    errors = process.stderr.read()
    assert "panicked" not in errors and len(errors.splitlines()) <= 3
    assert process.wait(timeout=60) in (0, 1, -signal.SIGPIPE)
