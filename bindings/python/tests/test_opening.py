"""Opening and verifying bundles: progress, deadlines, cancel handles, Ctrl-C."""

import shutil

import anatomix
import pytest

from conftest import BUNDLE, PHANTOM


def test_a_bundle_is_verified_without_an_engine(engine, tmp_path):
    seen = []
    verified = anatomix.verify_bundle(BUNDLE, progress=lambda *progress: seen.append(progress))
    size = verified["bytes"]
    assert verified["sha256"] == engine.bundle_sha256 and verified["name"] == engine.bundle and verified["files"] == 9
    assert seen[0] == ("hashes", 0, size) and ("hashes", size, size) in seen and seen[-1] == ("sentences", 1, 1)
    altered = tmp_path / "bundle"
    shutil.copytree(BUNDLE, altered)
    tokenizer = altered / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(anatomix.BundleError, match="was altered") as error:
        anatomix.verify_bundle(altered)
    assert error.value.code == "bundle_altered"
    with pytest.raises(ValueError, match="public_key"):
        anatomix.verify_bundle(BUNDLE, public_key="no key")
    with pytest.raises(TypeError, match="progress is not callable"):
        anatomix.verify_bundle(BUNDLE, progress=3)


@pytest.mark.parametrize("phase", ["hashes", "graphs", "golden_check"])
def test_opening_is_cancelled_where_it_is(phase):
    handle, seen = anatomix.CancelHandle(), []

    def progress(name, done, total):
        assert 0 <= done <= total
        seen.append(name)
        if name == phase:
            handle.cancel()

    with pytest.raises(anatomix.StoppedError) as error:
        anatomix.Engine.open(BUNDLE, cancel=handle, progress=progress)
    assert error.value.code == "stopped" and seen[-1] == phase
    with pytest.raises(anatomix.StoppedError):
        anatomix.verify_bundle(BUNDLE, cancel=handle)


def test_opening_ends_with_its_deadline():
    for call in (anatomix.Engine.open, anatomix.verify_bundle):
        with pytest.raises(anatomix.StoppedError) as error:
            call(BUNDLE, deadline=0)
        assert error.value.code == "deadline"


def test_perceiving_several_tells_how_many_are_done(engine):
    seen = []
    outcomes = engine.studies([PHANTOM] * engine.batch_size + ["no such file"], progress=lambda *progress: seen.append(progress))
    total = engine.batch_size + 1
    assert len(outcomes) == total and seen == [("perceive", done, total) for done in (0, engine.batch_size, total)]


INTERRUPTED = """
import os, signal, sys, threading, time
import anatomix

handled = threading.Event()
def interrupt(*_):
    handled.set()
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
phases = []
def progress(phase, done, total):
    if phase == "graphs" and "graphs" not in phases:
        os.kill(os.getpid(), signal.SIGINT)
        # The main thread looks for signals meanwhile, and asks the call to stop right after the handler.
        handled.wait()
        time.sleep(0.5)
    phases.append(phase)
try:
    anatomix.Engine.open(sys.argv[1], progress=progress)
except KeyboardInterrupt:
    print(phases[-1])
"""


def test_ctrl_c_ends_opening(script):
    done = script(INTERRUPTED, BUNDLE)
    # Nothing was begun after the graphs.
    assert (done.returncode, done.stdout, done.stderr) == (0, "graphs\n", "")
