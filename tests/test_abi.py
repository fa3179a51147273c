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


# Where a constant does not begin with its enum's name.
PREFIXES = {"anx_status": "ANX_", "anx_log_level": "ANX_LOG_"}


def misnamed(interface: dict) -> list:
    """What does not follow the header's paragraph on names."""
    found = []
    for name, what in interface.items():
        kind, _, name = name.partition(" ")
        owner, _, part = name.partition(".")
        if kind == "value" and not part.startswith(PREFIXES.get(owner, f"{owner.upper()}_")):
            found.append(name)
        if kind == "function" and re.match(r"u?int(64_t)?|size_t", what) and "abi_version" not in name:
            number = not re.search(r"_(width|height|counterpart|is_saved_study)$", name) and "embedding_width" not in name
            found += [name] * (number and not name.endswith(("_count", "_bytes", "_size")))
        if kind == "field" and (callback := re.fullmatch(r"anx_(\w+)_callback at \d+", what)):
            wanted = {f"{callback[1]}"} if callback[1] != "free" else {"log_free"}
            data = f"field {owner}.{part.removesuffix('_free')}_user_data"
            found += [name] * (part not in wanted or data not in interface)
        if kind == "field" and re.search(r"(^|_)(count|index|size)$", part) and not what.startswith("size_t at"):
            found.append(name)
    return found


def test_names_follow_one_scheme():
    interface = abi.described(abi.HEADER)
    assert misnamed(interface) == []
    wrong = {
        "value anx_flow.ANX_GO": "2",
        "function anx_study_turns": "size_t (const struct anx_study *)",
        "field anx_ask_options.callback": "anx_piece_callback at 24",
        "field anx_label.index": "uint32_t at 0",
    }
    assert misnamed({**interface, **wrong}) == [name.split(" ")[1] for name in wrong]


def test_the_promise_is_said_once(root):
    """README, header and CHANGELOG lead to docs/abi.md, and repeat none of its rules."""
    rules = ["are never removed", "never used again"]
    for page in ["README.md", "CHANGELOG.md", "include/anatomix.h"]:
        text = " ".join((root / page).read_text(encoding="utf-8").replace("\n *", "\n").split())
        assert "docs/abi.md" in text, page
        assert not [rule for rule in rules if rule in text], page
    # While nothing is released, all of them say the same version.
    header = (root / "include/anatomix.h").read_text(encoding="utf-8")
    assert abi.read(abi.LIST)["version"] == re.search(r"#define ANX_ABI_VERSION (\d+)", header)[1]
    said = (root / "docs/abi.md").read_text(encoding="utf-8")
    assert "released" not in said or f"`ANX_ABI_VERSION` stays {abi.read(abi.LIST)['version']}" in said


def test_the_library_exports_the_headers_functions_alone(root):
    """The shared library exports exactly the functions that the header declares."""
    library = root / "target/release/libanatomix.so"
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    header = (root / "include/anatomix.h").read_text()
    declared = set(re.findall(r"\b(anx_[a-z0-9_]+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)))
    assert {line.split()[-1] for line in symbols.splitlines()} == declared
