"""Results are those of the program, in every form in which Python gives them."""

import copy
import dataclasses
import datetime
import io
import pickle

import anatomix
import numpy as np
import pydicom
import pydicom.uid as UID
import pytest

from conftest import PHANTOM

MEASURED = "timing_ms"
# What depends on the machine's speed: how many draft tokens a run verifies, and so how many runs there are.
SPEED = {MEASURED, "runs"}
QUESTION = "Where is the left lung?"


def but(record, keys):
    return {key: value for key, value in record.items() if key not in keys}


def test_a_study_is_what_the_program_prints(study, printed):
    [expected] = printed("perceive", PHANTOM)
    found = study.to_dict()
    assert but(found, {MEASURED}) == but(expected, {MEASURED})
    assert list(found) == list(expected) and found[MEASURED].keys() == expected[MEASURED].keys()


@pytest.mark.parametrize("asked", [{"question": QUESTION}, {"task": "report"}, {"question": QUESTION, "log_probabilities": True}])
def test_an_answer_is_what_the_program_prints(study, printed, asked):
    options = ["--log-probabilities"] if "log_probabilities" in asked else []
    options += ["--task", asked["task"]] if "task" in asked else []
    [expected] = printed("ask", PHANTOM, *([asked["question"]] if "question" in asked else []), *options)
    answer = study.ask(**asked)
    found = answer.to_dict()
    # The last digits of a probability depend on the number of rows in a run.
    assert but(found, SPEED | {"evidence", "log_probabilities"}) == but(expected, SPEED | {"evidence", "log_probabilities"})
    evidence = [[but(of, {"probability"}) for of in record["evidence"]] for record in [found, expected]]
    assert evidence[0] == evidence[1] and len(evidence[0]) == len(answer.evidence) > 0
    for record, of, printed_of in zip(found["evidence"], answer.evidence, expected["evidence"]):
        assert (of.sentence, of.support, of.groundings) == (record["sentence"], record["support"], tuple(record["groundings"]))
        assert [(one.name, one.relation) for one in of.structures] == [(one["name"], one["relation"]) for one in record["structures"]]
        assert abs(of.probability - printed_of["probability"]) < 2e-4
    assert np.allclose(found.get("log_probabilities", []), expected.get("log_probabilities", []), atol=2e-4)
    assert answer.log_probabilities.dtype == np.float32 and len(answer.log_probabilities) == len(found.get("log_probabilities", []))


def test_attributes_and_arrays_agree_with_the_dictionary(study):
    record = study.to_dict()
    assert (study.name, study.width, study.height) == (record["image"], record["width"], record["height"])
    assert [found.name for found in study.structures] == list(anatomix.STRUCTURES) == [one["name"] for one in record["structures"]]
    boxes = study.boxes
    assert boxes.shape == (36, 4) and boxes.dtype == np.float32
    assert np.allclose(boxes, [one["box"] for one in record["structures"]], atol=0.006)
    assert np.array_equal(boxes, np.array([found.box for found in study.structures], np.float32))
    assert study.object_embeddings.shape[0] == 36 and study.object_embeddings.dtype == np.float32
    assert np.isfinite(study.object_embeddings).all()
    assert list(study.labels) == list(anatomix.LABELS) == list(record["labels"])
    assert all(abs(study.labels[name] - score) < 1e-4 for name, score in record["labels"].items())
    assert [dataclasses.asdict(flag) for flag in study.flags] == record["flags"]
    assert study.provenance == record["provenance"] and study.timing == record[MEASURED]
    assert {found.side for found in study.structures} == {"left", "right", None}
    assert next(found for found in study.structures if found.name == "Left lung").side == "left"
    left, right = (anatomix.STRUCTURES.index(name) for name in ("Left lung", "Right lung"))
    assert (anatomix.COUNTERPARTS[left], anatomix.COUNTERPARTS[right]) == (right, left)
    unpaired = {found.index for found in study.structures if found.side is None}
    assert {index for index, other in enumerate(anatomix.COUNTERPARTS) if index == other} == unpaired


def test_groundings_are_boxes_of_the_image(study):
    answer = study.ask(QUESTION)
    [grounding] = answer.groundings
    assert isinstance(grounding, anatomix.Grounding) and "lung" in grounding.phrase
    [box] = grounding.boxes
    assert 0 <= box.x0 < box.x1 <= study.width and 0 <= box.y0 < box.y1 <= study.height
    assert answer.finish == "end_of_turn" and answer.tokens > 0 and str(answer) == answer.text


def test_tables_are_rows(study):
    rows = study.table()
    assert len(rows) == 36 and {len(row) for row in rows} == {11}
    assert rows[11]["name"] == "Left lung" and rows[11]["x0"] == study.structures[11].box.x0
    [row] = study.ask(QUESTION).table()
    assert row["question"] == QUESTION and row["x1"] > row["x0"]


def test_a_structured_report_is_that_of_the_program(study, printed, tmp_path):
    path = tmp_path / "report.dcm"
    printed("ask", PHANTOM, QUESTION, "--sr", path)
    answer = study.ask(QUESTION)
    report = study.structured_report([answer])
    assert report == path.read_bytes()
    time = datetime.datetime(2024, 5, 6, 7, 8, 9)
    dataset = pydicom.dcmread(io.BytesIO(study.structured_report(content_time=time, comprehensive_sr=True)))
    assert (dataset.SOPClassUID, dataset.ContentDate, dataset.ContentTime) == (UID.ComprehensiveSRStorage, "20240506", "070809")
    for content_time in (time, "20240506070809"):
        assert study.structured_report(content_time=content_time, comprehensive_sr=True) == study.structured_report(
            content_time=time, comprehensive_sr=True
        )


def test_other_documents_are_those_of_the_program(study, printed, tmp_path):
    answer = study.ask(QUESTION)
    for option, make in (("--gsps", study.presentation_state), ("--fhir", study.fhir)):
        path = tmp_path / "document"
        printed("ask", PHANTOM, QUESTION, option, path, "--content-time", "20240506070809")
        assert make([answer], content_time=datetime.datetime(2024, 5, 6, 7, 8, 9)) == path.read_bytes()
        assert make() != make([answer]) and make() == make([])
        with pytest.raises(anatomix.OutputError):
            make(content_time="yesterday")
        with pytest.raises(TypeError):
            make([study])


def test_a_secondary_capture_is_that_of_the_program(engine, study, printed, tmp_path):
    path, alone = tmp_path / "capture.dcm", tmp_path / "alone.dcm"
    printed("ask", PHANTOM, QUESTION, "--sc", path)
    printed("perceive", PHANTOM, "--sc", alone)
    assert study.secondary_capture(study.ask(QUESTION)) == path.read_bytes()
    assert study.secondary_capture() == alone.read_bytes()
    loaded = engine.load_study(study.save_bytes())
    with pytest.raises(ValueError):
        loaded.secondary_capture()
    pixels = anatomix.Radiograph.from_array(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    with pytest.raises(anatomix.OutputError, match="of another radiograph"):
        study.secondary_capture(engine.study(pixels).ask(QUESTION))


def test_a_report_that_cannot_be_made(engine, study):
    pixels = anatomix.Radiograph.from_array(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    for report, code in (
        (lambda: engine.study(pixels).structured_report(), "output"),
        (lambda: engine.study(pixels).presentation_state(), "output"),
        (lambda: engine.study(pixels).fhir(), "output"),
        (lambda: study.structured_report([engine.study(pixels).ask(QUESTION)]), "output"),
        (lambda: study.structured_report(content_time="yesterday"), "invalid_argument"),
    ):
        with pytest.raises(anatomix.OutputError) as error:
            report()
        assert error.value.code == code and ";" in error.value.message
    with pytest.raises(TypeError, match="content_time is a text"):
        study.structured_report(content_time=3)
    with pytest.raises(TypeError):
        study.structured_report([study])


def test_overlays_are_pictures(study):
    for picture in (study.overlay(), study.ask(QUESTION).overlay()):
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    png = study.overlay_png()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000


def test_a_notebook_shows_the_overlay_and_no_markup_of_others(engine, study):
    html = study._repr_html_()
    assert "data:image/png;base64," in html and "not a medical device" in html
    answer = study.ask("Is <script>alert(1)</script> there?")
    assert "<script>" not in answer._repr_html_() and "&lt;script&gt;" in answer._repr_html_()
    loaded = engine.load_study(study.save_bytes())
    assert "<table>" in loaded._repr_html_() and "Left lung" in loaded._repr_html_()


def test_several_questions_have_the_answers_of_each(engine, study):
    questions = [QUESTION, anatomix.Question("", task="report"), anatomix.Question("Is there a pleural effusion?", max_tokens=3)]
    together = study.ask_many(questions)
    alone = [engine.study(PHANTOM).ask(question) for question in questions]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert together[2].tokens <= 3


def test_a_follow_up_continues_and_rewinding_forgets(study):
    study.ask(QUESTION)
    study.ask("And the right lung?", follow_up=True)
    assert study.turns == 2
    study.rewind(1)
    assert study.turns == 1


def test_a_saved_study_is_asked_without_prefill(engine, study, tmp_path):
    answer = study.ask(QUESTION)
    data = study.save_bytes()
    assert isinstance(data, bytes) and anatomix.is_saved_study(data) and not anatomix.is_saved_study(b"nothing")
    path = tmp_path / "a.study"
    path.write_bytes(data)
    for loaded in (engine.load_study(data), engine.load_study(memoryview(data)), engine.open_study(path)):
        again = loaded.ask(QUESTION)
        assert again.text == answer.text and again.prefilled < answer.prefilled
        with pytest.raises(ValueError, match="does not hold its radiograph"):
            loaded.overlay()
    for damaged in (b"", data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1])):
        with pytest.raises(anatomix.SavedError) as error:
            engine.load_study(damaged)
        assert error.value.code == "saved" and ";" in error.value.message


def test_studies_have_an_outcome_each(engine, study, tmp_path):
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no picture")
    first, missing, damaged, last = engine.studies([PHANTOM, tmp_path / "none.dcm", broken, anatomix.Radiograph.open(PHANTOM)])
    for one in (first, last):
        assert one.to_dict()["structures"] == study.to_dict()["structures"]
    assert isinstance(missing, anatomix.RadiographError) and missing.code == "radiograph_read"
    assert isinstance(damaged, anatomix.RadiographError) and damaged.code == "radiograph_format"
    assert engine.studies([]) == []


def test_pickling_is_refused_with_advice(engine, study):
    live = {"save_bytes": study, "each process": engine, "to_dict": study.ask(QUESTION), "path": anatomix.Radiograph.open(PHANTOM)}
    for advice, one in live.items():
        for refused in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match=advice):
                refused(one)
    # Data and errors can be passed between processes.
    structures = pickle.loads(pickle.dumps(study.structures))
    assert structures == study.structures
    error = pickle.loads(pickle.dumps(anatomix.BundleError("it is gone", "bundle_missing", "no such file")))
    assert (type(error), error.code, str(error)) == (anatomix.BundleError, "bundle_missing", "it is gone; caused by: no such file")


def test_representations_say_what_it_is(engine, study):
    assert repr(engine) == f'<anatomix.Engine "{engine.bundle}" on cpu>'
    assert "phantom.dcm" in repr(study) and "pixels" in repr(study)
    assert "report" in repr(anatomix.Question(task="report"))
