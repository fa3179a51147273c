"""The table: work, ours, peer, ratio, floor, and whether the floor was reached."""

import datetime
import json
import re
from importlib.metadata import version
from pathlib import Path

from sides import ROOT, THREADS

ROWS = []
HEAD = ["work", "ours", "peer", "ratio", "floor", "reached"]
PEERS = [
    "onnxruntime", "onnxruntime-genai", "llama-cpp-python", "openvino", "torch", "torchvision", "faiss-cpu", "numpy", "pydicom",
    "opencv-python-headless", "pillow",
]  # fmt: skip


def row(work, peer, ours, theirs, floor=None, unit="ms", amount=None, wish=None):
    """Adds a line. Figures are milliseconds or others of which less is better; with an amount they become that many a second."""
    ratio = theirs / ours
    show = lambda x: f"{amount / x * 1e3:,.0f} {unit}" if amount else f"{x:,.0f} {unit}" if x >= 1000 else f"{x:,.2f} {unit}"
    floors = "-" if floor is None else f"{floor:.3g}" + (f" (wish {wish:g})" if wish else "")
    reached = "-" if floor is None else "yes" if ratio >= floor else "NO"
    line = [work, show(ours), f"{peer}: {show(theirs)}", f"{ratio:.2f}", floors, reached]
    ROWS.append(dict(zip(HEAD, line, strict=True)))
    print("  ".join(line), flush=True)


def processor():
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = Path("/proc/cpuinfo").read_text()
    wide = [name for flag, name in [("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_vnni", "VNNI"), ("amx_int8", "AMX")] if flag in flags]
    return f"{found[1] if found else 'unknown'} ({', '.join(wide)})"


def write():
    """Prints the table as Markdown and leaves it in build/bench.md and build/bench.json."""
    about = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": THREADS,
        "versions": {name: version(name) for name in PEERS},
    }
    lines = [
        f"{about['date']}, {about['processor']}, {THREADS} threads on both sides. Medians of alternating runs; a ratio above 1 means that",
        "we are faster, or smaller. " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ".",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| --- | --- | --- | --- | --- | --- |",
        *("| " + " | ".join(line.values()) + " |" for line in ROWS),
    ]
    text = "\n".join(lines) + "\n"
    (ROOT / "build/bench.md").write_text(text)
    (ROOT / "build/bench.json").write_text(json.dumps({**about, "rows": ROWS}, indent=2))
    print("\n" + text)
