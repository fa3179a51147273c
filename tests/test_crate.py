"""What the crates and their pages promise: features, enums that may grow, no dependency that nothing uses, a map of all modules, gates."""

import re
import subprocess
import tomllib

import pytest
from test_structure import ROOT

MANIFESTS = ["sdk", "phantom", "trainer", "bindings/python", "fuzz"]
# Enums whose values are fixed by what they describe, so that callers may match them without another case.
FIXED = {"Flow", "Label", "Side"}
# Dependencies that a crate needs for their features or at build time and does not name: the reason.
UNNAMED: dict[str, str] = {}


def sources(*patterns):
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return {name: (ROOT / name).read_text() for name in listed if (ROOT / name).exists()}


def test_the_c_interface_is_a_feature():
    """Who uses the crate from Rust neither compiles nor exports it."""
    manifest = tomllib.loads((ROOT / "sdk/Cargo.toml").read_text())
    assert manifest["features"]["default"] == [] and manifest["features"]["capi"] == []
    assert re.search(r'#\[cfg\(feature = "capi"\)\]\npub mod capi;', (ROOT / "sdk/src/lib.rs").read_text())
    exports = {name for name, text in sources("sdk/src/*.rs").items() if "no_mangle" in text}
    assert exports and all(name.startswith("sdk/src/capi/") for name in exports), exports
    # What the feature `cli` needs is compiled for the program only.
    tables = [manifest["dependencies"], *(target.get("dependencies", {}) for target in manifest["target"].values())]
    optional = {name for table in tables for name, entry in table.items() if isinstance(entry, dict) and entry.get("optional")}
    assert {part[4:] for part in manifest["features"]["cli"] if part.startswith("dep:")} == optional


def test_enums_may_grow():
    found = set()
    for name, text in sources("sdk/src/*.rs").items():
        if name.startswith(("sdk/src/capi/", "sdk/src/bin/")):
            continue
        for attributes, enum in re.findall(r"((?:^#\[[^\n]*\]\n)*)^pub enum (\w+)", text, re.MULTILINE):
            assert ("#[non_exhaustive]" in attributes) != (enum in FIXED), f"{name}: {enum}"
            found.add(enum)
    assert len(found) > 20 and found > FIXED


@pytest.mark.parametrize("crate", MANIFESTS)
def test_every_dependency_is_used(crate):
    manifest = tomllib.loads((ROOT / crate / "Cargo.toml").read_text())
    code = "\n".join(sources(f"{crate}/*.rs", f"{crate}/**/*.rs").values())
    tables = ["dependencies", "dev-dependencies", "build-dependencies"]
    names = {name for table in tables for name in manifest.get(table, {})}
    for target in manifest.get("target", {}).values():
        names |= {name for table in tables for name in target.get(table, {})}
    assert names
    unused = {name for name in names if not re.search(rf"\b{name.replace('-', '_')}\b(::|;| as )", code)}
    assert unused == {name for name in UNNAMED if name in names}


def code_of(crate):
    return {name: text for name, text in sources(f"{crate}/src/*.rs", f"{crate}/src/**/*.rs").items() if not re.search(r"tests?[./]", name)}


def test_there_is_one_of_each():
    """One place that computes hashes, one where results become JSON, one body of all calls that ask."""
    code = {name: text for crate in ("sdk", "phantom", "trainer", "bindings/python") for name, text in code_of(crate).items()}
    assert [name for name, text in code.items() if re.search(r"\bsha2::", text)] == ["sdk/src/hash.rs"]
    results = "Answer|Grounding|LabelScore|Retrieved|SentenceEvidence|StructureEvidence|StructureResult|Study"
    definition = re.compile(rf"((?:^#\[[^\n]*\]\n)*)^pub struct (?:{results})\b", re.MULTILINE)
    defined = [found for text in code_of("sdk").values() for found in definition.findall(text)]
    assert len(defined) == len(results.split("|")), len(defined)
    assert not [found for found in defined if "Serialize" in found]
    assert sum(text.count("conversation.answer(") for text in code_of("sdk").values()) == 1


def test_pages_are_short():
    """What a reader meets first: the README, and the public items of the crate's root."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160
    root = (ROOT / "sdk/src/lib.rs").read_text()
    trees = re.findall(r"^pub use [\w:]+::(\{[^}]+\}|\w+);", root, re.MULTILINE)
    items = [item.strip() for tree in trees for item in tree.strip("{}").split(",")]
    modules = re.findall(r"^pub mod (\w+);", root, re.MULTILINE)
    assert 40 < len(items) < 80 and set(modules) == {"capi", "error", "fuzzing", "output", "parts"}, (len(items), modules)


PAGES = ["ARCHITECTURE.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "docs/model-card.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_readme_leads_to_every_page(page):
    assert f"({page})" in (ROOT / "README.md").read_text() and (ROOT / page).exists()


@pytest.mark.parametrize("crate", ["sdk", "phantom", "trainer"])
def test_the_map_names_every_module(crate):
    page = (ROOT / "ARCHITECTURE.md").read_text()
    modules = re.findall(r"^(?:pub )?mod (\w+);", (ROOT / crate / "src/lib.rs").read_text(), re.MULTILINE)
    assert modules and not [name for name in modules if not re.search(rf"\b{name}(\.rs|/)", page)]


def test_make_test_runs_every_gate():
    """Format, lints, the tests of all crates, and pytest, which runs C and C++ under sanitizers."""
    commands = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    clippy = "cargo clippy .*--workspace --all-targets .*-D warnings"
    for gate in ["cargo fmt --all --check", clippy, "pytest -rs tests", "pytest -rs bindings/python"]:
        assert re.search(gate, commands), gate
    tests = [line for line in commands.splitlines() if "cargo test" in line]
    for crate in ["anatomix", "anatomix-phantom", "anatomix-trainer"]:
        # Without a choice of targets, cargo runs the examples of the documentation, too.
        whole = [line for line in tests if re.search(rf"-p {crate}( |$)", line) and not re.search(r"--(lib|bins|tests?|doc)\b", line)]
        assert whole, crate
