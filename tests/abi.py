"""The list of what the C interface consists of, include/anatomix.abi: functions, callbacks, structs with offsets, enums with values.

`make abi` renews it, and refuses what docs/abi.md does not allow; test_abi.py compares it with the header. What is listed comes from a C
compiler, which compiles the header: prototypes as it writes them (`-aux-info`), all other things from its debug information.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "include/anatomix.h"
LIST = ROOT / "include/anatomix.abi"
TITLE = """\
# What the C interface of libanatomix.so consists of, on 64-bit Linux. `make abi` renews this file; docs/abi.md says what may change.
# "released" is the version that the last release had. While it is 0 there was none, and everything may change. Later, what is listed
# stays, and what is added needs a greater version. Structs that are "fixed" never grow.
"""


def described(header: Path) -> dict:
    """What the header declares, by name: `struct anx_box` -> `16 bytes, fixed`."""
    text = header.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        source, prototypes, compiled = (Path(folder) / name for name in ("abi.c", "abi.txt", "abi.o"))
        source.write_text(f'#include "{header}"\n', encoding="utf-8")
        command = ["gcc", "-std=c11", "-g", "-fno-eliminate-unused-debug-types", "-c", source, "-o", compiled, "-aux-info", prototypes]
        subprocess.run(command, check=True)
        functions = re.findall(r"\*/ extern (.*?)\b(anx_\w+) (\(.*\));", prototypes.read_text(encoding="utf-8"))
        with compiled.open("rb") as file:
            types = dict(declared(ELFFile(file).get_dwarf_info()))
    found = {"version": re.search(r"#define ANX_ABI_VERSION (\d+)", text)[1]}
    for returned, name, parameters in functions:
        found[f"function {name}"] = f"{returned.strip()} {parameters}"
    fixed = re.findall(r"This struct never grows(?:(?!\*/).)*\*/\s*typedef struct (\w+)", text, flags=re.DOTALL)
    for name, what in types.items():
        found[name] = f"{what}, fixed" if name.removeprefix("struct ") in fixed else what
    return dict(sorted(found.items()))


def declared(dwarf):
    """Names and descriptions of the types that begin with `anx_`, with their fields and values."""
    for unit in dwarf.iter_CUs():
        for entry in unit.iter_DIEs():
            name = named(entry)
            if not name.startswith("anx_"):
                continue
            size = entry.attributes.get("DW_AT_byte_size")
            if entry.tag == "DW_TAG_structure_type" and size:
                yield f"struct {name}", f"{size.value} bytes"
                for field in entry.iter_children():
                    at = field.attributes["DW_AT_data_member_location"].value
                    yield f"field {name}.{named(field)}", f"{spelled(field)} at {at}"
            elif entry.tag == "DW_TAG_enumeration_type":
                yield f"enum {name}", f"{size.value} bytes"
                for value in entry.iter_children():
                    yield f"value {name}.{named(value)}", str(value.attributes["DW_AT_const_value"].value)
            elif entry.tag == "DW_TAG_typedef" and "(" in spelled(entry):
                yield f"callback {name}", spelled(entry)


def named(entry) -> str:
    name = entry.attributes.get("DW_AT_name")
    return name.value.decode() if name else ""


def spelled(entry) -> str:
    """The type of a field, a parameter or a typedef, as C writes it."""
    if "DW_AT_type" not in entry.attributes:
        return "void"
    kind = entry.get_DIE_from_attribute("DW_AT_type")
    if kind.tag == "DW_TAG_pointer_type":
        return f"{spelled(kind)} *"
    if kind.tag == "DW_TAG_const_type":
        inner = spelled(kind)
        return f"{inner} const" if inner.endswith("*") else f"const {inner}"
    if kind.tag == "DW_TAG_subroutine_type":
        return f"{spelled(kind)} ({', '.join(spelled(parameter) for parameter in kind.iter_children())})"
    if kind.tag == "DW_TAG_array_type":
        bounds = [bound.attributes["DW_AT_upper_bound"].value + 1 for bound in kind.iter_children()]
        return spelled(kind) + "".join(f"[{bound}]" for bound in bounds)
    return named(kind)


def read(path: Path) -> dict:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines)


def compared(old: dict, new: dict) -> tuple:
    """What broke and what was added between two descriptions, one line each."""
    broken, added = [], []
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if before == after or name in ("version", "released"):
            continue
        if before is None:
            # A field that lies inside the struct's old size changes what a caller's older struct means.
            owner = f"struct {name.split(' ', 1)[1].split('.')[0]}"
            inside = name.startswith("field ") and owner in old and int(after.rsplit(" ", 1)[1]) < int(old[owner].split()[0])
            (broken if inside else added).append(f"{name}: {after} is new")
        elif after is None:
            broken.append(f"{name}: {before} is gone")
        else:
            grew = name.startswith("struct ") and "fixed" not in before + after and int(before.split()[0]) < int(after.split()[0])
            (added if grew else broken).append(f"{name}: {before} became {after}")
    return sorted(broken), sorted(added)


def refused(old: dict, new: dict) -> list:
    """Why docs/abi.md does not allow to replace the list `old` by `new`; empty if it does."""
    broken, added = compared(old, new)
    released, version = int(old["released"]), int(new["version"])
    if not released <= version <= released + 1:
        return [f"ANX_ABI_VERSION is {version}; after {released} comes {released + 1}"]
    if released == 0:
        return []
    return broken + [f"{line}, but ANX_ABI_VERSION is still {version}" for line in added if version == released]


def main():
    old = read(LIST) if LIST.exists() else {"released": "0"}
    new = {"released": old["released"], **described(HEADER)}
    if reasons := refused(old, new):
        sys.exit("\n".join(["error: docs/abi.md does not allow this:", *reasons]))
    LIST.write_text(TITLE + "".join(f"{name}: {what}\n" for name, what in new.items()), encoding="utf-8")
    broken, added = compared(old, new)
    print("\n".join(broken + added) or "nothing changed")


if __name__ == "__main__":
    main()
