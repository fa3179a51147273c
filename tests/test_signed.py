"""Signed bundles and minisign itself: each verifies what the other signed. A C++ program opens only what is signed."""

import contextlib
import os
import pty
import shutil
import subprocess
import termios
import time
from pathlib import Path

import pytest
from native import STRICT
from native import run as done

PROGRAM = r"""
#include <anatomix.hpp>
#include <iostream>

int main(int, char **argv) {
    anatomix::EngineOptions options;
    options.public_key = argv[2];
    auto engine = anatomix::Engine::open(argv[1], options);
    std::cout << (engine ? ANX_OK : engine.error().code) << "\n";
}
"""


@pytest.fixture
def keys(tmp_path):
    if shutil.which("minisign") is None:
        pytest.skip("minisign is missing; `make minisign` installs it as root")
    secret, public = tmp_path / "vendor.key", tmp_path / "vendor.pub"
    done(["minisign", "-G", "-W", "-s", secret, "-p", public])
    return secret, public


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def verifies(public, copy):
    command = ["minisign", "-V", "-q", "-p", public, "-m", copy / "manifest.json"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_minisign_verifies_what_the_program_signed(run, keys, copy):
    secret, public = keys
    assert run("bundle", "sign", copy, "--key", secret).returncode == 0
    assert verifies(public, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert not verifies(public, copy)


def test_signing_replaces_nothing_but_a_signature(run, keys, copy, tmp_path):
    secret, _ = keys
    place, other = copy / "manifest.json.minisig", tmp_path / "other"
    other.write_text("precious")
    for target, message in [(other, "is a link or not a regular file"), (secret, "is a link or not a regular file")]:
        place.symlink_to(target)
        before = target.read_bytes()
        refused = run("bundle", "sign", copy, "--key", secret)
        assert refused.returncode == 2 and message in refused.stderr
        assert target.read_bytes() == before
        place.unlink()
    shutil.copy(secret, place)
    refused = run("bundle", "sign", copy, "--key", place)
    assert refused.returncode == 2 and "would replace the key" in refused.stderr
    assert place.read_bytes() == secret.read_bytes()


def test_the_program_and_cpp_open_what_minisign_signed(run, root, anatomix, onnxruntime_library, keys, copy, phantom_dicom, tmp_path):
    secret, public = keys
    (tmp_path / "program.cpp").write_text(PROGRAM)
    library, program = Path(anatomix).parent, tmp_path / "program"
    link = ["-I", root / "include", "-L", library, "-lanatomix", f"-Wl,-rpath,{library}"]
    done(["g++", "-std=c++17", *STRICT, tmp_path / "program.cpp", "-o", program, *link])
    status = lambda: done([program, copy, public.read_text()], {"ORT_DYLIB_PATH": str(onnxruntime_library)}).strip()  # noqa: E731

    refused = run("perceive", phantom_dicom, "--bundle", copy, "--public-key", public)
    assert refused.returncode == 1 and refused.stdout == "" and "manifest.json.minisig is missing" in refused.stderr
    assert status() == "205"
    done(["minisign", "-S", "-s", secret, "-m", copy / "manifest.json"])
    opened = run("perceive", phantom_dicom, "--bundle", copy, "--public-key", public)
    assert opened.returncode == 0 and "Left lung" in opened.stdout, opened.stderr
    assert status() == "0"


def test_a_password_is_asked_for_on_the_terminal(anatomix, keys, copy, tmp_path):
    secret, public = tmp_path / "locked.key", tmp_path / "locked.pub"
    subprocess.run(["minisign", "-G", "-s", secret, "-p", public], input="a word\na word\n", text=True, check=True, capture_output=True)
    for word, signs in [("another", False), ("a word", True)]:
        child, terminal = pty.fork()
        if child == 0:
            os.execv(anatomix, ["anatomix", "bundle", "sign", str(copy), "--key", str(secret)])
        shown = os.read(terminal, 1000)
        assert b"password of" in shown
        while termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(terminal, f"{word}\n".encode())
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while more := os.read(terminal, 1000):
                shown += more
        assert (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0) == signs, shown
        assert word.encode() not in shown
        assert (copy / "manifest.json.minisig").exists() == signs
    assert verifies(public, copy)
