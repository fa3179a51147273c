"""Documents agree with the repository: links and paths exist, commands and options are real."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, needed

PAGES = sorted(
    page
    for folder in [ROOT, ROOT / "docs", ROOT / "examples"]
    for page in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
# Folders whose files a page may name in backticks.
NAMED = r"`((?:sdk|trainer|phantom|bindings|tests|include|examples|docs|bench)/[\w./-]+)`"
COMMANDS = ["perceive", "ask", "chat", "report", "bundle info", "bundle verify", "bundle sign", "providers"]
STEPS = ["phantom", "train", "import", "export", "evaluate"]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set:
    """What GitHub calls a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def options(words: str) -> set:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    dead += [name for name in re.findall(NAMED, text(page)) if not (ROOT / name).exists()]
    assert not dead, f"{page.name} names what is not there: {dead}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z0-9-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z0-9-]+)", text(page), re.MULTILINE))
    assert named <= targets, f"{page.name} names {sorted(named - targets)}, which the Makefile lacks"


def test_the_map_names_rooms_that_exist():
    """ARCHITECTURE.md names files and folders of the crates by the end of their paths."""
    sources = [ROOT / crate / "src" for crate in ("sdk", "phantom", "trainer", "bindings/python")]
    paths = [f"/{path.relative_to(ROOT)}" for source in sources for path in source.rglob("*")]
    named = set(re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+(?:\.rs|/))`", text(ROOT / "ARCHITECTURE.md")))
    assert len(named) > 50
    known = [*paths, *(f"/{path.relative_to(ROOT)}" for path in (ROOT / "trainer/examples").iterdir())]
    missing = [name for name in named if not any(path.endswith(f"/{name.rstrip('/')}") for path in known)]
    missing = [name for name in missing if not (ROOT / name).exists()]
    assert not missing, f"ARCHITECTURE.md names {sorted(missing)}, which are not there"
    # And every module of the SDK is in the map.
    modules = {path.name + ("/" if path.is_dir() else "") for path in (ROOT / "sdk/src").iterdir()} - {"lib.rs", "bin/"}
    assert modules <= {name.split("/")[0] + "/" if "/" in name else name for name in named}, "the map lacks a module of sdk/src"


@pytest.fixture(scope="module")
def helped(run) -> dict:
    """The help of every command, of both programs."""
    trainer = needed(ROOT / "target/release/anatomix-trainer", "trainer")
    texts = {command: run(*command.split(), "--help").stdout for command in COMMANDS}
    return texts | {f"trainer {step}": run(step, "--help", program=trainer).stdout for step in STEPS}


def test_the_command_line_page_has_every_option(helped):
    known = {option for command in COMMANDS for option in options(helped[command])} - {"--help", "--version"}
    named = options(text(ROOT / "docs/command-line.md")) - {"--help"}
    assert known - named == set(), "docs/command-line.md lacks options"
    assert named - known == set(), "docs/command-line.md names options that are not there"


def test_the_training_page_has_every_command(helped):
    page = text(ROOT / "docs/training.md")
    for step in STEPS:
        lines = re.findall(rf"^ +anatomix-trainer {step} .*(?:\n {{12,}}.*)*", page, re.MULTILINE)
        assert lines, f"docs/training.md does not show {step}"
        assert options("\n".join(lines)) <= options(helped[f"trainer {step}"]), step


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist_somewhere(page, helped):
    """Also those of other programs that pages name."""
    others = {"--build", "--test", "--release", "--help", "--strip-components", "--cflags", "--libs", "--target"}
    named = {option for code in re.findall(r"`[^`\n]+`|^ {4}.*$", text(page), re.MULTILINE) for option in options(code)}
    known = others.union(*(options(words) for words in helped.values()))
    assert named <= known, f"{page.name} names options that no program has: {sorted(named - known)}"


def test_the_tables_name_every_task_and_flag():
    page = text(ROOT / "docs/command-line.md")
    tasks = re.findall(r'Self::\w+ => "(\w+)"', text(ROOT / "sdk/src/task.rs"))
    flags = re.findall(r'Self::\w+ => "(\w+)"', text(ROOT / "sdk/src/perception/flags.rs").split("impl Severity")[0])
    assert len(tasks) == 9 and len(flags) >= 7
    missing = [name for name in tasks + flags if f"| `{name}` |" not in page]
    assert not missing, f"docs/command-line.md lacks {missing}"


def test_the_rust_example_is_an_example_of_the_crate():
    """`cargo test` compiles the crate's examples. The C++ example is compared in test_cpp.py, and compiled and run there."""
    blocks = re.findall(r"^```rust\n(.*?)^```", text(ROOT / "README.md"), re.MULTILINE | re.DOTALL)
    example = text(ROOT / "sdk/examples/minimal.rs")
    assert len(blocks) == 1 and example == f"//! The example of README.md.\n\n{blocks[0]}", "sdk/examples/minimal.rs is another example"
