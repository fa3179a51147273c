"""Files that the program reads and writes: only regular ones are read, and outputs are checked before the work begins."""

import os
import re
import resource
import signal
import subprocess

import pydicom
import pytest
from conftest import check_refused

# Of a key that signed nothing.
PUBLIC_KEY = "untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n"


@pytest.fixture
def pipe(tmp_path):
    """A pipe that nobody writes to or reads from: opening it waits without end."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("option", ["IMAGE", "--json-schema", "--save", "--overlay"])
def test_a_pipe_is_refused_at_once(run, phantom_dicom, pipe, option):
    image, options = (pipe, []) if option == "IMAGE" else (phantom_dicom, [option, pipe])
    check_refused(run("ask", image, "Where is the heart?", *options, timeout=60), re.escape(str(pipe)), "regular file|pipe")


def test_a_regular_file_that_makes_its_reader_wait_is_refused(run):
    if not os.access("/proc/kmsg", os.R_OK):
        pytest.skip("the kernel's log can be read by root only")
    check_refused(run("perceive", "/proc/kmsg", timeout=60), "/proc/kmsg", "regular file")


@pytest.mark.parametrize("option", ["--save", "--overlay"])
@pytest.mark.parametrize("place", ["none/out", "file/out", "folder", "new/", "/proc/out", "/dev/full"])
def test_outputs_are_checked_before_the_answer(run, phantom_dicom, tmp_path, option, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    place = f"{tmp_path}/{place}" if place[0] != "/" else place
    # Nothing is on standard output: the answer was not computed for nothing.
    check_refused(run("ask", phantom_dicom, "Where is the heart?", option, place), re.escape(place))
    check_refused(run("perceive", phantom_dicom, "--overlay", place), re.escape(place))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_is_a_file(run, phantom_dicom, tmp_path):
    for arguments in (["perceive", "--overlay"], ["report", "--overlay"], ["report", "--save"]):
        refused = run(arguments[0], phantom_dicom, arguments[1], "-", cwd=tmp_path)
        assert refused.returncode == 2 and refused.stdout == "" and "standard output" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_read_is_not_replaced(run, phantom_dicom, tmp_path):
    image, other, second = tmp_path / "image.dcm", tmp_path / "other", tmp_path / "image.overlay.png"
    for path in (image, second):
        path.write_bytes(phantom_dicom.read_bytes())
    for option in ("--save", "--overlay"):
        refused = run("report", image, option, image)
        assert refused.returncode == 2 and f"{option} would replace" in refused.stderr
    refused = run("perceive", image, second, "--overlay", tmp_path)
    assert refused.returncode == 2 and f"--overlay would replace {second}" in refused.stderr
    refused = run("report", image, "--save", other, "--overlay", other)
    assert refused.returncode == 2 and "name the same file" in refused.stderr and not other.exists()
    refused = run("report", image, "--save", "x", "--overlay", "./x", cwd=tmp_path)
    assert refused.returncode == 2 and "name the same file" in refused.stderr
    assert image.read_bytes() == second.read_bytes() == phantom_dicom.read_bytes()
    # The library is read too, and a public key.
    library, key = tmp_path / "libonnxruntime.so", tmp_path / "vendor.pub"
    library.write_bytes(b"library")
    key.write_text(PUBLIC_KEY)
    refused = run("report", image, "--save", library, env={"ORT_DYLIB_PATH": str(library)})
    assert refused.returncode == 2 and f"--save would replace {library}" in refused.stderr
    refused = run("report", image, "--public-key", key, "--overlay", key)
    assert refused.returncode == 2 and f"--overlay would replace {key}" in refused.stderr


def test_images_that_are_named_by_their_uids_get_files_of_their_own(succeed, phantom_dicom, tmp_path):
    images = [tmp_path / name for name in ("DX.2.25.17", "DX.2.25.18", "other.dcm")]
    for image in images:
        image.write_bytes(phantom_dicom.read_bytes())
    (out := tmp_path / "out").mkdir()
    succeed("perceive", *images, "--sr", out)
    assert sorted(path.name for path in out.iterdir()) == ["DX.2.25.17.sr.dcm", "DX.2.25.18.sr.dcm", "other.sr.dcm"]


def test_links_lose_nothing(run, succeed, phantom_dicom, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    images = [tmp_path / name for name in ("a.dcm", "b.dcm")]
    for image in images:
        image.write_bytes(phantom_dicom.read_bytes())
        (folder / f"{image.stem}.sr.dcm").symlink_to("../both")
    refused = run("perceive", *images, "--sr", folder)
    assert refused.returncode == 2 and "name the same file" in refused.stderr, refused.stderr
    link = tmp_path / "link"
    link.symlink_to("new")
    refused = run("report", images[0], "--save", tmp_path / "new", "--sr", link)
    assert refused.returncode == 2 and "name the same file" in refused.stderr
    succeed("report", images[0], "--sr", link)
    assert link.is_symlink() and (tmp_path / "new").read_bytes()[128:132] == b"DICM"


def test_standard_streams_are_no_outputs(anatomix, onnxruntime_library, phantom_dicom, tmp_path):
    variables = {**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library)}
    for number, name in ((1, "standard output"), (2, "standard error")):
        streams = [tmp_path / "output", tmp_path / "error"]
        with streams[0].open("w") as output, streams[1].open("w") as error:
            command = [anatomix, "report", phantom_dicom, "--save", f"/dev/fd/{number}"]
            done = subprocess.run(command, stdout=output, stderr=error, env=variables, check=False, timeout=60)
        message = streams[1].read_text()
        assert done.returncode == 2 and f"--save /dev/fd/{number}: the file cannot go to {name}" in message, message


def test_a_report_is_refused_before_the_bundle_is_opened(run, phantom_dicom, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    headless = tmp_path / "headless.dcm"
    dataset = pydicom.dcmread(phantom_dicom)
    del dataset.StudyInstanceUID
    dataset.save_as(headless)
    bundle = ["--bundle", tmp_path / "none"]
    check_refused(run("perceive", picture, "--sr", tmp_path / "out", *bundle), "FHIR bundle cannot be made", "picture.png")
    check_refused(run("report", headless, "--sr", tmp_path / "out", *bundle), "FHIR bundle cannot be made", "Study Instance UID")
    # Perceiving a good image is not stopped by a bad one.
    done = run("perceive", picture, phantom_dicom, "--json", "--sr", tmp_path)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1 and "FHIR bundle cannot be made" in done.stderr
    assert (tmp_path / "phantom.sr.dcm").exists()


def test_a_library_that_is_a_pipe_is_refused_at_once(run, phantom_dicom, pipe):
    refused = run("report", phantom_dicom, "--library", pipe, timeout=60)
    assert refused.returncode == 1 and "it is not a regular file" in refused.stderr


@pytest.mark.parametrize("arguments", [["perceive", "IMAGE", "--json"], ["report", "IMAGE"], ["bundle", "info"], ["--help"]])
def test_standard_output_that_cannot_be_written(anatomix, onnxruntime_library, phantom_dicom, root, arguments):
    command = [anatomix, *(phantom_dicom if argument == "IMAGE" else argument for argument in arguments)]

    def run(output, **options):
        variables = {**os.environ, "ORT_DYLIB_PATH": str(onnxruntime_library)}
        return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, cwd=root, env=variables, timeout=60, **options)

    assert run(subprocess.DEVNULL).returncode == 0
    # The reader, such as `head`, has ended: this is said by the exit code alone.
    ours, theirs = os.pipe()
    os.close(ours)
    unread = run(theirs)
    os.close(theirs)
    assert unread.returncode == 128 + signal.SIGPIPE and "error" not in unread.stderr
    closed = run(None, preexec_fn=lambda: os.close(1))
    assert closed.returncode == 1 and closed.stderr.startswith("error: standard output is closed")
    with open("/dev/full", "w") as full:
        lost = run(full)
    assert lost.returncode == 1 and "error: cannot write to standard output" in lost.stderr and "panicked" not in lost.stderr


@pytest.mark.parametrize("option", ["--save", "--overlay"])
def test_a_file_beyond_the_limit_of_its_size_leaves_nothing(run, phantom_dicom, tmp_path, option):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    path = tmp_path / "output"
    failed = run("report", phantom_dicom, option, path, preexec_fn=limit)
    assert not list(tmp_path.iterdir())
    assert failed.returncode == 1 and re.search(f"cannot write {path}; .*File too large", failed.stderr), failed
