"""Structured reports: the templates, row by row; the same values as in the JSON; and the receivers' own tools."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from conftest import check_refused
from receivers import tool, validated
from report import box, check, groups, item, read

QUESTIONS = ["Where is the left lung?", "Is there a pleural effusion?"]


@pytest.fixture(scope="module")
def asked(succeed, phantom_dicom, tmp_path_factory):
    """The report of a phantom with two questions, and the answers' JSON."""
    path = tmp_path_factory.mktemp("report") / "report.dcm"
    printed = succeed("ask", phantom_dicom, *QUESTIONS, "--json", "--sr", path)
    return path, [json.loads(line) for line in printed.splitlines()]


@pytest.fixture(scope="module")
def phantom(phantom_dicom):
    """The header of the phantom."""
    return pydicom.dcmread(phantom_dicom)


def test_every_group_has_its_rows_and_the_boxes_of_the_json(asked, phantom, perceive, phantom_dicom):
    path, answers = asked
    dataset, tree = read(path)
    check(dataset, tree, phantom)
    found, structures = groups(tree), perceive(phantom_dicom)["structures"]
    for group, structure in zip(found, structures):
        assert group.one("112039").value == structure["name"]
        assert box(group) == pytest.approx(structure["box"], abs=1e-3)
        assert group.one("SENTENCE").value == structure["sentence"]
        numbers = [group.one(concept).value[0] for concept in ("SIMILARITY", "MARGIN")]
        assert numbers == pytest.approx([structure["similarity"], structure["margin"]], abs=1e-6)
        side = [one.value[2] for one in group.one("363698007").all("272741003")]
        quadrant = group.one("363698007").value[0] in ("86367003", "50519007")
        named = [side for side in ("Left", "Right") if side.lower() in structure["name"].lower()]
        unpaired = structure["name"] in ("Right atrial structure",)
        assert side == ([] if quadrant or unpaired else named), structure["name"]
    grounded = [(one["phrase"], bounds) for answer in answers for one in answer["groundings"] for bounds in one["boxes"]]
    assert grounded, "no answer has a box"
    assert len(found) == 36 + len(grounded)
    for group, (phrase, bounds) in zip(found[36:], grounded):
        assert group.one("GROUNDED_PHRASE").value == phrase and phrase in group.one("112039").value
        assert box(group) == pytest.approx(bounds, abs=1e-3)
    lung = next(group for group, (phrase, _) in zip(found[36:], grounded) if phrase.lower() == "left lung")
    assert lung.one("363698007").value[0] == "39607008" and lung.one("363698007").one("272741003").value[2] == "Left"


@pytest.mark.parametrize("row", ["112039", "112040", "121071", "130400", "111030", "363698007", "111001", "111003", "111002"])
def test_a_missing_row_of_a_group_is_noticed(asked, phantom, row):
    dataset = pydicom.dcmread(asked[0])
    (measurements,) = [one for one in dataset.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010"]
    group = measurements.ContentSequence[7]
    rows = [one for one in group.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue != row]
    assert len(rows) < len(group.ContentSequence)
    group.ContentSequence = rows
    with pytest.raises((AssertionError, ValueError)):
        check(dataset, item(dataset), phantom)


def test_answers_flags_and_scores_are_reported_with_their_limits(asked, perceive, phantom_dicom):
    path, answers = asked
    _, tree = read(path)
    evaluations = tree.one("C0034375")
    written = [(one.one("QUESTION").value, one.value, one.one("FINISH").value) for one in evaluations.all("ANSWER")]
    assert written == [(answer["question"], answer["text"].strip(), answer["finish"]) for answer in answers]
    study = perceive(phantom_dicom)
    assert [one.value for one in evaluations.all("FLAG")] == [
        f"{flag['code']} ({flag['severity']}): {flag['message']}" for flag in study["flags"]
    ]
    assert "not a medical device" in evaluations.one("INTENDED_USE").value
    assert "uncalibrated" in evaluations.one("CALIBRATION").value
    scores = tree.one("IMAGE_LABELS").children
    assert [score.value[0] for score in scores] == pytest.approx(list(study["labels"].values()), abs=1e-6)
    assert [score.concept[0] for score in scores if score.concept[1] == "SCT"] == ["19242006", "60046008", "36118008"]


def test_the_same_result_is_the_same_object(succeed, asked, phantom_dicom, tmp_path):
    path, _ = asked
    again = tmp_path / "again.dcm"
    succeed("ask", phantom_dicom, *QUESTIONS, "--sr", again)
    assert again.read_bytes() == path.read_bytes()
    # Another content is another object in the same series.
    other = tmp_path / "other.dcm"
    succeed("ask", phantom_dicom, QUESTIONS[0], "--sr", other)
    first, second = pydicom.dcmread(path), pydicom.dcmread(other)
    assert first.SOPInstanceUID != second.SOPInstanceUID and first.SeriesInstanceUID == second.SeriesInstanceUID


def test_a_saved_study_gives_the_same_report(succeed, phantom_dicom, tmp_path):
    direct, saved, loaded = (tmp_path / name for name in ("direct.dcm", "chest.study", "loaded.dcm"))
    succeed("ask", phantom_dicom, QUESTIONS[0], "--sr", direct, "--save", saved)
    succeed("ask", saved, QUESTIONS[0], "--sr", loaded)
    assert loaded.read_bytes() == direct.read_bytes()


def test_a_real_radiograph_has_its_patient_and_nothing_else(succeed, radiographs, tmp_path):
    image, path = radiographs / "RG1_UNCI.dcm", tmp_path / "report.dcm"
    succeed("report", image, "--sr", path)
    source = pydicom.dcmread(image)
    dataset, tree = read(path)
    check(dataset, tree, source)
    copied = ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"]
    for keyword in [*copied, "ReferringPhysicianName", "TimezoneOffsetFromUTC", "ContentDate", "ContentTime"]:
        assert dataset[keyword].value == source[keyword].value, keyword
    content = path.read_bytes()
    for value in (source.InstitutionName, source.StationName, source.StudyDescription, source.DeviceSerialNumber, str(image)):
        assert value.encode() not in content, value


def test_the_class_and_the_time_can_be_chosen(changed, phantom):
    result, path = changed(lambda dataset: None, "--comprehensive-sr", "--content-time", "20261126093000")
    assert result.returncode == 0, result.stderr
    dataset, tree = read(path)
    check(dataset, tree, phantom)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert (dataset.ContentDate, dataset.ContentTime, dataset.StudyDate) == ("20261126", "093000", "20260101")
    for time in ("today", "20261126", "202611260930", "20261326093000", "2026112609é"):
        refused = changed(lambda dataset: None, "--content-time", time)[0]
        assert refused.returncode == 2 and f"'{time}'" in refused.stderr and "as YYYYMMDDhhmmss" in refused.stderr


def test_a_picture_without_patient_is_refused(run, phantom_dicom, tmp_path):
    overlay, path = tmp_path / "picture.png", tmp_path / "report.dcm"
    assert run("perceive", phantom_dicom, "--overlay", overlay).returncode == 0
    for command in (["perceive", overlay], ["report", overlay, "--accept-flags"]):
        check_refused(run(*command, "--sr", path), "picture.png", "not a DICOM file", "give the DICOM file")
    assert not path.exists()


def test_files_are_kept_apart(run, phantom_dicom, bundle, tmp_path):
    out = tmp_path / "out"
    for arguments, message in (
        (["--sr", phantom_dicom], "would replace"),
        (["--sr", bundle / "report.dcm"], "into the bundle"),
        (["--sr", out, "--overlay", out], "name the same file"),
    ):
        for command in (["perceive", phantom_dicom], ["report", phantom_dicom]):
            result = run(*command, *arguments)
            assert result.returncode == 2 and message in result.stderr, result.stderr
    copies = [shutil.copy(phantom_dicom, tmp_path / name) for name in ("a.dcm", "b.dcm")]
    out.mkdir()
    assert run("perceive", *copies, "--sr", out).returncode == 0
    assert sorted(file.name for file in out.iterdir()) == ["a.sr.dcm", "b.sr.dcm"]


NAMES = [
    ("ISO_IR 100", "Buc^Jérôme"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("ISO_IR 148", "Çağıl^Şükrü"),
    ("ISO_IR 166", "นามสกุล^ชื่อ"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    (["ISO 2022 IR 100", "ISO 2022 IR 126"], "Dionysios^Διονυσιος"),
    ([f"ISO 2022 IR {number}" for number in (6, 100, 101, 109, 110, 126, 144)], "Luxembourg=Διονυσιος=Люксембург"),
]


@pytest.mark.parametrize(("charset", "name"), NAMES, ids=[str(charset) for charset, _ in NAMES])
def test_names_are_the_same_in_utf_8(changed, charset, name):
    def change(dataset):
        dataset.SpecificCharacterSet = charset
        dataset.PatientName = name

    result, path = changed(change)
    assert result.returncode == 0, result.stderr
    dataset = pydicom.dcmread(path)
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert str(dataset.PatientName) == name


def test_an_unknown_character_set_is_called_that(changed):
    def change(dataset):
        dataset.SpecificCharacterSet = "ISO_IR 999"
        dataset.add_new("PatientName", "OB", b"J\xe9r\xf4me")

    check_refused(changed(change)[0], '"ISO_IR 999", which is not supported', "ISO_IR 192")


def test_a_poor_header_gives_a_valid_report(changed, phantom):
    def change(dataset):
        for keyword in ("PatientName", "PatientID", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName", "Modality"):
            delattr(dataset, keyword)
        dataset.PatientBirthDate = "05.03.1940"
        dataset.StudyTime = "noon"
        dataset.StudyDate = ""

    result, path = changed(change)
    assert result.returncode == 0, result.stderr
    dataset = pydicom.dcmread(path)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        assert keyword in dataset and not dataset[keyword].value, keyword
    assert (dataset.ContentDate, dataset.ContentTime) == (phantom.ContentDate, phantom.ContentTime)
    assert validated(path) == []


BAD = {
    "no study": (lambda d: delattr(d, "StudyInstanceUID"), "no Study Instance UID (0020,000D); correct the header"),
    "no image": (lambda d: setattr(d, "SOPInstanceUID", ""), "no SOP Instance UID"),
    "letters": (lambda d: setattr(d, "StudyInstanceUID", "1.2.study"), "Study Instance UID (0020,000D) is not valid"),
    "long uid": (lambda d: setattr(d, "SeriesInstanceUID", "1." * 40 + "1"), "Series Instance UID"),
    "long number": (lambda d: setattr(d, "PatientID", "7" * 65), "Patient ID (0010,0020) has 65 characters"),
    "long name": (lambda d: setattr(d, "PatientName", "x" * 5000), "Patient's Name (0010,0010) has 5000 bytes"),
    "escape": (lambda d: setattr(d, "PatientID", "a\x07b"), "control characters"),
    "two numbers": (lambda d: setattr(d, "AccessionNumber", ["1", "2"]), "several values"),
    "undeclared": (lambda d: d.add_new("PatientName", "OB", b"J\xe9r\xf4me"), "cannot be decoded from the character set"),
    "no time": (lambda d: [delattr(d, k) for k in ("ContentDate", "StudyTime")], "no date and time"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_header_that_names_nobody_for_sure_is_refused(changed, case):
    change, message = BAD[case]
    result, path = changed(change)
    check_refused(result, "DICOM object or FHIR bundle cannot be made")
    assert message in result.stderr and not path.exists(), result.stderr


# What the receivers say.


@pytest.fixture(scope="module")
def reports(succeed, asked, radiographs, phantom_dicom, tmp_path_factory):
    """Reports of both classes, of a phantom and of a real radiograph."""
    folder = tmp_path_factory.mktemp("reports")
    succeed("ask", phantom_dicom, *QUESTIONS, "--sr", folder / "2d.dcm", "--comprehensive-sr")
    succeed("report", radiographs / "RG1_UNCI.dcm", "--sr", folder / "real.dcm")
    return [asked[0], folder / "2d.dcm", folder / "real.dcm"]


def test_dciodvfy_finds_nothing(reports):
    assert [validated(path) for path in reports] == [[]] * 3


def test_pixelmed_finds_no_error(reports):
    java, jars = tool("java", "default-jre-headless"), Path("/usr/share/java")
    if not (jars / "pixelmed.jar").exists():
        pytest.skip("pixelmed.jar (Debian's package libpixelmed-java) is missing")
    # The validator's expressions are larger than Java allows by default.
    limits = [f"-Djdk.xml.{limit}=0" for limit in ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")]
    classes = ":".join(str(jar) for jar in [jars / "pixelmed.jar", *sorted(jars.glob("*.jar"))])
    # Each takes half a minute.
    for path in reports[:2]:
        command = [java, *limits, "-cp", classes, "com.pixelmed.validate.DicomSRValidator", path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        said = (done.stdout + done.stderr).splitlines()
        assert any("Found Root Template TID_1500" in line for line in said) and "IOD validation complete" in said, said
        assert [line for line in said if line.startswith("Error")] == []


def test_dsrdump_and_tid1500reader_accept_it(reports, phantom_dicom, radiographs, tmp_path):
    for path, image in zip(reports, [phantom_dicom, phantom_dicom, radiographs / "RG1_UNCI.dcm"]):
        dumped = subprocess.run([tool("dsrdump", "dcmtk"), "+Pf", path], capture_output=True, text=True, timeout=60)
        assert dumped.returncode == 0 and "Image Region" in dumped.stdout and "E: " not in dumped.stderr, dumped.stderr
        reader = Path(os.environ.get("VIRTUAL_ENV", Path(shutil.which("python3")).parent.parent)) / "bin/tid1500reader"
        out = tmp_path / f"{path.stem}.json"
        command = [shutil.which("tid1500reader") or reader, "--inputDICOM", path, "--outputMetadata", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(out.read_text())["Measurements"], out.read_text()


def test_highdicom_reads_every_group(reports, asked):
    from highdicom.sr import srread

    for path in reports:
        report = srread(path)
        found = report.content.get_planar_roi_measurement_groups()
        _, tree = read(path)
        assert len(found) == len(groups(tree)) >= 36
        for group, ours in zip(found, groups(tree)):
            assert (group.tracking_identifier, group.tracking_uid) == (ours.one("112039").value, ours.one("112040").value)
            assert group.finding_type.value == ours.one("121071").value[0]
            assert group.finding_sites[0].value.value == ours.one("363698007").value[0]
            assert group.roi.value.ravel().tolist() == pytest.approx(ours.one("111030").value[1], abs=1e-3)
        measured = [group.get_measurements() for group in found[:36]]
        assert all(len(values) == 2 for values in measured)


def test_an_archive_keeps_it_beside_its_image(archive, reports, phantom_dicom, radiographs):
    archive.keeps(dict(zip(reports, [phantom_dicom, phantom_dicom, radiographs / "RG1_UNCI.dcm"])))
