"""What kind of machine this is. Some floors differ by kind, because peers use other instructions than we can there."""

import re
from pathlib import Path

CPU = Path("/proc/cpuinfo").read_text()
FLAGS = set(re.findall(r"\w+", next(iter(re.findall(r"^(?:flags|Features)\s*:(.*)$", CPU, re.MULTILINE)), "")))
# Dot products of 8 bits as one instruction. Kernels for x86-64 without it take three.
VNNI = {"avx512_vnni", "avx_vnni"}
X86 = "sse2"
NAMES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}


def processor():
    """Its name and what it can, of what kernels are chosen by."""
    found = re.search(r"^model name\s*:\s*(.*)$", CPU, re.MULTILINE)
    can = [name for flag, name in NAMES.items() if flag in FLAGS]
    return f"{found[1] if found else 'unknown'} ({', '.join(can) or 'none of ' + ', '.join(NAMES.values())})"


def kind():
    """What the floors go by."""
    if X86 not in FLAGS:
        return "not x86-64"
    return "x86-64 with VNNI" if FLAGS & VNNI else "x86-64 without VNNI"


def floor(usual, without_vnni):
    """A floor that differs between the kinds; `None` for none."""
    return without_vnni if kind() == "x86-64 without VNNI" else usual
