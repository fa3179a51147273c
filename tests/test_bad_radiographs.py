"""Radiographs that cannot be used or should not be trusted, on the command line: errors, flags, and bounded memory."""

import io
import itertools
import json
import random
import re
import resource
import struct
import zlib

import numpy as np
import pytest
from conftest import check_refused
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MPEG2MPML,
    generate_uid,
)


def grey(width=64, height=64) -> np.ndarray:
    return (np.add.outer(np.arange(height) * 3, np.arange(width)) % 4096).astype(np.uint16)


def dicom(path, syntax=ExplicitVRLittleEndian, data=None, without=(), **changes):
    """Writes a small computed radiograph; `changes` are put into its header unchanged."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["anatomix"])
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = 64, 64
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.add_new("PixelData", "OB" if syntax.is_encapsulated else "OW", grey().tobytes() if data is None else data)
    if syntax.is_encapsulated:
        dataset["PixelData"].is_undefined_length = True
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    for keyword in without:
        delattr(dataset, keyword)
    dataset.save_as(path, enforce_file_format=True)


def png_header_of_65535_squared(path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 65535, 65535, 16, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def half_of(path, write):
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def noise(path, size=50_000):
    path.write_bytes(random.Random(7).randbytes(size))


def photo(path, **options):
    Image.fromarray((grey(300, 200) >> 4).astype(np.uint8)).save(path, **options)


def jpeg(mode="L", **options) -> bytes:
    """A JPEG of 300 x 200 with something in it everywhere."""
    values = (np.random.default_rng(1).integers(0, 60, (200, 300)) + (grey(300, 200) >> 5)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def cut(data: bytes) -> bytes:
    """The first two thirds, with the marker that ends a JPEG."""
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


EIGHT = {"Rows": 200, "Columns": 300, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


RADIOGRAPHS = {
    "no such file": ("a.png", lambda path: None, ["No such file|not found|cannot read"]),
    "a folder": ("a.png", lambda path: path.mkdir(), ["folder|directory"]),
    "an empty file": ("a.dcm", lambda path: path.touch(), ["empty"]),
    "random bytes": ("a.dcm", noise, ["not a DICOM, PNG or JPEG"]),
    "random bytes behind a DICOM's first ones": (
        "a.dcm", lambda path: path.write_bytes(bytes(128) + b"DICM" + random.Random(7).randbytes(5000)), ["damaged|DICOM"],
    ),
    "a text": ("a.png", lambda path: path.write_text("chest"), ["not a DICOM, PNG or JPEG"]),
    "half a PNG": ("a.png", lambda path: half_of(path, photo), ["damaged"]),
    "half a JPEG's header": (
        "a.jpg", lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"), ["damaged"],
    ),
    "half a DICOM": ("a.dcm", lambda path: half_of(path, dicom), ["damaged|end|bytes|pixel"]),
    "a DICOM's preamble alone": ("a.dcm", lambda path: path.write_bytes(bytes(128) + b"DICM"), ["damaged|DICOM|pixel"]),
    "a DICOM without pixels": ("a.dcm", lambda path: dicom(path, without=["PixelData"]), ["pixel"]),
    "a DICOM without rows": ("a.dcm", lambda path: dicom(path, without=["Rows"]), ["rows|height"]),
    "several frames": (
        "a.dcm", lambda path: dicom(path, NumberOfFrames=3, data=grey().tobytes() * 3), ["frames"],
    ),
    "several frames that the header does not count": (
        "a.dcm", lambda path: dicom(path, NumberOfFrames=0, data=grey().tobytes() * 3), ["3 frames"],
    ),
    "a JPEG cut and closed again": ("a.jpg", lambda path: path.write_bytes(cut(jpeg())), ["damaged", "missing"]),
    "a progressive JPEG cut and closed again": (
        "a.jpg", lambda path: path.write_bytes(cut(jpeg(progressive=True))), ["damaged", "missing"],
    ),
    "a JPEG cut and closed again in a DICOM": (
        "a.dcm", lambda path: dicom(path, JPEGBaseline8Bit, encapsulate([cut(jpeg())]), **EIGHT), ["damaged", "missing"],
    ),
    "more bits stored than allocated": ("a.dcm", lambda path: dicom(path, BitsStored=20, HighBit=19), ["bit"]),
    "32 bits": (
        "a.dcm",
        lambda path: dicom(path, BitsAllocated=32, BitsStored=32, HighBit=31, data=grey().tobytes() * 2),
        ["bit"],
    ),
    "1 bit": ("a.dcm", lambda path: dicom(path, BitsAllocated=1, BitsStored=1, HighBit=0, data=bytes(512)), ["bit"]),
    "too little data": ("a.dcm", lambda path: dicom(path, data=bytes(100)), ["data|bytes|damaged"]),
    "65535 x 65535 in a DICOM": ("a.dcm", lambda path: dicom(path, Rows=65535, Columns=65535), ["65535"]),
    "65535 x 65535 in a PNG": ("a.png", png_header_of_65535_squared, ["65535"]),
    "JPEG-LS of zeros": ("a.dcm", lambda path: dicom(path, JPEGLSLossless, encapsulate([bytes(64)])), ["damaged: .* no readable header"]),
    "MPEG-2": ("a.dcm", lambda path: dicom(path, MPEG2MPML, encapsulate([bytes(64)])), [r"MPEG2.* \(1\.2\.840\.10008\.1\.2\.4\.100\)"]),
    "a colour picture in a DICOM of one sample": (
        "a.dcm", lambda path: dicom(path, PhotometricInterpretation="PALETTE COLOR"), ["PALETTE|photometric|colour"],
    ),
    "1 x 1 in a PNG": ("a.png", lambda path: Image.new("L", (1, 1), 9).save(path), ["1x1"]),
    "1 x 1 in a DICOM": ("a.dcm", lambda path: dicom(path, Rows=1, Columns=1, data=bytes(2)), ["1x1"]),
}


def limit_memory():
    # 65535 x 65535 pixels must not be allocated before it is checked that the data exist.
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))


@pytest.mark.parametrize("case", RADIOGRAPHS)
def test_radiograph(run, tmp_path, case, bundle):
    name, write, patterns = RADIOGRAPHS[case]
    path = tmp_path / name
    write(path)
    (out := tmp_path / "out").mkdir()
    result = run("perceive", path, "--json", "--overlay", out / "overlay.png", preexec_fn=limit_memory)
    check_refused(result, re.escape(str(path)), *patterns)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("command", [["ask", "{}", "Is there an effusion?"], ["report", "{}"]], ids=lambda c: c[0])
def test_other_commands_refuse_alike(run, tmp_path, command, bundle):
    path = tmp_path / "a.dcm"
    noise(path)
    check_refused(run(*[part.format(path) for part in command]), re.escape(str(path)), "not a DICOM, PNG or JPEG")


def codes(study: dict) -> set[str]:
    return {flag["code"] for flag in study["flags"]}


def studies(succeed, *paths) -> list[dict]:
    return [json.loads(line) for line in succeed("perceive", *paths, "--json").splitlines()]


def test_whole_jpegs_of_another_encoder_are_not_flagged(succeed, tmp_path):
    """What libjpeg writes in any of its forms is whole; the same with a hole in it is refused or flagged."""
    forms = itertools.product(["L", "RGB", "CMYK"], [30, 95], [0, 2], [False, True], [0, 3])
    paths = []
    for number, (mode, quality, subsampling, progressive, restart) in enumerate(forms):
        paths.append(tmp_path / f"{number}.jpg")
        options = {"quality": quality, "progressive": progressive, "optimize": number % 3 == 0, "restart_marker_blocks": restart}
        paths[-1].write_bytes(jpeg(mode, **options, **({} if mode == "L" else {"subsampling": subsampling})))
    for study in studies(succeed, *paths):
        assert "damaged_pixels" not in codes(study), study["image"]


def test_a_hole_in_a_jpeg_is_noticed(run, tmp_path):
    """A JPEG has no checksum: a hole is seen by the number of blocks behind it, which is the right one by chance now and then."""
    whole, hole = jpeg(), 1000
    start = whole.index(b"\xff\xda") + 10
    paths = []
    for at in np.linspace(start, len(whole) - 2 * hole, 12).astype(int):
        noise = random.Random(int(at)).randbytes(hole).replace(b"\xff", b"\xfe")
        for kind, data in [("removed", b""), ("zeros", bytes(hole)), ("noise", noise)]:
            paths.append(tmp_path / f"{kind}-{at}.jpg")
            paths[-1].write_bytes(whole[:at] + data + whole[at + hole :])
    result = run("perceive", *paths, "--json")
    opened = [json.loads(line) for line in result.stdout.splitlines()]
    unnoticed = [study["image"] for study in opened if "damaged_pixels" not in codes(study)]
    print(f"{len(paths)} holes: {len(paths) - len(opened)} refused, {len(opened) - len(unnoticed)} flagged, {len(unnoticed)} not noticed")
    assert len(unnoticed) <= 1


def test_exif_orientation_and_colour(succeed, tmp_path, phantom_dicom):
    values = (np.add.outer(np.arange(200) * 5, np.arange(300)) % 256).astype(np.uint8)
    turned, colour, grey_in_colours = tmp_path / "turned.jpg", tmp_path / "colour.png", tmp_path / "grey.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(turned, exif=exif)
    Image.fromarray(np.stack([values, values // 2, 255 - values], -1)).save(colour)
    Image.fromarray(np.stack([values] * 3, -1)).save(grey_in_colours)
    of_turned, of_colour, of_grey = studies(succeed, turned, colour, grey_in_colours)
    assert (of_turned["width"], of_turned["height"]) == (200, 300)
    assert all(box["box"][2] <= 200 and box["box"][3] <= 300 for box in of_turned["structures"])
    assert "colour" in codes(of_colour) and "colour" not in codes(of_grey)


def png_of_64_bits(path, width, height):
    """A PNG of four channels of 16 bits that is small as a file."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + 8 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_a_small_file_takes_no_more_memory_than_its_pixels(run, tmp_path):
    """100 million pixels of 64 bits, as a file of less than a megabyte: two bytes are kept of each pixel."""
    path = tmp_path / "large.png"
    png_of_64_bits(path, 10_000, 10_000)
    assert path.stat().st_size < 1_000_000

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))

    result = run("perceive", path, "--json", preexec_fn=limit)
    assert result.returncode == 0, result.stderr
    assert "near_constant" in codes(json.loads(result.stdout))


def test_an_image_that_memory_lacks_for_takes_nothing_from_the_others(run, tmp_path, phantom_dicom):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (9000, 9000), (90, 80, 70)).save(path, progressive=True)

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))

    result = run("perceive", phantom_dicom, path, phantom_dicom, "--json", preexec_fn=limit)
    assert result.returncode == 1
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [str(phantom_dicom)] * 2
    assert len(result.stderr.splitlines()) == 1 and str(path) in result.stderr and "memory" in result.stderr, result.stderr


@pytest.mark.parametrize("option", ["--sr", "--gsps", "--sc", "--fhir", "--save"])
def test_a_document_of_its_own_is_no_radiograph(run, succeed, phantom_dicom, tmp_path, option):
    """Whole, as it lies in the archive beside the image, and cut off."""
    document, broken = tmp_path / "document", tmp_path / "cut"
    succeed("report", phantom_dicom, option, document)
    content = document.read_bytes()
    for length in [100, 132, 700, len(content) // 2, len(content) - 1, len(content)]:
        broken.write_bytes(content[:length])
        check_refused(run("perceive", broken, "--json"), re.escape(str(broken)))
