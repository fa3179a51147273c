"""DICOM intensities against pydicom: each file of pydicom and pydicom-data gives the same values, or is refused for a known reason."""

import importlib.metadata
import os
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.pixels import apply_modality_lut, apply_voi_lut

LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91"}
# Files that must open: real chest radiographs in four transfer syntaxes, and at least one for each step of the display chain.
MUST_OPEN = {
    "RG1_UNCI.dcm", "RG1_UNCR.dcm", "RG1_J2KI.dcm", "RG1_J2KR.dcm", "RG3_UNCI.dcm", "RG3_J2KR.dcm", "mlut_18.dcm", "vlut_04.dcm",
    "JPEG-LL.dcm", "CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_implicit.dcm",
    "image_dfl.dcm",
}
# Files that pydicom opens and the SDK refuses, with the reason. No others may be refused.
REFUSALS = ["is not a grey image", "frames", "cannot be read", "holds no pixels", "but 8 to 16 bits", "pixels are accepted"]


def files() -> dict[str, Path]:
    found = {Path(path).name: Path(path) for path in get_testdata_files() if Path(path).is_file()}
    for file in importlib.metadata.distribution("pydicom-data").files or []:
        if file.name.endswith(".dcm"):
            found[file.name] = Path(file.locate())
    return found


FILES = files()


@pytest.fixture(scope="session")
def intensities(root):
    """Runs the SDK's example `intensities` on a file. Returns an image, or the message of the error."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    cargo = ["cargo", "build", "--release", "--quiet", "-p", "anatomix", "--features", "cli,capi", "--example", "intensities"]
    subprocess.run(cargo, cwd=root, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(target)})

    def intensities(path) -> np.ndarray | str:
        result = subprocess.run([target / "release/examples/intensities", path], capture_output=True, check=False, timeout=120)
        message = result.stderr.decode()
        assert "panicked" not in message
        if result.returncode != 0:
            assert result.returncode == 1 and str(path) in message, message
            return message
        size, _, values = result.stdout.partition(b"\n")
        width, height = map(int, size.split())
        return np.frombuffer(values, "<f4").reshape(height, width)

    return intensities


def reference(path) -> np.ndarray | None:
    """Intensities 0..1 by pydicom's display chain and numpy; None if pydicom cannot decode the file here."""
    dataset = pydicom.dcmread(path, force=True)
    try:
        stored = dataset.pixel_array
    except Exception:
        return None
    if stored.ndim != 2 or dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    padding = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in dataset:
        ends = sorted([dataset.PixelPaddingValue, dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)])
        padding = (stored >= ends[0]) & (stored <= ends[1])
    values = apply_modality_lut(stored, dataset)
    table = (dataset.get("VOILUTSequence") or [None])[0]
    if table is not None:
        shown = apply_voi_lut(values.astype(np.int64), dataset) / (2 ** table.LUTDescriptor[2] - 1)
    elif dataset.get("WindowWidth") not in (None, ""):
        low, high = output_range(dataset)
        shown = (apply_voi_lut(values, dataset) - low) / (high - low)
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


@pytest.mark.parametrize("name", sorted(FILES))
def test_as_pydicom(intensities, name):
    path = FILES[name]
    found = intensities(path)
    if isinstance(found, str):
        assert name not in MUST_OPEN, found
        try:
            expected = reference(path)
        except Exception:
            return
        assert expected is None or any(reason in found for reason in REFUSALS), found
        return
    expected = reference(path)
    if expected is None:
        pytest.skip("pydicom cannot decode it with what is installed here")
    assert found.shape == expected.shape
    assert found.min() >= 0 and found.max() <= 1
    difference = np.abs(found - expected)
    syntax = pydicom.dcmread(path, force=True, stop_before_pixels=True).file_meta.get("TransferSyntaxUID")
    if syntax in LOSSY:
        # Decoders differ by one or two levels, and a narrow window magnifies the difference.
        assert difference.mean() < 0.01
    else:
        assert difference.max() < 1e-5


def test_the_chest_is_the_same_in_every_syntax(intensities):
    images = {name: intensities(FILES[f"RG1_{name}.dcm"]) for name in ("UNCI", "UNCR", "J2KR", "J2KI")}
    assert np.array_equal(images["UNCR"], images["J2KR"])
    assert np.abs(images["UNCI"] - images["J2KI"]).mean() < 0.01
