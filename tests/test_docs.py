"""The pages: their links, the options that they name, and those about the C and C++ interfaces, which `make docs` makes of the headers."""

import re
import shutil
import subprocess

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
