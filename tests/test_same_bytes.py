"""One run exports to the same bytes on every machine.

A processor decides which kernels libtorch, MKL, oneDNN, the C library and the resampling of images use, and so in which order sums are
added up. The libraries' own switches choose other kernels on this processor; an emulator shows them another processor.
"""

import os
import platform
import shutil
import subprocess

import pytest
from conftest import ROOT, needed

# What is exported: the committed bundle, and one in 8 and 4 bits, whose ranges are observed on images.
WEIGHTS, CODES = "fp16-weights", "int8"
# What examples/reference/run.sh says of the bundle. The golden input, which every export runs first, is of no concern here.
SAID = ["--name", "anatomix-reference", "--checked-on", "x86-64 AVX2", "--checked-on", "x86-64 AVX-512 VNNI", "--no-golden-check"]
SWITCHES = {
    "one thread": {"RAYON_NUM_THREADS": "1"},
    "seven threads": {"RAYON_NUM_THREADS": "7", "OMP_NUM_THREADS": "7"},
    "libtorch without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "libtorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "MKL as on any processor": {"MKL_CBWR": "COMPATIBLE"},
    "MKL with AVX2": {"MKL_CBWR": "AVX2"},
    "oneDNN with SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "the C library without FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4"},
}
# With AVX2 and without AVX-512; without either, and without fused multiply-add. Each export takes half a minute.
EMULATED = [("Haswell", WEIGHTS), ("Haswell", CODES), ("Nehalem", CODES)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, phantom_dicom, radiographs):
    """Exports the reference run and gives the bundle's files: `exported(WEIGHTS, OMP_NUM_THREADS="7")`."""
    # Threads that wait for each other cost most of the time, on a busy machine and in an emulator.
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")
    run = needed(ROOT / "examples/reference/run", "reference")
    images = tmp_path_factory.mktemp("calibration")
    for image in [phantom_dicom, radiographs / "RG1_UNCI.dcm"]:
        shutil.copy(image, images)
    arguments = {WEIGHTS: [], CODES: ["--apm", "int8", "--decoder", "int4", "--calibrate", images]}

    def exported(what, *before, **switches):
        out = tmp_path_factory.mktemp("exports") / "bundle"
        command = [*before, program, "export", run, "--out", out, "--measure", "never", *SAID, *arguments[what]]
        switches = {"OMP_NUM_THREADS": "1"} | switches
        done = subprocess.run(list(map(str, command)), env=os.environ | switches, capture_output=True, text=True, timeout=1500, check=False)
        assert done.returncode == 0, done.stderr
        return {file.name: file.read_bytes() for file in out.iterdir()}

    return exported


@pytest.fixture(scope="module")
def expected(exported):
    """What is exported here, with two threads."""
    return {what: exported(what, OMP_NUM_THREADS="2") for what in [WEIGHTS, CODES]}


def same(found, expected):
    assert found.keys() == expected.keys()
    assert not (other := [name for name in found if found[name] != expected[name]]), f"{', '.join(other)} depend on the machine"


def test_the_committed_bundle(expected):
    """If the exporter was changed, export it again with the options of run.sh, and look at what else changes with it."""
    committed = needed(ROOT / "examples/reference-bundle", "reference")
    same(expected[WEIGHTS], {file.name: file.read_bytes() for file in committed.iterdir()})


@pytest.mark.parametrize("what", [WEIGHTS, CODES])
@pytest.mark.parametrize("switches", SWITCHES)
def test_other_kernels(exported, expected, switches, what):
    same(exported(what, **SWITCHES[switches]), expected[what])


@pytest.mark.parametrize("processor,what", EMULATED)
def test_other_processors(exported, expected, processor, what):
    emulator = shutil.which("qemu-x86_64")
    if platform.machine() != "x86_64" or not emulator:
        pytest.skip("qemu-x86_64 (Debian's package qemu-user) is missing or of no use here; nothing was exported on another processor")
    same(exported(what, emulator, "-cpu", processor), expected[what])
