"""Counts instructions on a processor with AVX2 and without AVX-512 and VNNI, which valgrind emulates, beside other libraries.

Libraries choose their kernels by what a processor can do, so these are the kernels of such a machine. Instructions are not times: a
processor may do several at once, and memory is not counted. Run `make bench` first: its files are used. Needs valgrind.
"""

import os
import re
import subprocess
import sys
import tempfile

from sides import BENCH, FOLDER, environment, last

# One thread on both sides: what waiting threads do is not work.
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# The peers' sides: what is done once, and what is counted.
NUMPY = """
import numpy as np
tables = np.fromfile(FOLDER + "/embeddings.f32", np.float32).reshape(36, -1, 16)
query = np.sin(np.arange(16, dtype=np.float32) * 0.7)
once = lambda: [int((table @ query).argmax()) for table in tables]
"""
PYDICOM = """
import cv2, numpy as np, pydicom
def once():
    values = pydicom.dcmread(FOLDER + "/large.dcm").pixel_array.astype(np.float32)
    values = cv2.resize(values, (1024, 1024), interpolation=cv2.INTER_AREA)
    return (values - values.min()) / (values.max() - values.min())
"""
PILLOW = """
import torch, torchvision
from PIL import Image
resize = torchvision.transforms.Resize((1024, 1024), antialias=True)
def once():
    values = resize(torchvision.transforms.functional.to_tensor(Image.open(FOLDER + "/large.png")))
    return (values - values.min()) / (values.max() - values.min())
"""


def counted(command, **options):
    """Instructions of a program."""
    with tempfile.NamedTemporaryFile("r") as log:
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", f"--log-file={log.name}"]
        result = subprocess.run([*valgrind, *map(str, command)], capture_output=True, text=True, check=False, **options)
        if result.returncode:
            sys.exit(f"{command[0]}: {last(result.stderr)}")
        return int(re.search(r"I\s+refs:\s+([\d,]+)", log.read())[1].replace(",", ""))


def each(program, few, many):
    """Instructions of the work done once: `program(n)` counts a process that does it n times."""
    return (program(many) - program(few)) / (many - few)


def ours(*arguments):
    return lambda times: counted([BENCH, *arguments], input="\n" * times, env=environment([]) | ONE_THREAD)


def peer(code):
    def program(times):
        text = f"FOLDER = {str(FOLDER)!r}\n{code}\nfor _ in range({times}): once()\n"
        return counted([sys.executable, "-c", text], env=os.environ | ONE_THREAD)

    return program


def main():
    print("| work | ours, million instructions | peer | ratio |\n| --- | --- | --- | --- |")
    for work, side, name, code, runs in [
        ("top-1 over 36 structures, 1,000,000 sentences", ours("retrieval", FOLDER / "sentences.safetensors", 16), "numpy", NUMPY, (5, 25)),
        ("file to tensor, 12-bit DICOM 3000x3000", ours("tensor", FOLDER / "large.dcm", 1024), "pydicom + OpenCV", PYDICOM, (1, 3)),
        ("file to tensor, 8-bit PNG 3000x3000", ours("tensor", FOLDER / "large.png", 1024), "Pillow + torchvision", PILLOW, (1, 2)),
    ]:
        mine, theirs = each(side, *runs) / 1e6, each(peer(code), *runs) / 1e6
        print(f"| {work} | {mine:,.1f} | {name}: {theirs:,.1f} | {theirs / mine:.2f} |", flush=True)


if __name__ == "__main__":
    main()
