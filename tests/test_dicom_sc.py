"""Secondary captures: the overlay's pixels as an image of the radiograph's study, and the receivers' own tools."""

import subprocess

import numpy as np
import pydicom
import pytest
from conftest import check_refused
from PIL import Image
from receivers import tool, validated

QUESTION = "Where is the left lung?"
KIND = "SCImage"


@pytest.fixture(scope="module")
def captures(succeed, phantom_dicom, radiographs, tmp_path_factory):
    """Captures with their images and overlays: of an answer about a phantom, and of the studies of a real chest and an extremity."""
    folder = tmp_path_factory.mktemp("captures")
    time = ["--content-time", "20261126093000"]
    made = []
    for name, image, command in (
        ("answer", phantom_dicom, ["ask", phantom_dicom, QUESTION]),
        ("real", radiographs / "RG1_UNCI.dcm", ["perceive", radiographs / "RG1_UNCI.dcm"]),
        ("extremity", radiographs / "RG3_UNCI.dcm", ["perceive", radiographs / "RG3_UNCI.dcm"]),
    ):
        capture, overlay = folder / f"{name}.dcm", folder / f"{name}.png"
        succeed(*command, "--sc", capture, "--overlay", overlay, *time)
        made.append((capture, image, overlay))
    return made


def test_it_is_the_overlay_and_says_so(captures):
    for path, image, overlay in captures:
        capture, source = pydicom.dcmread(path), pydicom.dcmread(image)
        assert np.array_equal(capture.pixel_array, np.asarray(Image.open(overlay).convert("RGB")))
        assert (capture.SOPClassUID, capture.Modality, capture.ConversionType) == ("1.2.840.10008.5.1.4.1.1.7", "OT", "WSD")
        assert (list(capture.ImageType), capture.BurnedInAnnotation) == (["DERIVED", "SECONDARY"], "YES")
        assert "not a medical device" in capture.DerivationDescription
        (referred,) = capture.SourceImageSequence
        assert (referred.ReferencedSOPClassUID, referred.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
        assert referred.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert capture.StudyInstanceUID == source.StudyInstanceUID and capture.SeriesInstanceUID != source.SeriesInstanceUID
        assert capture.PatientID == source.PatientID
        assert (capture.ContentDate, capture.ContentTime) == ("20261126", "093000")
        assert capture.LossyImageCompression == source.get("LossyImageCompression", "00")
        assert ("BodyPartExamined" in capture) == ("extremity" not in path.name)


SHARED = ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"]


def test_it_has_the_images_patient_and_nothing_private(changed):
    secrets = {"InstitutionName": "ST ELSEWHERE", "PatientAddress": "1 MAIN STREET", "OperatorsName": "DOE^JANE"}
    kept = {}

    def change(dataset):
        for keyword, value in secrets.items():
            setattr(dataset, keyword, value)
        dataset.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "PRIVATE NOTE")
        # An overlay of the header, which may show the patient's name.
        for element, vr, value in ((0x10, "US", 8), (0x11, "US", 8), (0x40, "CS", "G"), (0x3000, "OW", b"BURNEDIN")):
            dataset.add_new((0x6000, element), vr, value)
        dataset.BurnedInAnnotation = "NO"
        kept.update({keyword: dataset.get(keyword) for keyword in SHARED})

    result, path = changed(change, form="--sc")
    assert result.returncode == 0, result.stderr
    capture = pydicom.dcmread(path)
    assert {keyword: capture.get(keyword) for keyword in SHARED} == kept
    assert capture.BurnedInAnnotation == "YES"
    assert not [element.tag for element in capture.iterall() if element.tag.is_private or element.tag.group >> 8 == 0x60]
    assert not [value for value in (*secrets.values(), "PRIVATE NOTE", "BURNEDIN") if value.encode() in path.read_bytes()]


def test_the_same_result_is_the_same_object(succeed, captures, phantom_dicom, tmp_path):
    again, other = tmp_path / "again.dcm", tmp_path / "other.dcm"
    succeed("ask", phantom_dicom, QUESTION, "--sc", again, "--content-time", "20261126093000")
    assert again.read_bytes() == captures[0][0].read_bytes()
    succeed("perceive", phantom_dicom, "--sc", other)
    first, second = pydicom.dcmread(again), pydicom.dcmread(other)
    assert first.SOPInstanceUID != second.SOPInstanceUID and first.SeriesInstanceUID == second.SeriesInstanceUID


def test_what_has_no_picture_is_refused(run, succeed, phantom_dicom, tmp_path):
    saved, path, overlay = tmp_path / "chest.study", tmp_path / "capture.dcm", tmp_path / "picture.png"
    succeed("ask", phantom_dicom, QUESTION, "--save", saved, "--overlay", overlay)
    for arguments, message in (
        (["ask", saved, QUESTION], "--sc needs the radiograph itself"),
        (["ask", phantom_dicom, QUESTION, QUESTION], "--sc shows one answer"),
    ):
        result = run(*arguments, "--sc", path)
        assert result.returncode == 2 and message in result.stderr, result.stderr
    check_refused(run("perceive", overlay, "--sc", path), "picture.png", "not a DICOM file", "give the DICOM file")
    assert not path.exists()


def test_dciodvfy_finds_nothing(captures):
    answer, real, extremity = (validated(path, KIND) for path, _, _ in captures)
    assert (answer, real) == ([], [])
    # Which part of the body it is, and so its side, is not known: the one case in which Laterality is permitted to be empty.
    assert [said for said in extremity if "Laterality" not in said or said.startswith("Error")] == []


def test_dcmtk_draws_it(captures, tmp_path):
    picture = tmp_path / "drawn.ppm"
    for path, _, overlay in captures:
        done = subprocess.run([tool("dcmj2pnm", "dcmtk"), path, picture], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(overlay).convert("RGB")))


def test_an_archive_keeps_it_beside_its_image(archive, captures):
    archive.keeps({path: image for path, image, _ in captures})
