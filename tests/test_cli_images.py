"""The command line on images: overlays, file formats, flags, real radiographs, images that cannot be used."""

import json

import numpy as np
import pydicom
import pytest
from conftest import iou
from PIL import Image
from records import HEART, LEFT_LUNG, RIGHT_LUNG, boxes, check_study

# Boxes that were read by eye on RG1, in its pixels.
RG1_BY_EYE = {HEART: (620, 780, 1430, 1480), LEFT_LUNG: (1000, 140, 1680, 1600), RIGHT_LUNG: (110, 140, 790, 1560)}


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
