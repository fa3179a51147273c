"""Presentation states: the boxes of the JSON as graphics, the image's own display chain, and the receivers' own tools."""

import importlib.metadata
import json
import subprocess

import numpy as np
import pydicom
import pytest
from conftest import check_refused
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from receivers import tool, validated

QUESTIONS = ["Where is the left lung?", "Is there a pleural effusion?"]
UID = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.fixture(scope="module")
def asked(succeed, phantom_dicom, tmp_path_factory):
    """The presentation state of a phantom with two questions, and the answers' JSON."""
    path = tmp_path_factory.mktemp("state") / "state.dcm"
    printed = succeed("ask", phantom_dicom, *QUESTIONS, "--json", "--gsps", path)
    return path, [json.loads(line) for line in printed.splitlines()]


@pytest.fixture(scope="module")
def real(succeed, radiographs, tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "state.dcm"
    succeed("report", radiographs / "RG1_UNCI.dcm", "--gsps", path)
    return path


def layers(dataset: Dataset, source: Dataset) -> dict:
    """The boxes of each layer with the label that begins at their corner, and a check of each element."""
    found = {}
    for annotation in dataset.GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
        labels = {}
        for label in annotation.get("TextObjectSequence", []):
            assert (label.AnchorPointAnnotationUnits, label.AnchorPointVisibility) == ("PIXEL", "N")
            labels.setdefault(tuple(label.AnchorPoint), []).append(label.UnformattedTextValue)
        boxes = []
        for graphic in annotation.GraphicObjectSequence:
            x0, y0, x1, _, _, y1 = graphic.GraphicData[:6]
            assert list(graphic.GraphicData) == [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0], "not the closed outline of a box"
            form = graphic.GraphicAnnotationUnits, graphic.GraphicDimensions, graphic.NumberOfGraphicPoints, graphic.GraphicType
            assert (*form, graphic.GraphicFilled) == ("PIXEL", 2, 5, "POLYLINE", "N")
            assert 0 <= x0 <= x1 <= source.Columns and 0 <= y0 <= y1 <= source.Rows
            boxes.append((labels[x0, y0].pop(0), [x0, y0, x1, y1]))
        assert not any(labels.values()), "a label has no box"
        found[annotation.GraphicLayer] = boxes
    assert [layer.GraphicLayer for layer in dataset.GraphicLayerSequence] == list(found)
    assert [layer.GraphicLayerOrder for layer in dataset.GraphicLayerSequence] == list(range(1, len(found) + 1))
    return found


def test_the_boxes_are_those_of_the_json(asked, perceive, phantom_dicom):
    path, answers = asked
    source = pydicom.dcmread(phantom_dicom)
    found = layers(pydicom.dcmread(path), source)
    structures = perceive(phantom_dicom)["structures"]
    expected = {structure["name"]: structure["box"] for structure in structures}
    shown = found.pop("STRUCTURES", []) + found.pop("FINDINGS", [])
    assert {label.split(":")[0]: box for label, box in shown} == {name: pytest.approx(box, abs=1e-3) for name, box in expected.items()}
    assert len(shown) == 36
    grounded = {
        f"ANSWER_{number}": [(one["phrase"], pytest.approx(box, abs=1e-3)) for one in answer["groundings"] for box in one["boxes"]]
        for number, answer in enumerate(answers, 1)
        if any(one["boxes"] for one in answer["groundings"])
    }
    assert grounded and found == grounded


def test_findings_are_in_their_own_layer_with_what_was_found(real, perceive, radiographs):
    image = radiographs / "RG1_UNCI.dcm"
    found = layers(pydicom.dcmread(real), pydicom.dcmread(image))
    for structure in perceive(image)["structures"]:
        name, sentence = structure["name"], structure["sentence"]
        (layer,) = [layer for layer, boxes in found.items() if any(label.split(":")[0] == name for label, _ in boxes)]
        (label,) = [label for label, _ in found[layer] if label.split(":")[0] == name]
        if sentence.endswith("is healthy."):
            assert (layer, label) == ("STRUCTURES", name)
        else:
            assert layer == "FINDINGS" and label.split(": ")[1] in sentence


def test_it_shows_the_whole_image_as_its_header_says(asked, real, phantom_dicom, radiographs):
    for path, image in ((asked[0], phantom_dicom), (real, radiographs / "RG1_UNCI.dcm")):
        state, source = pydicom.dcmread(path), pydicom.dcmread(image)
        assert (state.SOPClassUID, state.Modality, state.ContentLabel) == (UID, "PR", "ANATOMIX")
        (area,) = state.DisplayedAreaSelectionSequence
        assert (list(area.DisplayedAreaTopLeftHandCorner), area.PresentationSizeMode) == ([1, 1], "SCALE TO FIT")
        assert list(area.DisplayedAreaBottomRightHandCorner) == [source.Columns, source.Rows]
        assert list(area.PresentationPixelAspectRatio) == [1, 1]
        assert state.BodyPartExamined == "CHEST"
        (window,) = state.SoftcopyVOILUTSequence
        assert (window.WindowCenter, window.WindowWidth) == (source.WindowCenter, source.WindowWidth)
        inverted = source.PhotometricInterpretation == "MONOCHROME1"
        assert state.PresentationLUTShape == ("INVERSE" if inverted else "IDENTITY")
        (series,) = state.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID != state.SeriesInstanceUID
        (referenced,) = series.ReferencedImageSequence
        assert (referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
            assert state[keyword].value == source[keyword].value, keyword
        assert (state.PresentationCreationDate, state.PresentationCreationTime) == (source.ContentDate, source.ContentTime)
        assert not [element.tag for element in state.iterall() if element.tag.is_private]


def test_the_same_result_is_the_same_object(succeed, asked, phantom_dicom, tmp_path):
    path, _ = asked
    again, saved, loaded, other = (tmp_path / name for name in ("again.dcm", "chest.study", "loaded.dcm", "other.dcm"))
    succeed("ask", phantom_dicom, *QUESTIONS, "--gsps", again, "--save", saved)
    assert again.read_bytes() == path.read_bytes()
    succeed("ask", saved, *QUESTIONS, "--gsps", loaded)
    assert loaded.read_bytes() == path.read_bytes()
    succeed("ask", phantom_dicom, QUESTIONS[0], "--gsps", other, "--content-time", "20261126093000")
    first, second = pydicom.dcmread(path), pydicom.dcmread(other)
    assert first.SOPInstanceUID != second.SOPInstanceUID and first.SeriesInstanceUID == second.SeriesInstanceUID
    assert (second.PresentationCreationDate, second.PresentationCreationTime) == ("20261126", "093000")


def test_several_images_get_their_own(run, phantom_dicom, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    done = run("perceive", phantom_dicom, "--gsps", out / "a.dcm", "--sr", out / "b.dcm")
    assert done.returncode == 0 and sorted(file.name for file in out.iterdir()) == ["a.dcm", "b.dcm"], done.stderr
    for arguments in (["--gsps", out, "--sr", out], ["--gsps", out / "x", "--sr", out / "x"]):
        assert run("perceive", phantom_dicom, *arguments).returncode in (1, 2)
    assert run("perceive", phantom_dicom, "--content-time", "20261126093000").returncode == 2


# A header that is odd: the state is refused or valid, and shows what the radiograph's own pixels show.


def lut(first, values, bits):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes())
    item.ModalityLUTType = "US"
    return item


def voi_lut(first, values, bits):
    item = lut(first, values, bits)
    del item.ModalityLUTType
    return item


def no_window(dataset):
    del dataset.WindowCenter, dataset.WindowWidth


DISPLAYS = {
    "as it is": lambda d: None,
    "inverse": lambda d: setattr(d, "PhotometricInterpretation", "MONOCHROME1"),
    "no window": no_window,
    "two windows": lambda d: [setattr(d, "WindowCenter", [1500, 40]), setattr(d, "WindowWidth", [1700.5, 400])],
    "rescaled": lambda d: [setattr(d, "RescaleSlope", "0.5"), setattr(d, "RescaleIntercept", "-1024"), setattr(d, "WindowCenter", 0)],
    "voi lut": lambda d: setattr(d, "VOILUTSequence", [voi_lut(0, np.linspace(0, 255, 4096) ** 2, 16)]),
    "modality lut": lambda d: [
        delattr(d, "RescaleSlope"), delattr(d, "RescaleIntercept"), delattr(d, "RescaleType"),
        setattr(d, "ModalityLUTSequence", [lut(0, np.linspace(0, 255.99, 4096) ** 2, 16)]),
        setattr(d, "WindowCenter", 30000), setattr(d, "WindowWidth", 50000),
    ],
}


@pytest.mark.parametrize("case", DISPLAYS)
def test_dcmtk_displays_the_image_as_pydicom_does(changed, case, tmp_path):
    """dcmp2pgm, which applies a presentation state to an image, against pydicom's pipeline on the image's own header."""
    result, path = changed(DISPLAYS[case], form="--gsps")
    assert result.returncode == 0, result.stderr
    image, picture = path.with_name("changed.dcm"), tmp_path / "shown.pgm"
    command = [tool("dcmp2pgm", "dcmtk"), "--pstate", path, image, picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))], done.stderr
    source = pydicom.dcmread(image)
    # pydicom looks up whole numbers only.
    values = apply_modality_lut(source.pixel_array, source).astype(np.int64 if case == "voi lut" else float)
    shown = np.asarray(apply_voi_lut(values, source, index=0), float)
    low, high = shown.min(), shown.max()
    if "WindowCenter" in source or "VOILUTSequence" in source:
        low, high = (0, 65535) if case == "voi lut" else window_range(source, values)
    expected = np.clip((shown - low) / (high - low), 0, 1) * 255
    if source.PhotometricInterpretation == "MONOCHROME1":
        expected = 255 - expected
    seen = np.asarray(Image.open(picture), float)
    assert seen.shape == (source.Rows, source.Columns)
    assert np.abs(seen - expected).max() <= 2
    assert validated(path, "GrayscaleSoftcopyPresentationState") == []


def test_the_function_of_a_window_is_repeated(changed):
    """Here dcmtk knows no other than LINEAR."""
    for function, width in (("LINEAR", 1000), ("LINEAR_EXACT", 0.5), ("SIGMOID", 800.25)):
        change = lambda d: [setattr(d, "VOILUTFunction", function), setattr(d, "WindowWidth", width)]
        result, path = changed(change, form="--gsps")
        assert result.returncode == 0, result.stderr
        (window,) = pydicom.dcmread(path).SoftcopyVOILUTSequence
        assert (window.VOILUTFunction, window.WindowWidth) == (function, width)
        assert validated(path, "GrayscaleSoftcopyPresentationState") == []


# Decimal strings as long as DICOM allows, 16 characters.
LONG = ["1234567.89012345", "-.12345678901234", "123456789012e-30", "12345678.9012e-3", "0.30000000000001", "99999999999999.5", "1e-9"]


@pytest.mark.parametrize("number", LONG)
def test_numbers_of_the_header_are_repeated_exactly(changed, number):
    """A narrow window on large values would show something else if its centre were rounded."""

    def change(dataset):
        for keyword, text in (("RescaleIntercept", number), ("WindowCenter", number), ("WindowWidth", number.lstrip("-"))):
            dataset[keyword] = pydicom.DataElement(pydicom.datadict.tag_for_keyword(keyword), "DS", text)
        dataset.RescaleSlope = "0.1234567890123"
        dataset.VOILUTFunction = "LINEAR_EXACT"

    result, path = changed(change, form="--gsps")
    assert result.returncode == 0, result.stderr
    state = pydicom.dcmread(path)
    (window,) = state.SoftcopyVOILUTSequence
    expected = [float(number), 0.1234567890123, float(number), abs(float(number))]
    written = [state.RescaleIntercept, state.RescaleSlope, window.WindowCenter, window.WindowWidth]
    assert [float(one) for one in written] == expected
    assert all(len(one.original_string) <= 16 for one in written), written
    assert validated(path, "GrayscaleSoftcopyPresentationState") == []


def window_range(source, values):
    """The values that pydicom gives to the ends of the window: it scales to the range of possible values."""
    extremes = np.array([[-1e6, 1e6]])
    return apply_voi_lut(extremes, source, index=0).ravel()


BAD = {
    "no study": (lambda d: delattr(d, "StudyInstanceUID"), "no Study Instance UID"),
    "long number": (lambda d: setattr(d, "PatientID", "7" * 65), "Patient ID (0010,0020) has 65 characters"),
    "no time": (lambda d: [delattr(d, k) for k in ("ContentDate", "StudyTime")], "no date and time"),
    "overflow": (lambda d: [setattr(d, "RescaleSlope", "1e308"), no_window(d)], "how it is displayed"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_header_that_cannot_be_referred_to_is_refused(changed, case):
    change, message = BAD[case]
    result, path = changed(change, form="--gsps")
    check_refused(result, "DICOM object or FHIR bundle cannot be made")
    assert message in result.stderr and not path.exists(), result.stderr


def test_pixels_have_the_shape_that_the_header_says(changed):
    for change, ratio in (
        (lambda d: [setattr(d, "PixelSpacing", [0.2, 0.4]), setattr(d, "ImagerPixelSpacing", [0.2, 0.4])], [2000, 4000]),
        (lambda d: [delattr(d, "PixelSpacing"), delattr(d, "ImagerPixelSpacing"), setattr(d, "PixelAspectRatio", [3, 4])], [3, 4]),
        (lambda d: [delattr(d, "PixelSpacing"), delattr(d, "ImagerPixelSpacing"), d.add_new("PixelAspectRatio", "IS", "0\\4")], [1, 1]),
    ):
        result, path = changed(change, form="--gsps")
        assert result.returncode == 0, result.stderr
        assert list(pydicom.dcmread(path).DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio) == ratio


def test_a_picture_without_patient_is_refused(run, phantom_dicom, tmp_path):
    overlay, path = tmp_path / "picture.png", tmp_path / "state.dcm"
    assert run("perceive", phantom_dicom, "--overlay", overlay).returncode == 0
    check_refused(run("perceive", overlay, "--gsps", path), "picture.png", "not a DICOM file", "give the DICOM file")
    assert not path.exists()


def test_look_up_tables_of_real_files_are_repeated(run, tmp_path):
    """The tables of pydicom-data's own files, which are not radiographs."""
    for name in ("mlut_18.dcm", "vlut_04.dcm"):
        (file,) = [file for file in importlib.metadata.distribution("pydicom-data").files if file.name == name]
        source, path = pydicom.dcmread(file.locate()), tmp_path / f"{name}.gsps"
        keyword = "ModalityLUTSequence" if "ModalityLUTSequence" in source else "VOILUTSequence"
        if source.get("StudyDate"):
            source.ContentDate, source.ContentTime = "20260101", "120000"
        source.save_as(tmp_path / name)
        done = run("perceive", tmp_path / name, "--gsps", path, "--content-time", "20260101120000")
        assert done.returncode == 0, done.stderr
        state = pydicom.dcmread(path)
        written = state if keyword in state else state.SoftcopyVOILUTSequence[0]
        ours, theirs = written[keyword].value[0], source[keyword].value[0]
        assert list(ours.LUTDescriptor) == list(theirs.LUTDescriptor)
        values = theirs.LUTData if isinstance(theirs.LUTData, bytes) else np.asarray(theirs.LUTData, "<u2").tobytes()
        assert ours.LUTData == values


# What the receivers say.


def test_dciodvfy_finds_nothing(asked, real):
    assert [validated(path, "GrayscaleSoftcopyPresentationState") for path in (asked[0], real)] == [[], []]


def test_dcmtk_reads_every_element(asked, real):
    for path in (asked[0], real):
        done = subprocess.run([tool("dcmdump", "dcmtk"), "--print-all", path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stderr == "" and "GraphicAnnotationSequence" in done.stdout, done.stderr


def test_an_archive_keeps_it_beside_its_image(archive, asked, real, phantom_dicom, radiographs):
    archive.keeps({asked[0]: phantom_dicom, real: radiographs / "RG1_UNCI.dcm"})


def test_what_is_no_chest_is_not_called_one(succeed, radiographs, tmp_path):
    path = tmp_path / "state.dcm"
    succeed("perceive", radiographs / "RG3_UNCI.dcm", "--gsps", path, "--content-time", "20261126093000")
    state = pydicom.dcmread(path)
    assert "BodyPartExamined" not in state and state.Laterality == ""
