"""A training that is killed between any two of its writes, and resumed, ends with the same files."""

import os
import shutil
import subprocess

import native
import pytest
from conftest import ROOT, needed
from tiny import RECIPE

# Loaded before the C library, it kills the process before its n-th operation on a file of the run's folder, and says how many there were.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int operations;

static void operation(const char *path) {
    const char *folder = getenv("KILL_IN"), *at = getenv("KILL_AT");
    if (folder && strncmp(path, folder, strlen(folder)) == 0 && ++operations == atoi(at)) kill(getpid(), SIGKILL);
}

static void of_file(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    operation(path);
}

ssize_t write(int file, const void *bytes, size_t count) {
    of_file(file);
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(file, bytes, count);
}

int fsync(int file) {
    of_file(file);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

int rename(const char *from, const char *to) {
    operation(to);
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}

int unlink(const char *path) {
    operation(path);
    return ((int (*)(const char *))dlsym(RTLD_NEXT, "unlink"))(path);
}

__attribute__((destructor)) static void end(void) { fprintf(stderr, "operations: %d\n", operations); }
"""
KILLS = 16


@pytest.fixture(scope="module")
def folder(trainer, tmp_path_factory):
    """A folder with data, and the shim."""
    folder = tmp_path_factory.mktemp("killed")
    trainer("phantom", "--out", folder / "data", "--count", 30, "--size", 96, "--dicom-every", 0)
    (folder / "shim.c").write_text(SHIM)
    native.run(["gcc", "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c", "-ldl"])
    return folder


def files(folder):
    """What a training leaves, without what tells times."""
    names = [path for path in (folder / "run").iterdir() if path.is_file() and path.suffix in {".safetensors", ".json", ".toml"}]
    return {path.name: path.read_bytes() for path in names}


def test_a_kill_between_any_two_writes(folder, tmp_path):
    program = needed(ROOT / "target/release/anatomix-trainer", "trainer")
    (tmp_path / "data").symlink_to(folder / "data")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def train(at, *options):
        environment = os.environ | {"LD_PRELOAD": str(folder / "shim.so"), "KILL_IN": f"{tmp_path}/run/", "KILL_AT": str(at)}
        command = [program, "train", "text", "--config", recipe, "--threads", "1", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)

    whole = train(0)
    assert whole.returncode == 0, whole.stderr
    count, expected = int(whole.stderr.rsplit("operations: ", 1)[1]), files(tmp_path)
    assert count > 30, "hardly any operation was seen"
    # The last ones are those of the result; the others are spread over the steps.
    for at in sorted({1 + number * (count - 6) // (KILLS - 6) for number in range(KILLS - 6)} | set(range(count - 5, count + 1))):
        shutil.rmtree(tmp_path / "run")
        assert train(at).returncode == -9
        done = train(0, "--resume")
        assert done.returncode == 0, (at, done.stderr)
        found = files(tmp_path)
        assert found.keys() - {name for name in found if ".earlier." in name} == expected.keys(), at
        assert all(found[name] == content for name, content in expected.items()), at
