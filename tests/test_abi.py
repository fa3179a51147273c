"""The C interface changes only as docs/abi.md allows: include/anatomix.abi lists what it consists of."""

import re
import subprocess

import abi
import pytest


def test_the_list_is_that_of_the_header():
    new = abi.described(abi.HEADER)
    assert len([name for name in new if name.startswith("function ")]) > 40
    assert {"struct anx_engine_options", "value anx_status.ANX_OK"} <= new.keys()
    old = abi.read(abi.LIST)
    broken, added = abi.compared(old, new)
    if broken or added or old["version"] != new["version"]:
        reasons = abi.refused(old, new)
        remedy = ["docs/abi.md does not allow this:", *reasons] if reasons else ["run `make abi` to renew include/anatomix.abi"]
        pytest.fail("\n".join(["the C interface changed:", *broken, *added, *remedy]), pytrace=False)


RAISED = ("#define ANX_ABI_VERSION 1", "#define ANX_ABI_VERSION 2")
FUNCTION = ("uint32_t anx_abi_version(void);", "uint32_t anx_abi_version(void);\nvoid anx_more(void);")
FIELD = ("} anx_engine_options;", "    size_t more;\n} anx_engine_options;")


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ([], None),
        # What is added needs the number.
        ([FUNCTION], "function anx_more: void (void) is new, but ANX_ABI_VERSION is still 1"),
        ([FUNCTION, RAISED], None),
        ([(RAISED[0], "#define ANX_ABI_VERSION 3")], "after 1 comes 2"),
        ([FIELD], "struct anx_engine_options"),
        ([FIELD, RAISED], None),
        ([("ANX_BUSY = 4,", "ANX_BUSY = 4, ANX_MORE = 999,"), RAISED], None),
        # What is there stays, whatever the number.
        ([("uint32_t anx_abi_version(void);", ""), RAISED], "function anx_abi_version: uint32_t (void) is gone"),
        ([("uint32_t anx_abi_version(void);", "uint64_t anx_abi_version(void);"), RAISED], "function anx_abi_version"),
        ([("ANX_BUSY = 4,", "ANX_BUSY = 40,"), RAISED], "value anx_status.ANX_BUSY: 4 became 40"),
        ([("size_t threads;", "size_t more; size_t threads;"), RAISED], "field anx_engine_options.threads"),
        ([("size_t threads;", "double threads;"), RAISED], "field anx_engine_options.threads"),
        ([("} anx_box;", "    float more;\n} anx_box;"), RAISED], "struct anx_box"),
    ],
)
def test_a_released_interface_only_grows(edits, reason, tmp_path):
    header = tmp_path / "anatomix.h"
    text = abi.HEADER.read_text(encoding="utf-8")
    old = {**abi.described(abi.HEADER), "released": "1"}
    for before, after in edits:
        assert text.count(before) == 1, f"the header does not say {before} once"
        text = text.replace(before, after)
    header.write_text(text, encoding="utf-8")
    reasons = abi.refused(old, abi.described(header))
    assert (reasons == []) if reason is None else any(reason in line for line in reasons), reasons


def test_the_library_exports_the_headers_functions_alone(root):
    """The shared library exports exactly the functions that the header declares."""
    library = root / "target/release/libanatomix.so"
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    header = (root / "include/anatomix.h").read_text()
    declared = set(re.findall(r"\b(anx_[a-z0-9_]+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)))
    assert {line.split()[-1] for line in symbols.splitlines()} == declared
