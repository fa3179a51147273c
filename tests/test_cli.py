"""The command line: its output, determinism, conversations, usage."""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import time

import pytest
from conftest import iou
from records import LEFT_LUNG, RIGHT_LUNG, check_answer, check_inside, check_study


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


def test_a_structure_of_one_sentence_has_no_margin_to_show(succeed, phantom_dicom, perceive):
    lines = succeed("perceive", phantom_dicom).splitlines()
    structures = perceive(phantom_dicom)["structures"]
    single = [of["name"] for of in structures if of["margin"] > of["similarity"] + 0.999]
    assert 0 < len(single) < len(structures)
    for of in structures:
        [line] = [line for line in lines if line.startswith(f"  {of['name']}  ") and line.endswith(of["sentence"])]
        margin = line.removesuffix(of["sentence"]).split()[-1]
        assert margin == "-" if of["name"] in single else abs(float(margin) - of["margin"]) < 1e-3, line


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
    assert cut["provenance"]["decoding"] == 'greedy, grounded, max_tokens 512, stop ["Impression"], look_up on'
    assert plain["provenance"]["decoding"] == "greedy, grounded, max_tokens 512, look_up off"
    assert cut["finish"] == "stop_text" and whole["text"].split("Impression")[0] == cut["text"]
    assert report("--deadline", "0.001")["finish"] == "deadline"
    drawn = [report("--temperature", "3", "--max-tokens", "40", "--seed", seed) for seed in ("1", "2", "1")]
    assert drawn[0]["text"] == drawn[2]["text"] != drawn[1]["text"]
    assert drawn[0]["provenance"]["decoding"] == "sampled, temperature 3, top_k 0, top_p 1, seed 1, grounded, max_tokens 40, look_up on"


def test_forms(succeed, run, phantom_dicom, tmp_path):
    schema = tmp_path / "schema.json"
    side = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}, "required": ["side"], "additionalProperties": False}
    schema.write_text(json.dumps(side))
    ask = ("ask", phantom_dicom, "Which lung is larger?", "--json", "--temperature", "3")
    answer = json.loads(succeed(*ask, "--json-schema", schema))
    assert json.loads(answer["text"])["side"] in ("left", "right")
    assert answer["provenance"]["decoding"].endswith(", JSON by schema, max_tokens 512, look_up on")
    assert json.loads(succeed(*ask, "--unconstrained"))["provenance"]["decoding"].endswith(", unconstrained, max_tokens 512, look_up on")
    schema.write_text('{"type": "objekt"}')
    assert "JSON schema cannot be used" in run(*ask, "--json-schema", schema).stderr
    assert run(*ask, "--json-schema", tmp_path / "none").returncode == 1


def test_json_for_people_is_json(succeed, phantom_dicom, tmp_path):
    schema, said = tmp_path / "schema.json", "left \u202e right \x9b"
    schema.write_text(json.dumps({"const": said}))
    for questions in (["Which side?"], ["Which side?", "Which lung?"]):
        lines = [line for line in succeed("ask", phantom_dicom, *questions, "--json-schema", schema).splitlines() if line]
        answers = [line for line in lines if line.startswith('"')]
        assert [json.loads(line) for line in answers] == [said] * len(questions)
        assert all("\\u202e" in line and "\u202e" not in line and "\x9b" not in line for line in answers)


def test_usage_errors_show_what_was_given(run, phantom_dicom, tmp_path):
    for given, shown in (("\x1b[31mred", r"\u{1b}[31mred"), ("two  words", "two  words"), ("a\nb", r"a\nb")):
        refused = run("report", phantom_dicom, "--threads", given)
        assert refused.returncode == 2 and f"'{shown}'" in refused.stderr, refused.stderr
        refused = run("perceive", tmp_path / given, phantom_dicom)
        assert refused.returncode == 1 and f"{tmp_path}/{shown}; check" in refused.stderr.replace(" and its", ";"), refused.stderr
    refused = run("report", phantom_dicom, "--sr", tmp_path / "report.dcm", "--content-time", "x")
    assert refused.returncode == 2 and "'x'" in refused.stderr and "YYYYMMDDhhmmss" in refused.stderr


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
    assert wrong.stderr.count("error: ") == 3 and "/help lists the commands" in wrong.stderr


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
            # With no answer in progress, Ctrl-C discards the line.
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
    assert refused.returncode == 1 and "raise the limit" in refused.stderr
    answer = json.loads(succeed(*ask, "64", "--no-golden-check"))
    assert answer["text"] == json.loads(succeed(*ask[:-1]))["text"]
    # An answer without an end is cut at the smallest budget with which the question can be asked.
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1400}))
    least = next(str(mib) for mib in range(2, 65) if run(*ask, str(mib), "--no-golden-check").returncode == 0)
    endless = [*ask, least, "--no-golden-check", "--json-schema", schema, "--max-tokens", "2500"]
    cut = json.loads(succeed(*endless))
    assert cut["finish"] == "memory" and cut["tokens"] >= 512 and cut["raw"].startswith("[")
    assert "the answer is incomplete: it would have taken more memory" in run(*[part for part in endless if part != "--json"]).stderr


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
def test_tasks_without_a_question(succeed, run, phantom_dicom, manifest, task):
    refused = run("ask", phantom_dicom, "Where is the heart?", "--task", task)
    assert refused.returncode == 2 and f"the task {task} has an instruction of its own" in refused.stderr
    answer = json.loads(succeed("ask", phantom_dicom, "", "--task", task, "--json"))
    check_answer(answer, manifest)
    assert answer["task"] == task


def test_a_region_is_asked_about_in_pixels(succeed, phantom_dicom, perceive, manifest):
    x0, y0, x1, y1 = map(round, perceive(phantom_dicom)["structures"][RIGHT_LUNG]["box"])
    region = f"<box>({x0},{y0}),({x1},{y1})</box>"
    answer = json.loads(succeed("ask", phantom_dicom, region, "--task", "grounded_captioning", "--json"))
    check_answer(answer, manifest)
    assert region in answer["question"]


def test_the_region_on_the_page_is_in_the_phantom(succeed, run, root, phantom_dicom):
    page = (root / "docs/command-line.md").read_text()
    [question] = re.findall(r'anatomix ask examples/phantom.dcm "([^"]*<box>[^"]*)"$', page, re.MULTILINE)
    assert json.loads(succeed("ask", phantom_dicom, question, "--json"))["question"] == question
    refused = run("ask", phantom_dicom, question.replace("(560,", "(9560,"))
    assert refused.returncode == 1 and '"<box>(310,440),(9560,700)</box>"' in refused.stderr


@pytest.mark.parametrize(
    ("task", "text"), [("grounded_diagnosis", "left lung"), ("closed_question", "<box>(1,2),(30,40)</box>"), ("open_question", "?")]
)
def test_a_question_has_what_its_task_needs(run, phantom_dicom, task, text):
    refused = run("ask", phantom_dicom, text, "--task", task, "--bundle", "none")
    assert refused.returncode == 2 and f"the task {task} needs" in refused.stderr
    refused = run("chat", phantom_dicom, input=f"/{task} {text}\n")
    assert refused.returncode == 1 and f"the task {task} needs" in refused.stderr


def test_the_phrase_on_the_page_is_found_in_the_phantom(succeed, root):
    page = (root / "docs/command-line.md").read_text()
    [(image, phrase, question)] = re.findall(r'`anatomix ask (\S+) "([^"]+)" --task phrase_grounding` asks\s"([^"]+)"', page)
    answer = json.loads(succeed("ask", root / image, phrase, "--task", "phrase_grounding", "--json"))
    assert answer["question"] == " ".join(question.split()) and phrase in answer["text"] and answer["groundings"][0]["boxes"], answer


def test_several_answers_are_printed_below_their_questions(succeed, run, phantom_dicom):
    questions = ["Where is the left lung?", "Is there a pleural effusion?"]
    alone = [succeed("ask", phantom_dicom, question) for question in questions]
    assert not any(text.startswith(">") for text in alone)
    together = succeed("ask", phantom_dicom, *questions)
    assert together == "".join(f"> {question}\n{text}" for question, text in zip(questions, alone, strict=True))
    assert [line for line in succeed("ask", phantom_dicom, *questions, "--follow-up").splitlines() if line[0:1] == ">"] == [
        f"> {question}" for question in questions
    ]
    # A question that fails says nothing on standard output.
    assert run("ask", phantom_dicom, *questions, "<box>(1,2)").stdout == ""


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
        ["ask", "a.png", "Why?", "--log-probabilities"],
        ["bundle"],
        ["bundle", "nonsense"],
    ],
    ids=lambda a: " ".join(a) or "nothing",
)
def test_wrong_usage_exits_with_2(run, arguments):
    result = run(*arguments)
    assert result.returncode == 2 and result.stderr and "panicked" not in result.stderr
    assert result.stdout == ""


WRONG_VALUES = {
    "--temperature": (["-1", "nan", "100.5", "inf", "warm"], "0 to 100|a number"),
    "--top-p": (["0", "-0.5", "1.5", "nan"], "above 0 to 1"),
    "--repetition-penalty": (["0", "-1", "1e9", "nan"], "0.01 to 100"),
    "--top-k": (["-1", "1.5", "x"], "invalid digit"),
    "--seed": (["-1", "x"], "invalid digit"),
    "--max-tokens": (["0", "-1", "x", "9" * 40], "1 or more|too large"),
    "--memory-limit": (["0", "-1", "x", "9" * 40], "1 or more|too large"),
    "--threads": (["0", "-1", "x", "99999"], "1 or more|ask for 1 to"),
    "--deadline": (["-1", "nan", "inf", "x"], "number of seconds, 0 or more"),
    "--stop": ([""], "--stop"),
    "--provider": (["nonsense", "cuda:-1", "cpu:3"], "choose auto, cpu"),
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, (values, _) in WRONG_VALUES.items() for value in values])
def test_wrong_values_exit_with_2(run, phantom_dicom, option, value):
    result = run("ask", phantom_dicom, "Why?", option, value)
    assert result.returncode == 2 and result.stdout == "" and option in result.stderr, result.stderr
    # The message names the option, and says which values it takes.
    assert re.search(WRONG_VALUES[option][1], result.stderr), result.stderr


def test_perceiving_has_a_deadline(run, succeed, phantom_dicom, tmp_path):
    assert len(succeed("perceive", phantom_dicom, "--deadline", "600", "--json").splitlines()) == 1
    images = [tmp_path / name for name in ("a.dcm", "b.dcm")]
    [image.write_bytes(phantom_dicom.read_bytes()) for image in images]
    late = run("perceive", *images, "--deadline", "0.0001", "--json")
    assert late.returncode == 1 and late.stdout == ""
    for image, line in zip(images, late.stderr.strip().splitlines(), strict=True):
        assert line.startswith(f"error: {image} was not perceived: the deadline passed") and "allow more time" in line
