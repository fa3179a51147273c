"""The kind of the processor. Some floors differ by kind, because peers can use instructions that ONNX Runtime does not use there."""

import re
from pathlib import Path

CPU = Path("/proc/cpuinfo").read_text()
FLAGS = set(re.findall(r"\w+", next(iter(re.findall(r"^(?:flags|Features)\s*:(.*)$", CPU, re.MULTILINE)), "")))
# Extensions with 8-bit dot products in one instruction. Kernels for other x86-64 processors need three.
VNNI = {"avx512_vnni", "avx_vnni"}
X86 = "sse2"
NAMES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}


def processor():
    """The processor's name, and the extensions by which kernels are chosen."""
    found = re.search(r"^model name\s*:\s*(.*)$", CPU, re.MULTILINE)
    extensions = [name for flag, name in NAMES.items() if flag in FLAGS]
    return f"{found[1] if found else 'unknown'} ({', '.join(extensions) or 'none of ' + ', '.join(NAMES.values())})"


def kind():
    """The kind of processor that floors depend on."""
    if X86 not in FLAGS:
        return "not x86-64"
    return "x86-64 with VNNI" if FLAGS & VNNI else "x86-64 without VNNI"


def floor(usual, without_vnni):
    """The floor for this processor; `None` means that there is none."""
    return without_vnni if kind() == "x86-64 without VNNI" else usual
