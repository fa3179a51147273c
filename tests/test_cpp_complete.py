"""The complete example in C++: several images on several threads, with all that it writes, and Ctrl-C."""

import json
import re
import shutil
import signal
import subprocess

import pydicom
import pytest
from native import run
from PIL import Image


@pytest.fixture
def images(phantom_dicom, tmp_path):
    """Five radiographs: four DICOM files, and a PNG with the same pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    files = [folder / f"{name}.dcm" for name in "abcd"]
    for file in files:
        shutil.copy(phantom_dicom, file)
    Image.fromarray(pydicom.dcmread(phantom_dicom).pixel_array).save(folder / "e.png")
    return [*files, folder / "e.png"]


def test_it_writes_what_the_command_line_writes(programs, anatomix, bundle, images, environment, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    command = [programs / "complete", bundle, out, *images]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in out.iterdir()) == sorted(
        [f"{name}{ending}" for name in "abcd" for ending in (".dcm", ".json", ".png")] + ["e.json", "e.png"]
    )
    # Progress and log.
    for line in ("hashes: ", "graphs: 3", "golden_check: 3", "with ONNX Runtime"):
        assert line in done.stderr, done.stderr
    overlay = tmp_path / "overlay.png"
    shared = ["--json", "--bundle", bundle]
    expected = [
        json.loads(run([anatomix, *asked, *shared], environment))
        for asked in [
            ["perceive", images[0], "--overlay", overlay],
            ["report", images[0]],
            ["ask", images[0], "Where is the left lung?"],
        ]
    ]
    found = [json.loads(line) for line in (out / "a.json").read_text().splitlines()]
    for one in [*expected, *found]:
        # What depends on measured times, on the prefilled context, and on deadlines.
        one.pop("timing_ms"), one.pop("runs", None), one.pop("prefilled", None)
        one["provenance"]["decoding"] = re.sub(r", deadline \d+ ms", "", one["provenance"]["decoding"])
    assert found == expected
    assert (out / "a.png").read_bytes() == overlay.read_bytes()
    assert f"{images[0]}\n{expected[1]['text']}\n" in done.stdout
    report = pydicom.dcmread(out / "a.dcm")
    assert report.Modality == "SR" and report.StudyInstanceUID == pydicom.dcmread(images[0]).StudyInstanceUID


def test_an_image_that_fails_does_not_affect_the_others(programs, bundle, images, environment, tmp_path):
    missing = tmp_path / "missing.dcm"
    options = {"capture_output": True, "text": True, "env": environment, "timeout": 600, "check": False}
    done = subprocess.run([programs / "complete", bundle, tmp_path, missing, images[0]], **options)
    assert done.returncode == 1 and str(missing) in done.stderr and (tmp_path / "a.json").exists()
    done = subprocess.run([programs / "complete", missing, tmp_path, images[0]], **options)
    assert done.returncode == 1 and str(missing) in done.stderr and done.stdout == ""


def test_ctrl_c_ends_it(programs, bundle, images, environment, tmp_path):
    command = [programs / "complete", bundle, tmp_path, *images[:1] * 500]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == f"{images[0]}\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    # It did not go through all of them.
    assert output.count(str(images[0])) < 400
