"""All training stages at a tiny size, from drawn radiographs to a bundle that the SDK opens; stopping, killing and resuming them."""

import json
import os
import shutil
import signal
import struct
import subprocess
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT, needed
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tiny import RECIPE, STAGES



@pytest.fixture(scope="module")
def program():
    return needed(ROOT / "target/release/anatomix-trainer", "trainer")


@pytest.fixture(scope="module")
def data(trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    trainer("phantom", "--out", folder, "--count", 50, "--size", 96, "--dicom-every", 0)
    return folder


@pytest.fixture
def train(program, data, tmp_path):
    """Runs a stage of a recipe in a folder with the data. Returns the finished process."""
    (tmp_path / "data").symlink_to(data)

    def train(stage, *options, recipe=RECIPE, code=0):
        (tmp_path / "recipe.toml").write_text(recipe)
        command = [program, "train", stage, "--config", tmp_path / "recipe.toml", "--threads", "1", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code, done.stderr
        return done.stderr

    return train


@pytest.fixture(scope="module")
def whole(program, data, tmp_path_factory):
    """The folder in which all stages were run, one after the other."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "data").symlink_to(data)
    (folder / "recipe.toml").write_text(RECIPE)
    for stage in STAGES:
        subprocess.run([program, "train", stage, "--config", folder / "recipe.toml", "--threads", "1"], check=True, timeout=600)
    return folder


def earlier(whole, folder, stage):
    """Copies what the stages before this one made."""
    shutil.copytree(whole / "run", folder / "run")
    after = STAGES[STAGES.index(stage) :]
    made = {"text": ["tokenizer.json", "models.toml", "text.safetensors"], "apm": ["apm.safetensors", "sentences.json"]}
    made |= {"language": ["language.safetensors"], "align": ["aligned.safetensors", "adapter.safetensors"], "instruct": []}
    for later in after:
        for path in [*(folder / "run").glob(f"{later}.*"), *(folder / "run" / name for name in [f"recipe.{later}.toml", *made[later]])]:
            path.unlink(missing_ok=True)
    if stage == "instruct":
        shutil.copy(folder / "run/aligned.safetensors", folder / "run/adapter.safetensors")


RESULT = {"text": "text", "apm": "apm", "language": "language", "align": "aligned", "instruct": "adapter"}


def test_all_stages_make_a_bundle_that_answers(whole, trainer, anatomix, data):
    for stage in STAGES:
        lines = [json.loads(line) for line in (whole / f"run/{stage}.log.jsonl").read_text().splitlines()]
        assert all({"step", "epoch", "loss"} <= line.keys() for line in lines)
        steps = {"text": 6, "apm": 8, "language": 5, "align": 4, "instruct": 5}[stage]
        assert [line["step"] for line in lines] == [*range(2, steps, 2), steps]
        assert all(line["validation"] for line in lines)
        assert (whole / f"run/{stage}.best.safetensors").exists()
        # TensorBoard's files have the same numbers.
        found = {(event.step, value.tag): value.simple_value for event in events(whole, stage) for value in event.summary.value}
        expected = {(line["step"], f"{stage}/{key}"): value for line in lines for key, value in numbers(line)}
        assert found == {key: np.float32(value) for key, value in expected.items()}
    trainer("export", whole / "run", "--out", whole / "bundle")
    image = next((data / "images").glob("*.png"))
    command = [anatomix, "ask", image, "Where is the heart?", "--bundle", whole / "bundle", "--max-tokens", "5", "--accept-flags", "--json"]
    environment = {**os.environ, "ORT_DYLIB_PATH": str(ROOT / ".deps/onnxruntime/libonnxruntime.so")}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert said.returncode == 0, said.stderr


def numbers(line):
    """The numbers of a line of the log with their names."""
    for key, value in [*line.items(), *((f"validation/{key}", value) for key, value in line["validation"].items())]:
        if isinstance(value, (int, float)) and key != "step":
            yield key, value


def events(folder, stage):
    """The events of a stage's TensorBoard file, read by Google's protocol buffers, with checksums of CRC-32C as the format has them."""
    kinds = {"double": 1, "float": 2, "int64": 3, "string": 9, "message": 11}
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    for message, fields in {
        "Value": [("tag", 1, "string", ""), ("simple_value", 2, "float", "")],
        "Summary": [("value", 1, "message", "*.t.Value")],
        "Event": [
            ("wall_time", 1, "double", ""),
            ("step", 2, "int64", ""),
            ("file_version", 3, "string", ""),
            ("summary", 5, "message", ".t.Summary"),
        ],
    }.items():
        added = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            added.field.add(name=name, number=number, type=kinds[kind], label=3 if of[:1] == "*" else 1, type_name=of.lstrip("*") or None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    event = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))

    def masked(data):
        checksum = 0xFFFFFFFF
        for byte in data:
            checksum ^= byte
            for _ in range(8):
                checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
        checksum ^= 0xFFFFFFFF
        return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF

    (path,) = (folder / "run/tensorboard" / stage).iterdir()
    assert "tfevents" in path.name
    rest, found = path.read_bytes(), []
    while rest:
        length, of_length = struct.unpack("<QI", rest[:12])
        data, (of_data,) = rest[12 : 12 + length], struct.unpack("<I", rest[12 + length : 16 + length])
        assert (of_length, of_data) == (masked(rest[:8]), masked(data))
        found.append(event.FromString(data))
        rest = rest[16 + length :]
    assert found[0].file_version == "brain.Event:2"
    return found


def test_runs_are_compared_and_drawn(whole, trainer):
    rows = json.loads(trainer("compare", whole / "run", whole / "run", "--json"))
    figures = {(row["stage"], row["figure"]): row["values"] for row in rows}
    assert {stage for stage, _ in figures} == set(STAGES)
    assert figures["apm", "step"] == [8, 8]
    last = json.loads((whole / "run/apm.log.jsonl").read_text().splitlines()[-1])
    assert figures["apm", "validation/iou"] == pytest.approx([last["validation"]["iou"]] * 2, rel=1e-12)
    assert f"{last['validation']['iou']:.4f}" in trainer("compare", whole / "run")
    page = (whole / "run/report.html").read_text()
    assert trainer("report", whole / "run", "--out", whole / "again.html").strip() == str(whole / "again.html")
    assert (whole / "again.html").read_text() == page
    drawings = [ElementTree.fromstring(part.split("</svg>")[0] + "</svg>") for part in page.split("<svg")[1:] for part in ["<svg" + part]]
    texts = [" ".join(text.strip() for text in drawing.itertext()) for drawing in drawings]
    titles = ["apm: learning rate", "apm: validation", "apm: share of time waiting", "IoU of each structure"]
    for title in [*(f"{stage}: loss" for stage in STAGES), *titles]:
        assert any(title in text for text in texts), title
    assert not any("loss" in text and "idle" in text for text in texts)
    assert any("Trachea and Main Bronchus" in text for text in texts)


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_folder_without_logs_is_refused(program, tmp_path, command):
    for folder, words in [(tmp_path, "has no log of a training stage"), (tmp_path / "missing", "there is no folder")]:
        done = subprocess.run([program, command, folder], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and words in done.stderr and str(folder) in done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_resumes_to_the_same_bytes(whole, train, program, tmp_path, stage):
    """Killed where its first checkpoint is written, and resumed: the files are those of a training that was never stopped."""
    earlier(whole, tmp_path, stage)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = [program, "train", stage, "--config", tmp_path / "recipe.toml", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        checkpoint = tmp_path / f"run/{stage}.checkpoint.safetensors"
        while process.poll() is None and not checkpoint.exists() and not checkpoint.with_suffix(".partial").exists():
            time.sleep(0.001)
        process.kill()
    train(stage, "--resume")
    for name in [f"{stage}.checkpoint.safetensors", f"{stage}.best.safetensors"]:
        assert (tmp_path / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name
    name = f"{RESULT[stage]}.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (whole / "run" / name).read_bytes()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step(whole, train, program, tmp_path, sent):
    """The stage ends with exit code 130, and resuming gives the parameters of a training that was never stopped."""
    earlier(whole, tmp_path, "language")
    recipe = RECIPE.replace("steps = 5", "steps = 100000", 1)
    (tmp_path / "recipe.toml").write_text(recipe)
    command = [program, "train", "language", "--config", tmp_path / "recipe.toml", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "run/language.log.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.01)
        process.send_signal(sent)
        _, said = process.communicate()
    assert process.returncode == 130, said
    step = int(said.rsplit("was stopped after step ", 1)[1].split(",")[0])
    assert "--resume continues" in said
    from safetensors.numpy import load_file

    assert load_file(tmp_path / "run/language.checkpoint.safetensors")["progress"][0] == step
    assert not (tmp_path / "run/language.safetensors").exists(), "the result appears when the stage is done"
    refused = train("language", "--resume", recipe=RECIPE.replace("steps = 5", "steps = 1", 1), code=1)
    assert f"is at step {step}, beyond the 1 of the recipe" in refused


def test_a_training_that_begins_anew_leaves_no_checkpoint_to_resume_from(train, tmp_path):
    """A training that was killed before its first checkpoint would resume from that of another one."""
    said = train("text", "--resume")
    assert "there is no checkpoint to resume from, so it starts at step 0" in said
    checkpoint = tmp_path / "run/text.checkpoint.safetensors"
    before = checkpoint.read_bytes()
    said = train("text", recipe=RECIPE.replace("steps = 6", "steps = 8", 1))
    aside = tmp_path / "run/text.checkpoint.earlier.safetensors"
    assert f"the checkpoint of the earlier training is now {aside}" in said
    assert aside.read_bytes() == before != checkpoint.read_bytes()


def test_a_run_is_trained_by_one_program_at_a_time(whole, train, program, tmp_path):
    """Also after it was killed, which leaves nothing locked."""
    earlier(whole, tmp_path, "language")
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("steps = 5", "steps = 100000", 1))
    command = [program, "train", "language", "--config", tmp_path / "recipe.toml", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        log = tmp_path / "run/language.log.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.01)
        try:
            for stage in ("language", "text"):
                said = train(stage, code=1)
                assert f"{tmp_path}/run is in use by process {process.pid} on " in said and "another run folder" in said
            assert "6 steps" in train("text", "--dry-run")
        finally:
            process.kill()
    train("language", "--resume", recipe=RECIPE.replace("steps = 5", "steps = 100", 1))


def test_instruction_tuning_begins_with_what_alignment_gave(whole, train, trainer, tmp_path):
    """Started again, it does not go on from its own result, and an imported adapter is kept to begin with."""
    shutil.copytree(whole / "run", tmp_path / "run")
    train("instruct")
    name = "run/adapter.safetensors"
    assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    (tmp_path / "run/aligned.safetensors").unlink()
    said = train("instruct", code=1)
    assert "aligned.safetensors is missing; run it to its end" in said
    train("instruct", "--from", whole / "run/aligned.safetensors")
    assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_training_a_stage_again_sets_aside_what_was_trained_on_it(whole, train, program, tmp_path):
    shutil.copytree(whole / "run", tmp_path / "run")
    adapter, aside = tmp_path / "run/adapter.safetensors", tmp_path / "run/adapter.earlier.safetensors"
    # The same parameters again.
    train("apm", "--resume")
    train("align", "--resume")
    assert adapter.read_bytes() == (whole / "run/adapter.safetensors").read_bytes()
    said = train("apm", recipe=RECIPE.replace("[apm]", "[apm]\nseed = 7"))
    assert f"{adapter} was trained on what this stage made earlier; it is now {aside}" in said
    assert aside.read_bytes() == (whole / "run/adapter.safetensors").read_bytes() and not adapter.exists()
    assert "there is no checkpoint to resume from" in train("align", "--resume")
    train("instruct", "--resume")
    assert adapter.read_bytes() != aside.read_bytes()


def test_a_tokenizer_appears_with_its_encoder(whole, train, program, data, tmp_path):
    """A training on other data that is refused or killed leaves the run as it was."""
    shutil.copytree(whole / "run", tmp_path / "run")
    (tmp_path / "data").unlink()
    shutil.copytree(data / "prepared", tmp_path / "data")
    images = tmp_path / "data/images.jsonl"
    images.write_text(images.read_text().replace('"width":', '"width": '))
    # Another tokenizer with as many pieces, as other data may give.
    tokenizer = tmp_path / "run/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    names = ["tokenizer.json", *(f"{result}.safetensors" for result in RESULT.values())]
    files = lambda: {name: (tmp_path / "run" / name).read_bytes() for name in names}
    before = files()
    assert "cannot resume: the data are not those" in train("text", "--resume", code=1)
    assert files() == before
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("steps = 6", "steps = 100000", 1))
    command = [program, "train", "text", "--config", tmp_path / "recipe.toml", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        checkpoint = tmp_path / "run/text.checkpoint.safetensors"
        aside = tmp_path / "run/text.checkpoint.earlier.safetensors"
        while process.poll() is None and not (aside.exists() and checkpoint.exists()):
            time.sleep(0.01)
        process.kill()
    assert files() == before
    assert f"the checkpoint of the earlier training is now {aside.with_name('text.checkpoint.earlier.2.safetensors')}" in train("text")
    assert tokenizer.read_bytes() == (whole / "run/tokenizer.json").read_bytes()
    assert (tmp_path / "run/apm.earlier.safetensors").read_bytes() == before["apm.safetensors"]
    assert not (tmp_path / "run/apm.safetensors").exists()


def test_damaged_parameters_are_named_and_endless_files_refused(train, whole, tmp_path):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(whole / "run", tmp_path / "run")
    path = tmp_path / "run/language.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] = np.nan
    save_file(tensors, path)
    said = train("instruct", code=1)
    assert "model.norm.weight has values that are not finite" in said and "Lower the rate" not in said
    assert "/dev/zero" in train("apm", "--from", "/dev/zero", code=1)


def test_a_dry_run_says_what_would_be_done(train, whole, tmp_path):
    said = train("text", "--dry-run")
    assert "6 steps of 16, " in said and "parameters" in said and "MB" in said
    assert not list((tmp_path / "run").iterdir())
    earlier(whole, tmp_path / "again", "align")
    (tmp_path / "run").rmdir()
    shutil.move(tmp_path / "again/run", tmp_path / "run")
    files = lambda: {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    before = files()
    said = train("align", "--dry-run")
    assert "4 steps" in said
    assert files() == before


@pytest.mark.parametrize(
    "wrong,right,words",
    [
        ("batch = 6", "batch = 0", "[apm]: batch = 0"),
        ("[models.lora]", "[augmentation]\nflip = 1.5\n[models.lora]", "flip = 1.5 is not between 0 and 1"),
        ("planes = 8", "planes = 16", "models.apm.planes = 16, but the models of"),
        ("[apm]", "[apm]\nbatsh = 1", "unknown field `batsh`"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(train, whole, tmp_path, wrong, right, words):
    earlier(whole, tmp_path, "apm")
    said = train("apm", recipe=RECIPE.replace(wrong, right, 1), code=1)
    assert said.startswith("error: ") and words in said and len(said.splitlines()) <= 4, said


def test_data_without_a_validation_split_or_reports_is_refused_at_the_start(train, whole, data, tmp_path):
    earlier(whole, tmp_path, "apm")
    (tmp_path / "data").unlink()
    # A prepared folder and a folder of phantoms are both data.
    shutil.copytree(data / "prepared", tmp_path / "data")
    images = tmp_path / "data/images.jsonl"
    text = images.read_text()
    images.write_text(text.replace('"split":"validate"', '"split":"train"'))
    assert "has no validation images" in train("apm", code=1)
    images.write_text(text)
    shutil.rmtree(tmp_path / "run")
    earlier(whole, tmp_path, "align")
    samples = tmp_path / "data/samples/phantom.train.jsonl"
    samples.write_text("".join(line for line in samples.open() if json.loads(line)["task"] != "report"))
    assert "has no images of the split train with a report" in train("align", code=1)


MEMORY_KEYS = ["batch = 6", 'batch = 6\nprecision = "bf16"', "batch = 3\naccumulate = 2\ncheckpointing = true"]


def test_a_loss_falls_as_in_fp32_with_less_memory(whole, train, tmp_path):
    """Steps of the perception module in bf16, and of several batches with layers that are computed again."""
    losses = []
    for number, keys in enumerate(MEMORY_KEYS):
        earlier(whole, tmp_path, "apm")
        settings = "[apm]\nrate = 1e-3\nsteps = 60\nlog_every = 5\ncheckpoint_every = 60\n" + keys
        train("apm", recipe=RECIPE.replace("[apm]\nbatch = 6\nepochs = 1\ncheckpoint_every = 2", settings))
        lines = [json.loads(line) for line in (tmp_path / "run/apm.log.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines])
        (tmp_path / "run").rename(tmp_path / f"run-{number}")
    print("\n".join(f"{keys!r}: {found}" for keys, found in zip(MEMORY_KEYS, losses, strict=True)))
    for found in losses:
        assert found[-1] < 0.9 * found[0]
        assert abs(found[-1] / losses[0][-1] - 1) < 0.1


def test_an_output_layer_of_its_own_is_trained_and_exported(whole, train, trainer, tmp_path):
    from safetensors.numpy import load_file

    earlier(whole, tmp_path, "instruct")
    recipe = RECIPE + 'own_head = true\nprecision = "bf16"\naccumulate = 2\n'
    train("instruct", recipe=recipe)
    tuned, base = (load_file(tmp_path / f"run/{name}.safetensors") for name in ("adapter", "language"))
    head, table = tuned["lm_head.weight"], tuned["model.embed_tokens.weight"]
    before = base["model.embed_tokens.weight"]
    assert "lm_head.weight" not in base
    assert (head != before).any() and (table != before).any() and (head != table).any()
    trainer("export", tmp_path / "run", "--out", tmp_path / "bundle")
    graph = (tmp_path / "bundle/decoder.onnx").read_bytes()
    assert b"lm_head.weight" in graph and b"model.embed_tokens.weight" in graph
    # Resuming at the end gives the same parameters.
    train("instruct", "--resume", recipe=recipe)
    assert (load_file(tmp_path / "run/adapter.safetensors")["lm_head.weight"] == head).all()
