"""Both sides of a comparison, and how they take turns."""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build/bench"
BENCH = ROOT / "target/release/examples/bench"
TRAINER = ROOT / "target/release/anatomix-trainer"
PHANTOM = ROOT / "examples/phantom.dcm"
REFERENCE = ROOT / "examples/reference-bundle"
THREADS = len(os.sched_getaffinity(0))
os.environ["ORT_DYLIB_PATH"] = str(ROOT / ".deps/onnxruntime/libonnxruntime.so")


def environment(questions):
    """What the SDK's side reads its questions from."""
    path = FOLDER / "questions.txt"
    path.write_text("\n".join(questions))
    return {**os.environ, "ANATOMIX_QUESTIONS": str(path)}


class Ours:
    """The SDK's side: does its work once whenever it is asked to."""

    def __init__(self, *arguments, questions=()):
        command = [BENCH, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(questions)
        )
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command} did not start")

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.numbers = [float(number) for number in self.process.stdout.readline().split()]
        return self.numbers[0]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def fresh(command, questions=()):
    """A process from its start until it says something: milliseconds until then, and the most memory it held, in MiB."""
    runner = [sys.executable, "-S", Path(__file__).with_name("fresh.py"), *map(str, command)]
    said = subprocess.run(runner, check=True, stdout=subprocess.PIPE, text=True, env=environment(questions)).stdout
    return [float(number) for number in said.split()]


def timed(work):
    def run():
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3

    return run


def turns(ours, peer, rounds):
    """Medians of alternating runs, in milliseconds."""
    peer()
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return [median(side) for side in zip(*pairs, strict=True)]
