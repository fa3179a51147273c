"""Both sides of a comparison, and how they take turns."""

import contextlib
import os
import subprocess
import sys
import tempfile
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


class Failed(Exception):
    """A program of ours did not do its work. Its last words say why."""


def run(command, **options):
    """Runs a program of ours to its end, and gives what it printed."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if result.returncode:
        raise Failed(f"{Path(command[0]).name}: {last(result.stderr)} (exit {result.returncode})")
    return result.stdout


def last(said):
    """The last line of what a program said."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "said nothing")


class Ours:
    """The SDK's side: does its work once whenever it is asked to."""

    def __init__(self, *arguments, questions=()):
        self.command = [BENCH, *map(str, arguments)]
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment(questions)
        )
        if self.process.stdout.readline().strip() != "ready":
            self.fail()

    def fail(self):
        """It has ended, or ends now, without having answered."""
        self.close()
        self.said.seek(0)
        raise Failed(f"{last(self.said.read())} (exit {self.process.returncode})")

    def __call__(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()
        self.numbers = [float(number) for number in self.process.stdout.readline().split()]
        if not self.numbers:
            self.fail()
        return self.numbers[0]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def fresh(command, questions=()):
    """A process from its start until it says something: milliseconds until then, and the most memory it held, in MiB."""
    runner = [sys.executable, "-S", Path(__file__).with_name("fresh.py"), *map(str, command)]
    return [float(number) for number in run(runner, env=environment(questions)).split()]


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
