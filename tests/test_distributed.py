"""Training on several processes (Gloo): equal to one process, named when one is killed, and going on from the checkpoint."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, needed
from safetensors.numpy import load_file
from test_training import RECIPE

# Ten steps at a constant rate; every step is in the log.
STEPS = {"steps": 10, "batch": 8, "checkpoint_every": 5, "log_every": 1, "warmup": 0.0, "final_rate": 1.0}


def recipe(folder, stage=None, norms=False, **changes):
    """Writes the recipe of the other tests, with dropout 0, as its masks depend on the number of processes; `norms` are trained or not."""
    tables = tomllib.loads(RECIPE)
    tables["models"]["apm"] |= {"dropout": 0.0, "train_batch_norm": norms}
    models = folder / "run/models.toml"
    if models.exists():
        models.write_text(re.sub("train_batch_norm = .*", f"train_batch_norm = {json.dumps(norms)}", models.read_text()))
    tables["models"]["lora"]["dropout"] = 0.0
    if stage:
        kept = {key: value for key, value in tables[stage].items() if key not in ("steps", "epochs")}
        tables[stage] = kept | STEPS | changes.pop(stage, {})
    for name, table in changes.items():
        tables[name] = tables.get(name, {}) | table
    lines = []

    def write(table, name):
        plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
        lines.extend([f"[{name}]"] if name else [])
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in plain.items())
        for key, value in table.items():
            if isinstance(value, dict):
                write(value, f"{name}.{key}" if name else key)

    write(tables, "")
    (folder / "recipe.toml").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def program():
    return needed(ROOT / "target/release/anatomix-trainer", "trainer")


@pytest.fixture(scope="module")
def base(program, trainer, tmp_path_factory):
    """A folder with data and a run in which every stage was trained for a few steps."""
    folder = tmp_path_factory.mktemp("distributed")
    trainer("phantom", "--out", folder / "data", "--count", 40, "--size", 96, "--dicom-every", 0)
    few = {"steps": 2, "checkpoint_every": 2}
    recipe(folder, **{stage: few for stage in ["text", "language", "align", "instruct"]}, apm=few)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("epochs = 1\n", ""))
    for stage in ["text", "apm", "language", "align"]:
        command = [program, "train", stage, "--config", folder / "recipe.toml", "--threads", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def fresh(base, tmp_path):
    """Makes folders with the data and a copy of the run."""

    def fresh(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "data").symlink_to(base / "data")
        shutil.copytree(base / "run", folder / "run")
        for path in [*(folder / "run").glob("*.checkpoint.safetensors"), *(folder / "run").glob("*.log.jsonl")]:
            path.unlink()
        return folder

    return fresh


def variables(rank, processes, port):
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return {**os.environ, **{key: str(value) for key, value in own.items()}}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(program, folder, stage, processes, *options):
    """Starts processes as torchrun does; starting torchrun itself takes seconds."""
    command = [program, "train", stage, "--config", folder / "recipe.toml", "--threads", "1", *options]
    if processes == 1:
        return [subprocess.Popen(command, stderr=subprocess.PIPE, text=True)]
    port = free_port()
    environments = [variables(rank, processes, port) for rank in range(processes)]
    return [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for environment in environments]


def train(*arguments, code=0):
    """Trains, and returns what each process says."""
    started = start(*arguments)
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [code] * len(started), "\n".join(said)
    return said


def log(folder, stage):
    return [json.loads(line) for line in (folder / f"run/{stage}.log.jsonl").read_text().splitlines()]


def losses(folder, stage):
    return [(line["step"], line["loss"]) for line in log(folder, stage)]


def figures(line):
    """The figures on the validation split that a line of the log has. (Which sentence is nearest may change with rounding.)"""
    found = line.get("validation", {})
    return [*found.get("structure_iou", [0.0] * 36), *(found.get(key, 0.0) for key in ["iou", "label_accuracy", "loss", "accuracy"])]


RESULT = {"text": "text", "apm": "apm", "language": "language", "align": "adapter", "instruct": "adapter"}


def compare(stage, one, several, of_parameters=1e-5):
    """Losses of all steps, and parameters."""
    tolerance = 1e-5
    expected, found = losses(one, stage), losses(several, stage)
    assert [step for step, _ in found] == [step for step, _ in expected]
    np.testing.assert_allclose([loss for _, loss in found], [loss for _, loss in expected], rtol=tolerance, atol=tolerance)
    # Each process has computed them over its share of the validation images.
    expected, found = ([figures(line) for line in log(folder, stage)] for folder in (one, several))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    expected, found = (load_file(folder / f"run/{RESULT[stage]}.safetensors") for folder in (one, several))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        difference = np.abs(found[name] - values).max()
        assert difference < of_parameters, f"{name}: {difference}"


# The same eight samples of a step: in four times two, so that a process has two backward passes, and all at once.
PARTS, SHARDED = {"batch": 2, "accumulate": 4, "checkpointing": True}, {"shard_optimiser": True}
WAYS = {
    "apm": ("apm", False, [(2, PARTS, {}), (4, {}, SHARDED)]),
    # Some gradients of kernels before a norm are rounding errors only, which AdamW scales up.
    "apm with batch norms": ("apm", True, [(3, {}, {})]),
    "instruct": ("instruct", False, [(2, PARTS, {}), (4, {}, SHARDED)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_several_processes_equal_one(program, fresh, way):
    stage, norms, ways = WAYS[way]
    one = fresh("one")
    recipe(one, stage, norms)
    train(program, one, stage, 1)
    for processes, own, settings in ways:
        several = fresh(f"of-{processes}")
        recipe(several, stage, norms, **{stage: own}, distributed=settings | {"bucket": 1, "timeout": 60})
        said = train(program, several, stage, processes)
        assert f"{stage}: step 10 " in said[0] and not any(said[1:]), said
        compare(stage, one, several, 5e-5 if norms else 1e-5)


@pytest.mark.parametrize("before,after", [(2, 1), (1, 3)])
def test_a_checkpoint_resumes_with_any_number_of_processes(program, fresh, before, after):
    """A signal to one process stops all after the same step. Moments that were shared out are whole in the checkpoint."""
    whole, stopped = fresh("whole"), fresh("stopped")
    for folder in whole, stopped:
        recipe(folder, "apm", apm={"checkpoint_every": 1}, distributed={"shard_optimiser": True, "timeout": 60})
    train(program, whole, "apm", 1)
    processes = start(program, stopped, "apm", before)
    log = stopped / "run/apm.log.jsonl"
    while all(process.poll() is None for process in processes) and not (log.exists() and log.stat().st_size):
        time.sleep(0.002)
    processes[-1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [130] * before, said
    step = int(said[0].rsplit("was stopped after step ", 1)[1].split(",")[0])
    saved = load_file(stopped / "run/apm.checkpoint.safetensors")
    assert 0 < step < 10 and saved["progress"][0] == step
    assert {name.removeprefix("first.") for name in saved if name.startswith("first.")} < {
        name.removeprefix("params.") for name in saved if name.startswith("params.")
    }
    train(program, stopped, "apm", after, "--resume")
    compare("apm", whole, stopped)


def test_a_process_with_another_recipe_is_named(program, fresh):
    """Otherwise each would go on with its own rate."""
    folders, port = [fresh("first"), fresh("second")], free_port()
    for folder, rate in zip(folders, [1e-4, 1e-3], strict=True):
        recipe(folder, "apm", apm={"rate": rate}, distributed={"timeout": 60})
    command = lambda folder: [program, "train", "apm", "--config", folder / "recipe.toml", "--threads", "1"]
    own = [(command(folder), variables(rank, 2, port)) for rank, folder in enumerate(folders)]
    processes = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True, env=environment) for run, environment in own]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], said
    assert "process 1 has other settings or data than process 0" in said[0], said


def torchrun(folder, stage, *options):
    """The command, and an environment in which torchrun does not look for other machines."""
    torchrun = Path(sys.executable).with_name("torchrun")
    program = ROOT / "target/release/anatomix-trainer"
    own = ["--no-python", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--standalone", *options]
    return [torchrun, *own, program, "train", stage, "--config", folder / "recipe.toml", "--threads", "1"]


def process_of(rank, folder):
    """The trainer's process of this rank that torchrun started for a folder."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        arguments = command.split(b"\0")
        if arguments[0].endswith(b"anatomix-trainer") and str(folder / "recipe.toml").encode() in arguments:
            if f"RANK={rank}".encode() in environment.split(b"\0"):
                return int(path.name)
    return None


def kill_one(folder, stage, *options):
    """Trains by torchrun, and kills the process of rank 1 once there is a checkpoint. Returns exit code and what was said."""
    command = torchrun(folder, stage, *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        checkpoint, victim = folder / f"run/{stage}.checkpoint.safetensors", None
        while job.poll() is None and not (victim and checkpoint.exists()):
            victim = victim or process_of(1, folder)
            time.sleep(0.002)
        os.kill(victim, signal.SIGKILL)
        said = job.communicate(timeout=120)[1]
    return job.returncode, said


def test_a_killed_process_ends_the_job_with_its_name(program, fresh):
    folder = fresh("killed")
    recipe(folder, "apm", apm={"steps": 100_000, "checkpoint_every": 2}, distributed={"timeout": 60})
    begun = time.monotonic()
    code, said = kill_one(folder, "apm")
    assert code != 0 and time.monotonic() - begun < 60
    assert f"error: rank 0 on {socket.gethostname()}" in said, said
    assert f"rank 1 on {socket.gethostname()}, process " in said and "ended without a message; it was killed" in said


def test_torchrun_goes_on_from_the_checkpoint(program, fresh):
    whole, killed = fresh("whole"), fresh("killed")
    for folder in whole, killed:
        recipe(folder, "apm", apm={"steps": 40, "checkpoint_every": 2}, distributed={"timeout": 60})
    train(program, whole, "apm", 2)
    code, said = kill_one(killed, "apm", "--max-restarts", "1")
    assert code == 0, said
    # Two processes again: the same bytes.
    for name in ["apm.checkpoint.safetensors", "apm.best.safetensors", "apm.safetensors"]:
        assert (killed / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name
    np.testing.assert_allclose(losses(killed, "apm"), losses(whole, "apm"), rtol=1e-12)


def test_ctrl_c_of_torchrun_saves_the_step(program, fresh):
    """The terminal signals torchrun and its processes, and torchrun signals them once more. Their own part ends without an error."""
    folder = fresh("stopped")
    recipe(folder, "apm", apm={"steps": 100_000, "checkpoint_every": 100_000}, distributed={"timeout": 60})
    with subprocess.Popen(torchrun(folder, "apm"), stderr=subprocess.PIPE, text=True, start_new_session=True) as job:
        log = folder / "run/apm.log.jsonl"
        while job.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.002)
        os.killpg(job.pid, signal.SIGINT)
        said = job.communicate(timeout=60)[1]
    step = int(said.split("was stopped after step ", 1)[1].split(",")[0])
    assert load_file(folder / "run/apm.checkpoint.safetensors")["progress"][0] == step > 0
    assert not re.search(r"^error: |panicked", said, re.MULTILINE), said
    assert job.returncode == 1, "that of torchrun"


def test_more_processes_than_samples_are_refused(program, fresh):
    folder = fresh("few")
    recipe(folder, "apm", apm={"batch": 2}, distributed={"timeout": 60})
    said = train(program, folder, "apm", 3, code=1)
    assert all("3 processes cannot share the 2 samples of a step" in text for text in said), said
    assert all(f"error: rank {rank} on" in text for rank, text in enumerate(said)), said


def test_an_error_of_one_process_is_told_by_all(program, base, fresh):
    folder = fresh("damaged")
    (folder / "data").unlink()
    shutil.copytree(base / "data", folder / "data")
    rows = (folder / "data/mimic-cxr-2.0.0-split.csv").read_text().splitlines()
    image = next(row.split(",")[0] for row in rows if row.endswith(",train"))
    (folder / f"data/images/{image}.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    recipe(folder, "apm", distributed={"timeout": 60})
    said = train(program, folder, "apm", 2, code=1)
    reader = next(rank for rank, text in enumerate(said) if f"rank {1 - rank} on" not in text)
    assert image in said[reader] and f"error: rank {reader} on" in said[reader]
    other = said[1 - reader]
    assert f"error: rank {1 - reader} on" in other and image in other, other
    assert re.search(rf"rank {reader} on \S+, process \d+ ended: .*{image}", other), other
