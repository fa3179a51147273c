"""FHIR bundles: valid R4 resources, with the values of the JSON and the codes of the structured report."""

import json
import xml.etree.ElementTree as xml

import pydicom
import pytest
from conftest import check_refused
from fhir.resources.R4B.bundle import Bundle
from report import groups, read

QUESTIONS = ["Where is the left lung?", "Is <b>there</b> a pleural effusion & more?"]
SCT, DCM = "http://snomed.info/sct", "http://dicom.nema.org/resources/ontology/DCM"


def load(path) -> dict:
    """A bundle that the models of R4 accept, whose references all lead to one of its resources; the resources by their kind."""
    content = path.read_bytes()
    Bundle.model_validate_json(content)
    bundle = json.loads(content)
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls) and all(url.startswith("urn:uuid:") for url in urls)

    def check(value):
        if isinstance(value, dict):
            assert value, "an empty object"
            assert "reference" not in value or value["reference"] in urls
            for one in value.values():
                check(one)
        elif isinstance(value, list):
            assert value, "an empty list"
            for one in value:
                check(one)
        else:
            assert value is not None and value != ""

    check(bundle)
    found = {}
    for entry in bundle["entry"]:
        found.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    assert {kind: len(found[kind]) for kind in found if kind != "Observation"} == dict.fromkeys(
        ("DiagnosticReport", "Patient", "ImagingStudy", "Device"), 1
    )
    # The report lists every observation.
    (report,) = found["DiagnosticReport"]
    listed = [result["reference"] for result in report["result"]]
    assert sorted(listed) == sorted(
        entry["fullUrl"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Observation"
    )
    assert bundle["entry"][0]["resource"] == report
    return found


def code(concept) -> str:
    return concept["coding"][0]["code"]


def of(found: dict, wanted: str) -> list:
    """The observations with this code."""
    return [one for one in found["Observation"] if code(one["code"]) == wanted]


def components(observation) -> dict:
    """The components' values by their codes."""
    values = {}
    for one in observation["component"]:
        (value,) = [value for key, value in one.items() if key.startswith("value")]
        values[code(one["code"])] = value["value"] if "value" in value else value
    return values


def box(observation) -> list:
    parts = components(observation)
    return [parts[f"BOX_{edge}"] for edge in ("LEFT", "TOP", "RIGHT", "BOTTOM")]


@pytest.fixture(scope="module")
def asked(succeed, phantom_dicom, tmp_path_factory):
    """The bundle of a phantom with two questions, its path, the answers' JSON, and the structured report."""
    folder = tmp_path_factory.mktemp("fhir")
    path, report = folder / "bundle.json", folder / "report.dcm"
    printed = succeed("ask", phantom_dicom, *QUESTIONS, "--json", "--fhir", path, "--sr", report)
    return load(path), path, [json.loads(line) for line in printed.splitlines()], report


def test_structures_have_the_boxes_of_the_json_and_the_sites_of_the_report(asked, perceive, phantom_dicom):
    found, _, _, report = asked
    observed = [one for one in of(found, "121071") if "valueString" in one]
    sites = [group.one("363698007") for group in groups(read(report)[1])[:36]]
    structures = perceive(phantom_dicom)["structures"]
    assert len(observed) == len(sites) == len(structures) == 36
    for one, site, structure in zip(observed, sites, structures):
        assert one["bodySite"]["text"] == structure["name"] and one["valueString"] == structure["sentence"]
        assert (code(one["bodySite"]), one["bodySite"]["coding"][0]["display"]) == (site.value[0], site.value[2])
        assert (one["bodySite"]["coding"][0]["system"] == SCT) == (site.value[1] == "SCT")
        parts = components(one)
        assert box(one) == structure["box"]
        assert (parts["SIMILARITY"], parts["MARGIN"]) == (structure["similarity"], structure["margin"])
        side = [code(parts["272741003"])] if "272741003" in parts else []
        assert side == [side.value[0] for side in site.all("272741003")]


def test_labels_and_flags_are_those_of_the_json(succeed, radiographs, perceive, tmp_path):
    image, path = radiographs / "RG3_UNCI.dcm", tmp_path / "bundle.json"
    succeed("perceive", image, "--fhir", path, "--content-time", "20261126093000")
    found, study = load(path), perceive(image)
    scores = {one["code"]["text"]: one["valueQuantity"]["value"] for one in found["Observation"] if "method" in one}
    assert scores == study["labels"]
    flags = [f"{flag['code']} ({flag['severity']}): {flag['message']}" for flag in study["flags"]]
    assert flags and [one["valueString"] for one in of(found, "FLAG")] == flags
    (report,) = found["DiagnosticReport"]
    assert all(flag in report["conclusion"] for flag in flags)


def test_answers_have_their_texts_and_boxes(asked):
    found, path, answers, _ = asked
    resources = {entry["fullUrl"]: entry["resource"] for entry in json.loads(path.read_bytes())["entry"]}
    observed = of(found, "ANSWER")
    assert len(observed) == len(answers) == 2
    for one, answer in zip(observed, answers):
        parts = components(one)
        assert (one["valueString"], parts["QUESTION"], parts["FINISH"]) == (answer["text"], answer["question"], answer["finish"])
        assert parts["DECODING"] == answer["provenance"]["decoding"]
        regions = [resources[member["reference"]] for member in one.get("hasMember", [])]
        boxes = [(grounding["phrase"], bounds) for grounding in answer["groundings"] for bounds in grounding["boxes"]]
        assert [(region["valueCodeableConcept"]["text"], box(region)) for region in regions] == boxes
    assert any("hasMember" in one for one in observed)


def test_the_report_says_what_it_is(asked, perceive, phantom_dicom):
    found, _, answers, _ = asked
    (report,), source = found["DiagnosticReport"], pydicom.dcmread(phantom_dicom)
    assert (report["status"], code(report["code"])) == ("preliminary", "18748-4")
    assert {one["status"] for one in found["Observation"]} == {"preliminary"}
    for part in ("not a medical device", "No person has verified this", "uncalibrated", *(answer["text"] for answer in answers)):
        assert part in report["conclusion"]
    assert "incomplete" not in report["conclusion"]
    # The narrative is XHTML, and the question's markup is text.
    narrative = xml.fromstring(report["text"]["div"])
    assert QUESTIONS[1] in "".join(narrative.itertext()) and {one.tag.split("}")[1] for one in narrative.iter()} == {"div", "br"}
    (study,), (device,) = found["ImagingStudy"], found["Device"]
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": f"urn:oid:{source.StudyInstanceUID}"}
    (series,) = study["series"]
    (instance,) = series["instance"]
    assert (series["uid"], series["modality"]["code"]) == (source.SeriesInstanceUID, source.Modality)
    assert (instance["uid"], instance["sopClass"]["code"]) == (source.SOPInstanceUID, f"urn:oid:{source.SOPClassUID}")
    assert device["serialNumber"] == perceive(phantom_dicom)["provenance"]["bundle_sha256"]
    assert "not a medical device" in device["note"][0]["text"]


def test_the_same_result_is_the_same_bundle(succeed, asked, phantom_dicom, tmp_path):
    _, path, _, _ = asked
    again, saved, loaded, other = (tmp_path / name for name in ("again.json", "chest.study", "loaded.json", "other.json"))
    succeed("ask", phantom_dicom, *QUESTIONS, "--fhir", again, "--save", saved)
    assert again.read_bytes() == path.read_bytes()
    succeed("ask", saved, *QUESTIONS, "--fhir", loaded)
    assert loaded.read_bytes() == path.read_bytes()
    # The same question twice: equal answers, and yet no two resources with the same name.
    succeed("ask", phantom_dicom, QUESTIONS[0], QUESTIONS[0], "--fhir", other, "--content-time", "20261126093000")
    found = load(other)
    assert len(of(found, "ANSWER")) == 2
    assert found["DiagnosticReport"][0]["effectiveDateTime"] == "2026-11-26"


def test_a_cut_answer_makes_a_partial_report(succeed, phantom_dicom, tmp_path):
    path = tmp_path / "bundle.json"
    succeed("report", phantom_dicom, "--max-tokens", "3", "--fhir", path)
    (report,) = load(path)["DiagnosticReport"]
    assert report["status"] == "partial"
    # Who reads the texts alone sees it, too.
    assert report["conclusion"].endswith(" (incomplete: max_tokens)")
    assert "(incomplete: max_tokens)</div>" in report["text"]["div"]


def test_a_real_radiograph_has_its_patient_and_nothing_else(succeed, radiographs, tmp_path):
    image, path = radiographs / "RG1_UNCI.dcm", tmp_path / "bundle.json"
    succeed("report", image, "--fhir", path)
    found, source = load(path), pydicom.dcmread(image)
    (patient,), (report,) = found["Patient"], found["DiagnosticReport"]
    assert patient["identifier"][0]["value"] == source.PatientID
    assert patient["name"][0]["family"] == source.PatientName.family_name
    zone = source.TimezoneOffsetFromUTC
    day, time = source.ContentDate, source.ContentTime
    expected = f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}{zone[:3]}:{zone[3:]}"
    assert report["effectiveDateTime"] == expected
    content = path.read_text()
    for value in (source.InstitutionName, source.StationName, source.StudyDescription, source.DeviceSerialNumber, str(image)):
        assert value not in content, value


def test_names_have_all_their_ways_of_writing(changed):
    def change(dataset):
        dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
        dataset.PatientSex = "F"
        dataset.PatientBirthDate = "19400305"

    result, path = changed(change, form="--fhir")
    assert result.returncode == 0, result.stderr
    (patient,) = load(path)["Patient"]
    names = [(name["family"], name["given"]) for name in patient["name"]]
    assert names == [("Yamada", ["Tarou"]), ("山田", ["太郎"]), ("やまだ", ["たろう"])]
    assert (patient["gender"], patient["birthDate"]) == ("female", "1940-03-05")


def test_a_poor_header_gives_a_valid_bundle(changed):
    def change(dataset):
        for keyword in ("PatientName", "PatientID", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName", "Modality"):
            delattr(dataset, keyword)
        dataset.PatientBirthDate = "05.03.1940"
        dataset.StudyTime = "noon"
        dataset.StudyDate = ""

    result, path = changed(change, form="--fhir")
    assert result.returncode == 0, result.stderr
    found = load(path)
    assert found["Patient"] == [{"resourceType": "Patient"}]
    assert "started" not in found["ImagingStudy"][0] and found["ImagingStudy"][0]["modality"][0]["code"] == "OT"


@pytest.mark.parametrize("change", [
    lambda d: delattr(d, "StudyInstanceUID"),
    lambda d: setattr(d, "PatientID", "7" * 65),
    lambda d: d.add_new("PatientName", "OB", b"J\xe9r\xf4me"),
    lambda d: [delattr(d, k) for k in ("ContentDate", "StudyTime")],
])
def test_a_header_that_names_nobody_for_sure_is_refused(changed, change):
    result, path = changed(change, form="--fhir")
    check_refused(result, "DICOM object or FHIR bundle cannot be made")
    assert not path.exists()


def test_a_picture_without_patient_is_refused(run, phantom_dicom, tmp_path):
    overlay, path = tmp_path / "picture.png", tmp_path / "bundle.json"
    assert run("perceive", phantom_dicom, "--overlay", overlay).returncode == 0
    check_refused(run("perceive", overlay, "--fhir", path), "picture.png", "not a DICOM file", "give the DICOM file")
    assert not path.exists()
