"""Training from prepared folders: all sources and stages, what is read ahead, kept, skipped and refused, and the memory that it takes."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter

import eight_sources
import numpy as np
import pytest
from conftest import ROOT, needed
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny import RECIPE, STAGES

MIB = 1 << 20


@pytest.fixture(scope="module")
def program():
    return needed(ROOT / "target/release/anatomix-trainer", "trainer")


@pytest.fixture(scope="module")
def run_stage(program):
    """Runs a stage of the recipe in a folder; returns what it says and its peak memory in bytes."""

    def run_stage(folder, stage, *options, recipe=RECIPE, loading="", code=0):
        text = recipe + ("[loading]\n" + loading if loading else "")
        (folder / "recipe.toml").write_text(text)
        command = [program, "train", stage, "--config", folder / "recipe.toml", "--threads", "1", *options]
        with (folder / "said").open("w+") as said:
            process = subprocess.Popen(command, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
        assert process.returncode == code, text
        assert "panicked" not in text
        return text, used.ru_maxrss * 1024

    return run_stage


@pytest.fixture(scope="module")
def eight(trainer, run_stage, tmp_path_factory):
    """A folder with the miniature of the eight data sets, prepared, and a run of all stages on it."""
    drawn, folder = tmp_path_factory.mktemp("drawn"), tmp_path_factory.mktemp("eight")
    trainer("phantom", "--out", drawn, "--count", eight_sources.COUNT, "--size", 128, "--dicom-every", 1)
    sources = folder / "sources"
    eight_sources.write(sources, drawn)
    config = sources / "prepare.toml"
    # Two validation images do not show all structures.
    config.write_text('database_splits = ["train", "validate"]\n' + config.read_text())
    trainer("prepare", "--config", config, "--out", folder / "data", "--strict")
    said = {stage: run_stage(folder, stage)[0] for stage in STAGES}
    return folder, said


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def samples(folder, split):
    found = [sample for path in (folder / "data/samples").glob(f"*.{split}.jsonl") for sample in lines(path)]
    assert found
    return found


def counted(said):
    return int(re.search(r"(\d+) samples, ", said)[1])


def test_all_sources_train_all_steps(eight):
    folder, said = eight
    images = {image["id"]: image for image in lines(folder / "data/images.jsonl")}
    annotated = [image for image in images.values() if image["split"] == "train" and "boxes" in image]
    assert counted(said["apm"]) == len(annotated)
    asked = samples(folder, "train")
    assert counted(said["align"]) == len({sample["image"] for sample in asked if sample["task"] == "report"})
    # An epoch of instruction tuning takes every question once, up to four of an image in a pack.
    each = Counter(sample["image"] for sample in asked)
    packs = sum(-(-count // 4) for count in each.values())
    assert f"instruct: {len(asked)} questions on {len(each)} images, in {packs} packs" in said["instruct"]
    assert counted(said["instruct"]) == packs
    # Samples on images without a scene graph are trained on, of every source.
    assert {sample["image"].split("/")[0] for sample in asked} == {"mimic_cxr_jpg", "vindr_cxr", "padchest_gr", "slake"}
    assert len(each) > counted(said["apm"]) == counted(said["language"])
    for stage in STAGES:
        assert "the steps waited for data" in said[stage]
        assert all(np.isfinite(line["loss"]) and 0 <= line["idle"] <= 1 for line in lines(folder / f"run/{stage}.log.jsonl"))
    # The sentences are those that were prepared.
    assert json.loads((folder / "run/sentences.json").read_text()) == json.loads((folder / "data/sentences.json").read_text())


def test_all_sources_are_evaluated(eight, trainer):
    folder, _ = eight
    trainer("export", folder / "run", "--out", folder / "bundle")
    figures = json.loads(trainer("evaluate", "--bundle", folder / "bundle", "--data", folder / "data", "--json"))
    asked = [sample for sample in samples(folder, "test") if "history" not in sample]
    images = lines(folder / "data/images.jsonl")
    annotated = [image for image in images if image["split"] == "test" and "boxes" in image]
    assert figures["images"] == len({sample["image"] for sample in asked} | {image["id"] for image in annotated})
    assert figures["apm"]["count"] == sum(bounds is not None for image in annotated for bounds in image["boxes"])
    # One question of each task on each image that has one.
    questions = {(sample["image"], sample["task"]) for sample in asked}
    assert {task: figure["count"] for task, figure in figures["tasks"].items()} == {
        task: sum(other == task for _, other in questions) for task in {task for _, task in questions}
    }
    assert len(figures["tasks"]) == 9


def copied(eight, folder, stage):
    """A folder with the same data and a run before this stage."""
    source, _ = eight
    (folder / "data").symlink_to(source / "data")
    made = {"apm": ["text"], "align": ["text", "apm", "language"], "instruct": ["text", "apm", "language"]}[stage]
    (folder / "run").mkdir()
    files = ["tokenizer.json", "models.toml", *(["sentences.json"] if "apm" in made else []), *(f"{name}.safetensors" for name in made)]
    for name in files:
        shutil.copy(source / "run" / name, folder / "run" / name)
    return folder


def same(one, other, tolerance=0.0):
    one, other = load_file(one), load_file(other)
    return one.keys() == other.keys() and all(np.abs(one[name] - other[name]).max() <= tolerance for name in one)


def test_the_order_is_that_of_the_seed(eight, run_stage, tmp_path):
    """Another seed gives other parameters, so that equal ones below say something."""
    run_stage(copied(eight, tmp_path, "apm"), "apm", recipe=RECIPE.replace("[apm]", "[apm]\nseed = 7"))
    assert not same(eight[0] / "run/apm.safetensors", tmp_path / "run/apm.safetensors", 1e-3)


@pytest.mark.parametrize("stage,result", [("apm", "apm.safetensors"), ("instruct", "adapter.safetensors")])
def test_workers_and_caches_change_nothing(eight, run_stage, tmp_path, stage, result):
    """One worker or four, decoded or cached images, features from disk or from the step: the parameters are the same."""
    runs = {}
    for number, loading in enumerate([
        "workers = 1\nprefetch = 1", 'workers = 4\nprefetch = 5\ncache = "cache"', 'cache = "../1/cache"', 'perceived = "step"',
    ]):  # fmt: skip
        if stage == "apm" and "step" in loading:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        said, _ = run_stage(copied(eight, folder, stage), stage, loading=loading)
        runs[loading] = folder / "run" / result
        if stage == "instruct":
            price = "computed in each step" if "step" in loading else "bytes an image on disk"
            assert price in said
            # The third one finds what the second one kept.
            assert (" ms an image" in said) == (number != 2), said
            assert bool(list((folder / "run").glob("perceived.*"))) == (number == 0)
    first, *others = runs.values()
    for loading, other in zip(list(runs)[1:], others):
        # A batch of one orientation is computed with other sums than one of both.
        assert same(first, other, 1e-5 if "step" in loading else 0.0), loading
    kept = [path for path in (tmp_path / "1/cache").rglob("*") if path.is_file()]
    sizes = {path.stat().st_size for path in kept if path.parts[-3].startswith("letterboxed")}
    assert sizes == {64 * 64 + 4}
    # Whatever is damaged in a cache of images is made again.
    for path in kept:
        if path.parts[-3].startswith("letterboxed"):
            path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    folder = tmp_path / "again"
    folder.mkdir()
    run_stage(copied(eight, folder, stage), stage, loading='cache = "../1/cache"')
    assert same(first, folder / "run" / result)
    if stage == "instruct":
        # Features belong to the parameters of the module that perceived them.
        path = folder / "run/apm.safetensors"
        save_file({name: tensor * np.float32(1.01) for name, tensor in load_file(path).items()}, path)
        assert " ms an image" in run_stage(folder, stage, loading='cache = "../1/cache"')[0]
        assert not same(first, folder / "run" / result)


def perceived(run):
    """The files of perceived features that are whole; one that is being written has a name with a dot before it."""
    return [path for path in run.glob("perceived.*/*/*") if not path.name.startswith(".")]


def test_perceiving_is_stopped_at_once_and_goes_on(eight, program, run_stage, tmp_path):
    """A signal does not wait for all images to be perceived, and those that were are kept."""
    copied(eight, tmp_path, "instruct")
    (tmp_path / "data").unlink()
    shutil.copytree(eight[0] / "data", tmp_path / "data")
    images = {image["id"]: image for image in lines(tmp_path / "data/images.jsonl")}
    path = tmp_path / "data/samples/mimic_report_gen.train.jsonl"
    sample = lines(path)[0]
    image, names = images[sample["image"]], [f"{sample['image']}-{number}" for number in range(1000)]
    with (tmp_path / "data/images.jsonl").open("a") as file:
        file.writelines(json.dumps(image | {"id": name}) + "\n" for name in names)
    with path.open("a") as file:
        file.writelines(json.dumps(sample | {"image": name}) + "\n" for name in names)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = [program, "train", "instruct", "--config", tmp_path / "recipe.toml", "--threads", "1"]
    # Not SIGINT, which a process that was started in the background may ignore.
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not perceived(tmp_path / "run"):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    # All copies have the same file, which is one of those that were kept or not; the others are perceived now.
    before = {path: path.stat().st_mtime_ns for path in perceived(tmp_path / "run")}
    assert " ms an image" in run_stage(tmp_path, "instruct")[0]
    kept = [path for path, changed in before.items() if path.exists() and path.stat().st_mtime_ns == changed]
    assert kept, "what was perceived is kept"


def test_a_damaged_image_stops_or_is_skipped(eight, run_stage, tmp_path):
    copied(eight, tmp_path, "instruct")
    (tmp_path / "data").unlink()
    shutil.copytree(eight[0] / "data", tmp_path / "data")
    broken = next(image for image in lines(tmp_path / "data/images.jsonl") if image["split"] == "train" and "boxes" in image)
    contents = json.loads((tmp_path / "data/prepared.json").read_text())
    root = tmp_path / "mimic"
    shutil.copytree(contents["folders"]["mimic_cxr_jpg"], root)
    contents["folders"]["mimic_cxr_jpg"] = str(root)
    (tmp_path / "data/prepared.json").write_text(json.dumps(contents))
    path = root / broken["path"]
    path.write_bytes(path.read_bytes()[:300])
    for stage in ("instruct", "apm"):
        said, _ = run_stage(tmp_path, stage, code=1)
        assert f"cannot train on {path}" in said and 'damaged = "skip"' in said
        said, _ = run_stage(tmp_path, stage, loading='damaged = "skip"')
        assert re.search(r"images that cannot be read were skipped [1-9]\d* times", said), said
    # An image of another size would have its boxes elsewhere.
    Image.new("L", (broken["height"] + 1, broken["width"])).save(path)
    assert f"and had {broken['width']} x {broken['height']} when it was prepared" in run_stage(tmp_path, "apm", code=1)[0]
    path.unlink()
    assert str(path) in run_stage(tmp_path, "apm", code=1)[0]


@pytest.mark.parametrize(
    "change,words",
    [
        (("batch = 6", "batch = 5"), "apm.batch is 5, but was 6"),
        (("[text]", "[losses]\nl1 = 1.0\n[text]"), "losses.l1 is 1.0, but was 5.0"),
        (("[text]", '[loading]\ndamaged = "skip"\n[text]'), 'loading.damaged is "skip", but was "stop"'),
    ],
)
def test_a_stage_is_not_resumed_with_another_recipe(eight, run_stage, tmp_path, change, words):
    shutil.copytree(eight[0] / "run", tmp_path / "run")
    (tmp_path / "data").symlink_to(eight[0] / "data")
    assert words in run_stage(tmp_path, "apm", "--resume", recipe=RECIPE.replace(*change, 1), code=1)[0]
    # How it is loaded and logged may change.
    run_stage(tmp_path, "apm", "--resume", recipe=RECIPE.replace("checkpoint_every = 2", "log_every = 3"), loading="workers = 1")


def test_a_stage_is_not_resumed_with_other_data(eight, run_stage, tmp_path):
    shutil.copytree(eight[0] / "run", tmp_path / "run")
    shutil.copytree(eight[0] / "data", tmp_path / "data")
    images = tmp_path / "data/images.jsonl"
    first, *rest = images.read_text().splitlines()
    images.write_text("\n".join([*rest, first]) + "\n")
    assert "the data are not those that it was begun with" in run_stage(tmp_path, "apm", "--resume", code=1)[0]


def test_a_dry_run_reads_the_index_only(eight, run_stage, tmp_path):
    copied(eight, tmp_path, "instruct")
    for name in ["apm.safetensors", "sentences.json"]:
        (tmp_path / "run" / name).unlink()
    before = sorted((tmp_path / "run").iterdir())
    said, _ = run_stage(tmp_path, "instruct", "--dry-run")
    assert "bytes an image on disk" in said and counted(said) == counted(eight[1]["instruct"])
    assert sorted((tmp_path / "run").iterdir()) == before


@pytest.mark.parametrize(
    "name,line,words",
    [
        ("images.jsonl", "{", "images.jsonl line 3"),
        ("images.jsonl", '{"id": "a", "split": "some"}', "images.jsonl line 3"),
        ("samples/slake.train.jsonl", '{"image": "slake/none", "split": "train", "task": "report"}', "there is no image slake/none"),
        ("samples/slake.train.jsonl", '["slake/none", "train", "report"]', "slake.train.jsonl line 3 is not a JSON object"),
        ("samples/slake.train.jsonl", json.dumps({"answer": "a" * 70_000}), "slake.train.jsonl line 3"),
        ("prepared.json", '{"version": 99, "folders": {}}', "has version 99 of the layout"),
    ],
)
def test_damaged_prepared_folders_are_refused(eight, run_stage, tmp_path, name, line, words):
    copied(eight, tmp_path, "instruct")
    (tmp_path / "data").unlink()
    shutil.copytree(eight[0] / "data", tmp_path / "data")
    path = tmp_path / "data" / name
    text = path.read_text().splitlines()
    text[2:3] = [line]
    path.write_text("\n".join(text) if name.endswith("jsonl") else line)
    said, _ = run_stage(tmp_path, "instruct", code=1)
    assert words in said and len(said.splitlines()) <= 4


def test_a_folder_without_data_is_refused(run_stage, tmp_path):
    (tmp_path / "data").mkdir()
    said, _ = run_stage(tmp_path, "text", code=1)
    assert f"{tmp_path / 'data'} is no prepared folder; name one" in said


def test_memory_does_not_grow_with_the_images(eight, run_stage, tmp_path):
    """Trained on 150 and on 600 images of a quarter of a megabyte, a step takes the same memory."""
    side, counts = 512, (150, 600)
    recipe = RECIPE.replace("image_size = 64", f"image_size = {side}").replace("planes = 8", "planes = 4")
    recipe = recipe.replace("batch = 6\nepochs = 1\ncheckpoint_every = 2", "batch = 2\nsteps = 40\ncheckpoint_every = 1000")
    shutil.copytree(eight[0] / "data", tmp_path / "data")
    images = lines(tmp_path / "data/images.jsonl")
    image = next(image for image in images if image["split"] == "train" and "boxes" in image)
    with (tmp_path / "data/images.jsonl").open("a") as file:
        file.writelines(json.dumps(image | {"id": f"{image['id']}-{number}"}) + "\n" for number in range(max(counts)))
    run_stage(tmp_path, "text", recipe=recipe)
    peaks = []
    for count in counts:
        said, peak = run_stage(tmp_path, "apm", recipe=recipe.replace("[apm]", f"[apm]\nimages = {count}"))
        assert counted(said) == count
        peaks.append(peak)
    print(f"peak memory with {counts} images: {[peak // MIB for peak in peaks]} MiB")
    assert peaks[1] - peaks[0] < (counts[1] - counts[0]) * side * side / 3
