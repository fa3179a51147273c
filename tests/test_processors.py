"""A bundle computes the same on another kind of processor: one with AVX2 and nothing newer, emulated by QEMU in user mode.

ONNX Runtime's 8-bit kernels for such processors add pairs of products in 16 bits, which is too little for products of 8 by 8 bits.
"""

import json
import shutil
import subprocess

import pytest
from conftest import ROOT, iou, needed

# Haswell without what QEMU does not emulate, or it would warn of each.
EMULATOR = ["qemu-x86_64", "-cpu", "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid"]
KIND = "x86-64 AVX2"
# The two differ in the last bits of what is computed in fp32, and so, seldom, in a code of an activation.
SAME_BOX = 0.98


@pytest.fixture(scope="module")
def program(anatomix, onnxruntime_library):
    """Runs `anatomix` natively or on the emulated processor, and gives what it printed as JSON."""

    def program(*arguments, emulated=False):
        command = [*(EMULATOR if emulated else []), anatomix, *arguments, "--library", onnxruntime_library]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
        assert done.returncode == 0, f"emulated: {emulated}: {done.stderr}"
        return json.loads(done.stdout)

    return program


@pytest.fixture(scope="module")
def emulator(program):
    if not shutil.which(EMULATOR[0]):
        pytest.skip(f"{EMULATOR[0]} is missing: Debian's package qemu-user has it, and `make qemu` installs that as root")
    kind = program("providers", "--json", emulated=True)["processor"]
    if kind != KIND:
        pytest.skip(f"this {EMULATOR[0]} emulates {kind}, not {KIND}; version 7.2 or newer does")


def export(onnxruntime_library, out, *arguments):
    """The reference run as a bundle; the trainer opens it with the golden input."""
    run, trainer = needed(ROOT / "examples/reference/run", "reference"), needed(ROOT / "target/release/anatomix-trainer", "trainer")
    command = [trainer, "export", run, "--out", out, "--measure", "never", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out


def same_boxes(program, bundle, phantom, *options):
    """Compares a radiograph's boxes. Opening the bundle compares the golden outputs of all graphs, the decoder's logits included."""
    native, emulated = (
        program("perceive", phantom, "--bundle", bundle, "--json", *options, emulated=emulated)["structures"] for emulated in (False, True)
    )
    least = min(iou(a["box"], b["box"]) for a, b in zip(native, emulated, strict=True))
    moved = max(abs(p - q) for a, b in zip(native, emulated, strict=True) for p, q in zip(a["box"], b["box"], strict=True))
    print(f"{bundle.name} on {KIND}: least IoU of 36 boxes with the native ones {least:.4f}, a side moved by at most {moved:.2f} pixels")
    assert least >= SAME_BOX
    assert sum(a["sentence"] == b["sentence"] for a, b in zip(native, emulated, strict=True)) >= 34


def test_eight_bits(emulator, program, onnxruntime_library, phantom_dicom, tmp_path):
    bundle = export(onnxruntime_library, tmp_path / "int8", "--apm", "int8", "--decoder", "int8")
    same_boxes(program, bundle, phantom_dicom)


def test_four_bits(emulator, program, onnxruntime_library, phantom_dicom, tmp_path):
    """Both ends of an answer over 4-bit weights: prefill of many rows and steps of one have kernels of their own."""
    bundle = export(onnxruntime_library, tmp_path / "int4", "--apm", "int8", "--decoder", "int4")
    question = ["ask", phantom_dicom, "Where is the left lung?", "--bundle", bundle, "--json", "--no-golden-check"]
    native, emulated = (program(*question, emulated=emulated) for emulated in (False, True))
    assert native["groundings"] and [g["phrase"] for g in native["groundings"]] == [g["phrase"] for g in emulated["groundings"]]
    for a, b in zip(native["groundings"], emulated["groundings"], strict=True):
        assert iou(a["boxes"][0], b["boxes"][0]) >= SAME_BOX
    print(f"int4 on {KIND}: {emulated['text']!r}")


def test_the_reference_bundle(emulator, program, bundle, manifest, phantom_dicom):
    """It says that it was checked there."""
    assert KIND in manifest["checked_on"]
    same_boxes(program, bundle, phantom_dicom)
