"""The table of results."""

import datetime
import json
import traceback
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from machine import kind, processor
from sides import ROOT, THREADS

ROWS = []
HEAD = ["work", "ours", "peer", "ratio", "floor", "reached"]
PEERS = [
    "onnxruntime", "onnxruntime-genai", "llama-cpp-python", "openvino", "torch", "torchvision", "faiss-cpu", "numpy", "pydicom",
    "opencv-python-headless", "pillow",
]  # fmt: skip


def row(work, peer, ours, theirs, floor=None, unit="ms", amount=None, wish=None):
    """Adds a row from the figures of each round. Lower figures (milliseconds, MiB) are better. With an amount, they are shown as amounts
    per second. The row shows both sides' medians, and the median of the rounds' ratios: what slows the machine down for some seconds
    changes both sides of a round. `wish` is the floor that should be reached later."""
    ratio = ratios(ours, theirs)
    ours, theirs = median(ours), median(theirs)
    show = lambda x: f"{amount / x * 1e3:,.0f} {unit}" if amount else f"{x:,.0f} {unit}" if x >= 1000 else f"{x:,.2f} {unit}"
    floors = "-" if floor is None else f"{floor:.3g}" + (f" (target {wish:g})" if wish else "")
    reached = "-" if floor is None else "yes" if ratio >= floor else "NO"
    line = [work, show(ours), f"{peer}: {show(theirs)}", f"{ratio:.2f}", floors, reached]
    ROWS.append(dict(zip(HEAD, line, strict=True)))
    print("  ".join(line), flush=True)


def ratios(ours, theirs):
    """The median of the rounds' ratios."""
    return median(peer / own for own, peer in zip(ours, theirs, strict=True))


@contextmanager
def attempt(work):
    """Turns an exception (a refused bundle, a missing library) into a row that reports it, so that the other works are still measured."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "/")
        line = [work, "-", f"cannot be measured here: {message}", "-", "-", "-"]
        ROWS.append(dict(zip(HEAD, line, strict=True)))
        print("  ".join(line), flush=True)


def versions():
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def write(name="bench"):
    """Prints the table as Markdown, and writes it to build/NAME.md and build/NAME.json."""
    about = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "kind": kind(),
        "threads": THREADS,
        "versions": versions(),
    }
    lines = [
        f"{about['date']}, {about['processor']}, floors of {about['kind']}, {THREADS} threads on both sides.",
        "Medians of alternating runs, and of their ratios; a ratio above 1 means that AnatomiX is faster, or needs less memory.",
        ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ".",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| --- | --- | --- | --- | --- | --- |",
        *("| " + " | ".join(line.values()) + " |" for line in ROWS),
    ]
    text = "\n".join(lines) + "\n"
    (ROOT / f"build/{name}.md").write_text(text)
    (ROOT / f"build/{name}.json").write_text(json.dumps({**about, "rows": ROWS}, indent=2))
    print("\n" + text)
