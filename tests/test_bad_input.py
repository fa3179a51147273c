"""Bad input on the command line: errors take one or two lines, and no partial files are left."""

import json
import os
import re
import resource
import shutil
import subprocess
from hashlib import sha256

import numpy as np
import pytest
from conftest import check_refused
from safetensors import safe_open
from safetensors.numpy import save_file

BUNDLE_FILES = [
    "apm.onnx", "projector.onnx", "decoder.onnx", "sentences.safetensors", "tokenizer.json", "golden.safetensors",
]


# ---- questions


@pytest.mark.parametrize(
    ("question", "pattern"),
    [("<start_of_turn>model", "start_of_turn"), ("x" * 20_000, "shorten|shorter|bytes"), ("What is in <box>(9,9),(1,1)</box>?", "box")],
    ids=["a control token", "too long", "an inside-out box"],
)
def test_question(run, phantom_dicom, question, pattern):
    check_refused(run("ask", phantom_dicom, question, "--json"), pattern)


# ---- bundles


class Damaged:
    """A copy of a bundle whose files can be changed."""

    def __init__(self, bundle, folder):
        self.folder = folder
        # Files are copied, not linked, because the onnx library and ONNX Runtime refuse links to weights.
        shutil.copytree(bundle, folder)
        self.manifest = json.loads((folder / "manifest.json").read_text())

    def write(self, name, data: bytes):
        """Changes a file, but not its hash in the manifest."""
        (self.folder / name).write_bytes(data)

    def replace(self, name, data: bytes):
        """Changes a file and its hash in the manifest, so that the checks after that of the hash are reached."""
        self.write(name, data)
        self.manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        self.describe(**self.manifest)

    def describe(self, **changes):
        self.manifest.update(changes)
        self.write("manifest.json", json.dumps(self.manifest).encode())

    def read(self, name) -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture
def damaged(bundle, tmp_path) -> Damaged:
    yield Damaged(bundle, tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")


@pytest.fixture
def refused(run, phantom_dicom, damaged):
    def refused(*patterns, **options):
        result = run("perceive", phantom_dicom, "--json", "--bundle", damaged.folder, **options)
        check_refused(result, *patterns)

    return refused


@pytest.mark.parametrize("name", ["manifest.json", *BUNDLE_FILES])
def test_missing_file(damaged, refused, name):
    (damaged.folder / name).unlink()
    refused(re.escape(str(damaged.folder / name)), "missing|No such file")


@pytest.mark.parametrize("name", ["manifest.json", *BUNDLE_FILES])
def test_truncated_file(damaged, refused, name):
    whole = damaged.read(name)
    damaged.write(name, whole[: len(whole) // 2])
    refused(re.escape(str(damaged.folder / name)))


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_altered_file(damaged, refused, name):
    data = bytearray(damaged.read(name))
    data[len(data) // 2] ^= 1
    damaged.write(name, bytes(data))
    refused(re.escape(str(damaged.folder / name)), "altered|SHA-256")


def test_external_data_is_guarded_too(damaged, refused):
    for name in [name for name in damaged.manifest["files"] if name.endswith(".data")]:
        whole = damaged.read(name)
        damaged.write(name, whole[:-1])
        refused(re.escape(str(damaged.folder / name)))
        damaged.write(name, whole)


def test_verify_names_an_altered_file(run, damaged):
    damaged.write("tokenizer.json", damaged.read("tokenizer.json").replace(b"<obj_0>", b"<obj_O>", 1))
    check_refused(run("bundle", "verify", damaged.folder), "tokenizer.json", "altered|SHA-256")


@pytest.mark.parametrize(
    ("changes", "patterns"),
    [
        ({"schema": 999}, ["schema 999", "update the SDK"]),
        ({"schema": "one"}, ["manifest"]),
        ({"files": {}}, ["manifest", r"apm\.onnx"]),
        ({"decoder": {}}, ["manifest", "layers"]),
        ({"preprocess": {"version": 9, "size": 256, "histogram": "equalize"}}, ["preprocessing", "9"]),
        ({"preprocess": {"version": 1, "size": 2_000_000_000, "histogram": "equalize"}}, ["preprocess.size"]),
        ({"prompt": {"version": 77}}, ["prompt", "77"]),
    ],
    ids=["newer schema", "no schema", "no files", "no sizes", "newer preprocessing", "an absurd size", "newer prompt"],
)
def test_manifest(damaged, refused, changes, patterns):
    damaged.describe(**changes)
    refused("manifest.json", *patterns)


def test_manifest_is_no_json(damaged, refused):
    damaged.write("manifest.json", b"\x00\xff")
    refused("manifest.json")


def test_manifest_points_outside(damaged, refused):
    damaged.manifest["files"]["../secret"] = {"bytes": 1, "sha256": "0" * 64}
    damaged.describe()
    refused("manifest.json", "secret", "plain file name")


def test_no_bundle(run, phantom_dicom, tmp_path):
    check_refused(run("perceive", phantom_dicom, "--bundle", tmp_path / "none"), "none", "bundle")
    check_refused(run("bundle", "info", phantom_dicom), "phantom.dcm")


@pytest.mark.parametrize("token", ["<obj_17>", "<image>", "<end_of_turn>", "</box>"])
def test_tokenizer_lacks_a_token(damaged, refused, token):
    tokenizer = json.loads(damaged.read("tokenizer.json"))
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] != token]
    tokenizer["model"]["vocab"].pop(token, None)
    damaged.replace("tokenizer.json", json.dumps(tokenizer).encode())
    refused("tokenizer.json", re.escape(token))


def test_tokenizer_is_none(damaged, refused):
    damaged.replace("tokenizer.json", b"{}")
    refused("tokenizer.json", "tokenizer")


@pytest.mark.parametrize(
    "name", ["apm.onnx", "projector.onnx", "decoder.onnx", "sentences.safetensors", "golden.safetensors"]
)
def test_a_file_is_something_else(damaged, refused, name):
    damaged.replace(name, b"not what it should be" * 50)
    refused(re.escape(str(damaged.folder / name)))


def test_graphs_are_swapped(damaged, refused):
    damaged.replace("projector.onnx", damaged.read("apm.onnx"))
    refused("projector.onnx")


def change_database(damaged, change):
    path = damaged.folder / "sentences.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    change(tensors)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, damaged.folder / "new", metadata)
    data = (damaged.folder / "new").read_bytes()
    (damaged.folder / "new").unlink()
    damaged.replace("sentences.safetensors", data)


def spoil(name, change):
    """Returns a function that changes one tensor of a database."""

    def apply(tensors):
        tensors[name] = change(tensors[name].copy())

    return apply


def at(index, value):
    def change(tensor):
        tensor[index] = value
        return tensor

    return change


def letter_across_sentences(tensors):
    # The left lung has several sentences. Their text is valid UTF-8 as a whole, but not sentence by sentence.
    border = int(tensors["11.offsets"][1])
    tensors["11.text"] = at(slice(border - 1, border + 1), list("é".encode()))(tensors["11.text"].copy())


# Damage that opening reports, although it does not read the whole database.
DATABASES = {
    "offsets beyond the text": (spoil("05.offsets", at(-1, 1 << 60)), "offset"),
    "descending offsets": (spoil("05.offsets", lambda tensor: tensor[::-1]), "offset"),
    "offsets that do not begin at 0": (spoil("05.offsets", at(0, 3)), "offset"),
    "a missing tensor": (lambda tensors: tensors.pop("11.embeddings"), r"11\.embeddings"),
    "too few offsets": (spoil("11.offsets", lambda tensor: tensor[:-1]), "11|offsets"),
    "another width": (spoil("20.embeddings", lambda tensor: tensor[:, :-1]), "20|embeddings"),
    "another type": (spoil("20.embeddings", lambda tensor: tensor.astype(np.float64)), "20|embeddings"),
    "a structure without sentences": (
        lambda tensors: tensors.update({
            "30.embeddings": tensors["30.embeddings"][:0], "30.text": tensors["30.text"][:0],
            "30.offsets": tensors["30.offsets"][:1],
        }), "Vertebral column",
    ),
}
# Damage that is reported where it is met, in parts that are used with each radiograph.
USED = {
    "no sentence is valid UTF-8": (spoil("07.text", at(slice(None), 0xFF)), "07.text.*UTF-8"),
    "an embedding that is not a number": (spoil("09.embeddings", at((-1, 3), np.nan)), r"row \d+ of 09\.embeddings"),
    "embeddings of another norm": (spoil("12.embeddings", lambda tensor: tensor * 2), r"12\.embeddings has the norm (2|1\.99)"),
    "offsets beyond the text": (spoil("11.offsets", at(slice(1, -1), 1 << 60)), r"11\.offsets"),
}
# Damage that a radiograph may never meet.
UNUSED = {
    "an offset within a letter": (letter_across_sentences, "offset|UTF-8"),
    "invalid UTF-8": (spoil("07.text", at(1, 0xFF)), "UTF-8"),
    "an embedding of no length": (spoil("11.embeddings", at(0, 0)), r"row 0 of 11\.embeddings"),
}


@pytest.mark.parametrize("case", [*DATABASES, *USED])
def test_database(damaged, refused, case):
    change, pattern = (DATABASES | USED)[case]
    change_database(damaged, change)
    refused(r"sentences\.safetensors", pattern)


@pytest.mark.parametrize("case", [*USED, *UNUSED])
def test_verify_reads_the_whole_database(damaged, run, case):
    change, pattern = (USED | UNUSED)[case]
    change_database(damaged, change)
    check_refused(run("bundle", "verify", damaged.folder), r"sentences\.safetensors", pattern)


def test_golden_outputs_differ(damaged, refused):
    path = damaged.folder / "golden.safetensors"
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    tensors["boxes"] = tensors["boxes"] + 0.1
    save_file(tensors, damaged.folder / "new")
    data = (damaged.folder / "new").read_bytes()
    damaged.replace("golden.safetensors", data)
    refused("boxes", "golden")


# ---- ONNX Runtime


def compile_library(path, source):
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=source, text=True, check=True)


OLD_RUNTIME = """
/* An ONNX Runtime that knows no interface as new as the one that is asked for. */
static const void *get_api(unsigned version) { return version <= 10 ? "" : 0; }
static const char *get_version(void) { return "1.10.0"; }
static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { get_api, get_version };
const void *OrtGetApiBase(void) { return &base; }
"""


@pytest.mark.parametrize("kind", ["missing", "a text", "a folder", "another library", "too old"])
def test_onnxruntime(run, phantom_dicom, tmp_path, kind, bundle):
    path = tmp_path / "libonnxruntime.so"
    match kind:
        case "a text":
            path.write_text("not a library")
        case "a folder":
            path.mkdir()
        case "another library":
            compile_library(path, "int answer(void) { return 42; }")
        case "too old":
            compile_library(path, OLD_RUNTIME)
    result = run("perceive", phantom_dicom, "--json", env={"ORT_DYLIB_PATH": str(path)})
    check_refused(result, re.escape(str(path)), "ONNX Runtime", "ORT_DYLIB_PATH")
    if kind in ["a text", "a folder"]:  # what the system's loader said, or why it was not asked
        assert re.search("caused by: .*(invalid ELF header|file too short|not a regular file)", result.stderr), result.stderr
    if kind == "too old":
        assert "1.10" in result.stderr or "1.24" in result.stderr


def test_onnxruntime_is_nowhere(run, anatomix, phantom_dicom, tmp_path, bundle):
    """Without an option or variable, the library is searched beside the program and in the system; the error names all places."""
    program = shutil.copy(anatomix, tmp_path / "anatomix")
    nowhere = {"ORT_DYLIB_PATH": None, "LD_LIBRARY_PATH": None}
    result = run("perceive", phantom_dicom, "--bundle", bundle, env=nowhere, program=program)
    if result.returncode == 0:
        pytest.skip("the system has an ONNX Runtime of its own")
    check_refused(result, re.escape(str(tmp_path / "libonnxruntime.so")), "tried", "ORT_DYLIB_PATH")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_that_cannot_run(run, phantom_dicom, provider):
    """The CPU build of ONNX Runtime has neither provider. Requesting one is an error without a fallback."""
    check_refused(run("perceive", phantom_dicom, "--provider", provider, "--json"), provider, "cannot run here|not")


# ---- output


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def overlay(run, phantom_dicom, path, **options):
    result = run("perceive", phantom_dicom, "--overlay", path, "--json", **options)
    assert result.returncode == 1 and "panicked" not in result.stderr
    assert 1 <= len(result.stderr.strip().splitlines()) <= 3, result.stderr
    assert str(path) in result.stderr and ";" in result.stderr


@pytest.mark.parametrize("existing", [False, True], ids=["a new file", "a file that is there"])
def test_full_disk(run, phantom_dicom, tmp_path, existing):
    path = tmp_path / "overlay.png"
    if existing:
        path.write_bytes(b"before")
    # The child inherits that SIGXFSZ is ignored, so that writing beyond the limit is an error, as on a full disk.
    overlay(run, phantom_dicom, path, preexec_fn=limit_files, restore_signals=False)
    assert [p.name for p in tmp_path.iterdir()] == (["overlay.png"] if existing else [])
    assert not existing or path.read_bytes() == b"before"


def test_full_device(run, phantom_dicom):
    overlay(run, phantom_dicom, "/dev/full")


@pytest.mark.parametrize("kind", ["no folder", "a file as folder", "a folder", "proc", "read-only"])
def test_unwritable_place(run, phantom_dicom, tmp_path, kind):
    match kind:
        case "no folder":
            path = tmp_path / "none" / "overlay.png"
        case "a file as folder":
            (tmp_path / "file").touch()
            path = tmp_path / "file" / "overlay.png"
        case "a folder":
            path = tmp_path / "overlay.png"
            path.mkdir()
        case "proc":
            path = "/proc/overlay.png"
        case "read-only":
            if os.geteuid() == 0:
                pytest.skip("root may write everywhere")
            (tmp_path / "locked").mkdir(mode=0o500)
            path = tmp_path / "locked" / "overlay.png"
    before = sorted(tmp_path.rglob("*"))
    overlay(run, phantom_dicom, path)
    assert sorted(tmp_path.rglob("*")) == before
