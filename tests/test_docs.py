"""The pages: links, options and keys that they name, and those on the C and C++ interfaces, which `make docs` makes of the headers."""

import re
import shutil
import subprocess
import tomllib

import pytest
from conftest import ROOT

# Of the folders that hold nothing that was fetched or built.
FOLDERS = ["*.md", "docs/**/*.md", "examples/**/*.md", "tests/**/*.md", "bench/**/*.md", "fuzz/*.md", "bindings/**/*.md"]
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|^    .*?$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page) -> set[str]:
    """The names by which GitHub links the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def test_links_lead_somewhere():
    seen, broken = 0, []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            seen += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert seen > 100, "hardly any link was found: the reading is broken"
    assert not broken, "\n".join(broken)


def test_the_program_has_the_options_that_its_pages_name(succeed):
    """In blocks of commands, and in the table of the command line."""
    commands = ["perceive", "ask", "chat", "report", "bundle info", "bundle verify", "bundle sign", "providers"]
    known = {option for command in commands for option in re.findall(r"--[a-z][\w-]*", succeed(*command.split(), "--help"))}
    named = set()
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^ {4,}(?:.*[\s/])?(anatomix [a-z].*)$", text, re.MULTILINE):
            named |= {(page.name, option) for option in re.findall(r"(?<!\S)--[a-z][\w-]*", line)}
    table = (ROOT / "docs/command-line.md").read_text()
    rows = " ".join(re.findall(r"^\| (`--.*?) \|", table, re.MULTILINE))
    named |= {("command-line.md", option) for option in re.findall(r"--[\w-]+", rows)}
    assert len(named) > 40, "hardly any option was found: the reading is broken"
    assert not sorted(f"{page}: {option}" for page, option in named if option not in known)


@pytest.mark.skipif(not shutil.which("doxygen"), reason="doxygen is missing")
def test_the_headers_pages_are_made_without_warnings(root, tmp_path):
    settings = f"@INCLUDE = packaging/Doxyfile\nOUTPUT_DIRECTORY = {tmp_path}\n"
    done = subprocess.run(["doxygen", "-"], input=settings, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = tmp_path / "c"
    assert "Asks a question and waits for the answer" in (pages / "classanatomix_1_1Study.html").read_text()
    assert "&lt;box&gt;" in (pages / "anatomix_8h.html").read_text()


SETTINGS = {
    "STAGE": ("training/settings.rs", "StageSettings"),
    "losses": ("training/settings.rs", "LossWeights"),
    "augmentation": ("data/augment.rs", "Augmentation"),
    "loading": ("data/loading/settings.rs", "Loading"),
    "distributed": ("distributed/settings.rs", "Distributed"),
    "models": ("run.rs", "ModelConfig"),
    "models.apm": ("models/apm/config.rs", "ApmConfig"),
    "models.apm.dino": ("models/dino.rs", "DinoConfig"),
    "models.text": ("models/text.rs", "TextConfig"),
    "models.language": ("models/gemma.rs", "GemmaConfig"),
    "models.lora": ("models/lora.rs", "Lora"),
    "models.prompt": ("prompt.rs", "PromptConfig"),
}
STAGES = ["text", "apm", "language", "align", "instruct"]


def plain_values(text: str) -> dict:
    """Keys of a Rust initialiser whose values are numbers, truth values or arrays of these."""
    found = re.findall(r"\b([a-z]\w*): (?:Some\()?(-?\d[\w.+-]*|true|false|\[[^\]]*\])", text)
    return {key: value.replace("_", "") for key, value in found}


def as_value(text: str):
    return tomllib.loads(f"x = {text}")["x"]


def test_the_page_of_recipes_has_every_key():
    """Its tables are compared with the structs that a recipe is read into."""
    page = (ROOT / "docs/recipe.md").read_text()
    tables = dict(re.findall(r"^\| in `\[([\w.]+)\]` .*\n\| --- .*\n((?:\|.*\n)+)", page, re.MULTILINE))
    assert tables.keys() == SETTINGS.keys()
    # Fields of ModelConfig that are tables.
    inner = {"apm", "text", "language", "lora", "prompt"}
    sources = ROOT / "trainer/src"
    for name, (path, struct) in SETTINGS.items():
        source = (sources / path).read_text()
        body = re.search(rf"pub struct {struct} \{{(.*?)^\}}", source, re.MULTILINE | re.DOTALL)[1]
        keys = set(re.findall(r"^    pub (\w+):", body, re.MULTILINE)) - inner
        rows = {row[1].strip("`"): row for row in (re.split(r" ?\| ?", row) for row in tables[name].splitlines())}
        assert rows.keys() == keys, name
        begin = "pub fn instruct()" if name == "STAGE" else f"impl Default for {struct} "
        defaults = plain_values(source.split(begin, 1)[1].split("\n    }\n", 1)[0])
        for key, value in defaults.items():
            if key not in ("steps", "epochs"):
                assert as_value(rows[key][2].split("`")[1]) == as_value(value), f"{name}.{key}"
        if name == "STAGE":
            stages(rows, source)


def stages(rows, source):
    """Which stages a key acts in, and the defaults that they have for it."""
    config = (ROOT / "trainer/src/training/config.rs").read_text().split("fn without_effect", 1)[1].split("\n}\n", 1)[0]
    lists = re.findall(r'"?(\w+)"? => &\[(.*?)\]', config, re.DOTALL)
    without = {name: set(re.findall(r'"(\w+)"', keys)) for name, keys in lists}
    own = {stage: "pretraining" if stage in ("text", "language") else stage for stage in STAGES}
    for stage in STAGES:
        refused = without.get(stage, without["_"])
        defaults = plain_values(source.split(f"pub fn {own[stage]}()", 1)[1].split("\n    }\n", 1)[0])
        for key, row in rows.items():
            named = set(re.findall(r"`(\w+)`", row[3]))
            acts = stage not in named if "all but" in row[3] else stage in named or row[3] == "all"
            assert acts == (key not in refused), f"{key} in {stage}"
            found = re.search(rf"`{stage}`(?:, `[a-z]+`)* `([\d.e-]+)`", row[2])
            if key in defaults and (found or stage != "instruct" or key in ("steps", "epochs")):
                assert found and as_value(found[1]) == as_value(defaults[key]), f"{key} of {stage}"
            else:
                assert not found, f"{key} of {stage}"
