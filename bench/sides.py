"""The two sides of a comparison, and their alternation."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build/bench"
BENCH = ROOT / "target/release/examples/bench"
TRAINER = ROOT / "target/release/anatomix-trainer"
PHANTOM = ROOT / "examples/phantom.dcm"
REFERENCE = ROOT / "examples/reference-bundle"
THREADS = len(os.sched_getaffinity(0))
os.environ["ORT_DYLIB_PATH"] = str(ROOT / ".deps/onnxruntime/libonnxruntime.so")


def environment(questions):
    """The environment of the SDK's side, with a file of these questions."""
    path = FOLDER / "questions.txt"
    path.write_text("\n".join(questions))
    return {**os.environ, "ANATOMIX_QUESTIONS": str(path)}


class Failed(Exception):
    """A program of this project failed. The message has its last line."""


def run(command, **options):
    """Runs a program of this project. Returns its output."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if result.returncode:
        raise Failed(f"{Path(command[0]).name}: {last(result.stderr)} (exit {result.returncode})")
    return result.stdout


def last(output):
    """The last line of a program's output."""
    return next((line for line in reversed(output.splitlines()) if line.strip()), "no output")


class Ours:
    """The SDK's side, a process that does its work once for each call and returns one of its figures, or several of them (a slice).
    `numbers` has all figures of the last call. Another program than the SDK's can be that process."""

    def __init__(self, *arguments, questions=(), figure=0, program=None):
        self.figure = figure
        self.command = [*(program or [BENCH]), *map(str, arguments)]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment(questions)
        )
        if self.process.stdout.readline().strip() != "ready":
            self.fail()

    def fail(self):
        """Raises the error of a process that gave no answer."""
        self.close()
        self.errors.seek(0)
        raise Failed(f"{last(self.errors.read())} (exit {self.process.returncode})")

    def __call__(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()
        self.numbers = [float(number) for number in self.process.stdout.readline().split()]
        if not self.numbers:
            self.fail()
        return self.numbers[self.figure]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def fresh(command, questions=()):
    """Runs a new process. Returns the milliseconds from its start to its first line, and its peak memory in MiB."""
    runner = [sys.executable, "-S", Path(__file__).with_name("fresh.py"), *map(str, command)]
    return [float(number) for number in run(runner, env=environment(questions)).split()]


def timed(work):
    """A function that does the work and returns its milliseconds."""

    def run():
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3

    return run


# Seconds before a side's turn where the side before is a process whose threads, after a run, wait some milliseconds for work without
# sleeping. ONNX Runtime's do so by default, and would take a core from the next side: 7 % of a run of the perception module.
PAUSE = 0.1


def processes(start, count, rounds, pause=0.0):
    """Figures of the sides in alternating rounds. `start` gets a function that starts processes from what makes them, and returns the
    sides. That is done several times, because the position of buffers in memory changes the times of a process by some percent. The first
    round after each start is a warm-up. Of two processes that do the same work, the one that was started first took 4 % more time, and the
    one whose turn was first 2 %. So every second start and every second round has the opposite order."""

    def one_round(sides, turned):
        figures = []
        for side in reversed(sides) if turned else sides:
            time.sleep(pause)
            figures.append(side())
        return figures[::-1] if turned else figures

    figures = []
    for number in range(count):
        with contextlib.ExitStack() as stack:

            def started(makers, turned=number % 2, stack=stack):
                ready = [stack.enter_context(make()) for make in (reversed(makers) if turned else makers)]
                return ready[::-1] if turned else ready

            sides = start(started)
            figures += [one_round(sides, turn % 2) for turn in range(rounds + 1)][1:]
    return zip(*figures, strict=True)


def turns(ours, peer, rounds):
    """Milliseconds of both sides in alternating rounds."""
    peer()
    return zip(*[(ours(), peer()) for _ in range(rounds)], strict=True)
