"""DICOM intensities against pydicom's pipeline: each grey image of one frame in pydicom and pydicom-data gives the same values, or is in
the table of those that are refused. All other files are in colour, of several frames, without pixels or damaged."""

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEGLSLossless, JPEGLSNearLossless

JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)}
LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91"}
# All files that are compared: grey images of one frame that pydicom or DCMTK decodes, and that are not in the table below. There are
# real chest radiographs in four transfer syntaxes, and at least one file for each step of the display chain.
COMPARED = {
    "RG1_UNCI.dcm", "RG1_UNCR.dcm", "RG1_J2KI.dcm", "RG1_J2KR.dcm", "RG3_UNCI.dcm", "RG3_UNCR.dcm", "RG3_J2KI.dcm", "RG3_J2KR.dcm",
    "693_UNCI.dcm", "693_UNCR.dcm", "693_J2KI.dcm", "693_J2KR.dcm", "MR2_UNCI.dcm", "MR2_UNCR.dcm", "MR2_J2KI.dcm", "MR2_J2KR.dcm",
    "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "JPEG2000_UNC.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm", "MR_small.dcm",
    "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "bad_sequence.dcm", "examples_overlay.dcm", "explicit_VR-UN.dcm",
    "image_dfl.dcm", "mlut_18.dcm", "vlut_04.dcm",
}
# The same, of those that DCMTK has to decompress. The scan header of JPEG-lossy.dcm is wrong: it names one coefficient of 64.
DECOMPRESSED = {"JPEG-LL.dcm", "JPEG-lossy.dcm", "JPGExtended.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"}
# Grey images of one frame that pydicom decodes and the SDK refuses: a part of the message, and the files.
REFUSED = {
    # No radiograph is as small.
    "but sides from 32 to 20000": {
        "2062", "2392", "2693", "3023", "3353", "4467", "4528", "4558", "4588", "4618", "4648", "4678", "4919", "4950", "4981", "5011",
        "5641", "6154", "6247", "6273", "6278", "6293", "6605", "6924", "6935", "15820", "15970", "17106", "17136", "17166", "17196",
        "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "rtdose_1frame.dcm", "rtdose_expb_1frame.dcm", "rtdose_rle_1frame.dcm",
    },
    # Masks of one bit.
    "its pixels have 1 bits in 1": {"liver_1frame.dcm", "liver_expb_1frame.dcm"},
}
# What is said of all other files: those in colour, of several frames, without pixels, damaged, or no DICOM at all.
OTHERS = [
    "is not a DICOM, PNG or JPEG file", "is not a grey image", "frames", "holds no pixels", "damaged", "invalid header", "cannot be read",
    "pixels are accepted",
]


def files() -> dict[str, Path]:
    found = {Path(path).name: Path(path) for path in get_testdata_files() if Path(path).is_file()}
    for file in importlib.metadata.distribution("pydicom-data").files or []:
        if file.name.endswith(".dcm"):
            found[file.name] = Path(file.locate())
    return found


FILES = files()


@pytest.fixture(scope="session")
def intensities(root):
    """Runs the SDK's example `intensities` on a file, and on its bytes. Returns an image, or the message of the error."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    cargo = ["cargo", "build", "--release", "--quiet", "-p", "anatomix", "--features", "cli,capi", "--example", "intensities"]
    subprocess.run(cargo, cwd=root, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
    program = target / "release/examples/intensities"

    def intensities(path, window=1) -> np.ndarray | str:
        result = subprocess.run([program, path, str(window)], capture_output=True, check=False, timeout=120)
        with open(path, "rb") as file:
            read = subprocess.run([program, "-", str(window)], stdin=file, capture_output=True, check=False, timeout=120)
        message = result.stderr.decode()
        assert "panicked" not in message
        assert read.stdout == result.stdout and read.stderr.decode() == message.replace(str(path), "standard input")
        if result.returncode != 0:
            assert result.returncode == 1 and str(path) in message, message
            return message
        size, _, values = result.stdout.partition(b"\n")
        width, height = map(int, size.split())
        return np.frombuffer(values, "<f4").reshape(height, width)

    return intensities


def windows(dataset) -> int:
    """How many VOI LUTs and windows there are to choose from."""
    centers = dataset.get("WindowCenter")
    multiple = isinstance(centers, pydicom.multival.MultiValue)
    return len(dataset.get("VOILUTSequence") or []) + (len(centers) if multiple else centers not in (None, ""))


def read(path, folder) -> pydicom.Dataset:
    """The file, decompressed by DCMTK if pydicom cannot decode it with what is installed here: lossless JPEG, and JPEG of 12 bits."""
    dataset = pydicom.dcmread(path, force=True)
    is_jpeg = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID") in JPEG
    if not is_jpeg or grey(dataset) is not None or not shutil.which("dcmdjpeg"):
        return dataset
    subprocess.run(["dcmdjpeg", path, folder / "decompressed"], check=True, capture_output=True, timeout=60)
    return pydicom.dcmread(folder / "decompressed")


def grey(dataset) -> np.ndarray | None:
    """Stored values of a grey image of one frame; None for others, and if pydicom cannot decode it with what is installed here."""
    try:
        stored = dataset.pixel_array
    except Exception:
        return None
    return stored if stored.ndim == 2 and dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2") else None


def reference(dataset, window=1) -> np.ndarray | None:
    """Intensities 0..1 by pydicom's display chain and numpy; None if there is no grey image."""
    stored = grey(dataset)
    if stored is None:
        return None
    padding = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in dataset:
        ends = sorted([dataset.PixelPaddingValue, dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)])
        padding = (stored >= ends[0]) & (stored <= ends[1])
    values = apply_modality_lut(stored, dataset)
    tables = dataset.get("VOILUTSequence") or []
    if window <= len(tables):
        shown = apply_voi_lut(values.astype(np.int64), dataset, index=window - 1) / (2 ** tables[window - 1].LUTDescriptor[2] - 1)
    elif windows(dataset):
        low, high = output_range(dataset)
        shown = (apply_voi_lut(values, dataset, index=window - 1 - len(tables), prefer_lut=False) - low) / (high - low)
    else:
        seen = values[~padding].astype(np.float64)
        low, high = seen.min(), seen.max()
        shown = (values - low) / max(high - low, 1e-12)
    if dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
        shown = 1 - shown
    return np.where(padding, 0, shown)


def output_range(dataset) -> tuple[float, float]:
    """Output range of pydicom's windowing: that of the modality LUT or the rescaling."""
    if dataset.get("ModalityLUTSequence"):
        return 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits = dataset.BitsStored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    return low * slope + intercept, high * slope + intercept


def check(found, dataset, window=1, lossy=None):
    expected = reference(dataset, window)
    assert found.shape == expected.shape
    assert found.min() >= 0 and found.max() <= 1
    difference = np.abs(found - expected)
    if (dataset.file_meta.get("TransferSyntaxUID") if lossy is None else lossy) in LOSSY:
        # Decoders differ by one or two levels, and a narrow window magnifies the difference.
        assert difference.mean() < 0.01
    else:
        assert difference.max() < 1e-5


@pytest.mark.parametrize("name", sorted(FILES))
def test_as_pydicom(intensities, tmp_path, name):
    found = intensities(FILES[name])
    try:
        dataset = read(FILES[name], tmp_path)
        is_grey = grey(dataset) is not None
        lossy = pydicom.dcmread(FILES[name], force=True, stop_before_pixels=True).file_meta.get("TransferSyntaxUID")
    except Exception:
        is_grey = False
    reasons = [reason for reason, names in REFUSED.items() if name in names]
    if isinstance(found, str):
        assert name not in COMPARED | DECOMPRESSED, found
        # A grey image of one frame is refused only for the reason in the table.
        assert any(reason in found for reason in (reasons if is_grey else OTHERS)), found
        return
    assert not reasons, f"{name} is in the table of refused files, but opens"
    if not is_grey and (name in DECOMPRESSED and not shutil.which("dcmdjpeg") or name not in COMPARED | DECOMPRESSED):
        pytest.skip("pydicom cannot decode it with what is installed here")
    assert is_grey and name in COMPARED | DECOMPRESSED, f"{name} is not in the table of compared files"
    check(found, dataset, lossy=lossy)
    for window in range(2, windows(dataset) + 1):
        check(intensities(FILES[name], window), dataset, window, lossy)
    assert f"window {windows(dataset) + 2} was chosen" in intensities(FILES[name], windows(dataset) + 2)


def test_the_files_are_there():
    missing = (COMPARED | DECOMPRESSED).union(*REFUSED.values()) - set(FILES)
    assert not missing, f"pydicom and pydicom-data lack {sorted(missing)}"
    chosen = [name for name in FILES if name in COMPARED]
    assert any(windows(pydicom.dcmread(FILES[name], force=True)) > 1 for name in chosen), "no file has several windows"


@pytest.mark.parametrize("name", ["RG3_UNCI.dcm", "CT_small.dcm", "image_dfl.dcm", "MR2_UNCI.dcm"])
@pytest.mark.parametrize(("syntax", "error"), [(JPEGLSLossless, 0), (JPEGLSNearLossless, 1), (JPEGLSNearLossless, 7)])
def test_jpeg_ls(intensities, tmp_path, name, syntax, error):
    """JPEG-LS as CharLS writes it: 8, 10, 12 and 16 bits, with and without sign and losses."""
    dataset, path = pydicom.dcmread(FILES[name]), tmp_path / name
    dataset.compress(syntax, **({"jls_error": error} if error else {}), generate_instance_uid=False)
    dataset.save_as(path)
    check(intensities(path), pydicom.dcmread(path))
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        assert isinstance(intensities(path), str)


@pytest.mark.parametrize("name", ["RG3_UNCI.dcm", "MR2_UNCI.dcm"])
def test_jpeg_of_12_bits(intensities, tmp_path, name):
    """JPEG Extended as DCMTK writes and reads it. Transforms differ by one level."""
    if not shutil.which("dcmcjpeg"):
        pytest.skip("dcmcjpeg (Debian's package dcmtk) is missing")
    path = tmp_path / name
    subprocess.run(["dcmcjpeg", "--encode-extended", "--quality", "98", FILES[name], path], check=True, capture_output=True, timeout=60)
    dataset = read(path, tmp_path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.51"
    difference = np.abs(intensities(path) - reference(dataset))
    assert difference.max() <= 1.01 / (float(dataset.WindowWidth) - 1) and difference.mean() < 1e-3
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert isinstance(intensities(path), str)


def test_the_chest_is_the_same_in_every_syntax(intensities):
    images = {name: intensities(FILES[f"RG1_{name}.dcm"]) for name in ("UNCI", "UNCR", "J2KR", "J2KI")}
    assert np.array_equal(images["UNCR"], images["J2KR"])
    assert np.abs(images["UNCI"] - images["J2KI"]).mean() < 0.01
