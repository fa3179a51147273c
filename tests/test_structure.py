"""The form of the source: imports have no cycles, files and lines have a largest length, and bounds are named alike.

A file's imports are its `use` lines and the paths that begin with `crate::` or `super::`, each followed through re-exports to the file
that defines the name. A module that only names its children (`mod child;`, `pub use child::Name;`) does not import them.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ["*.rs", "*.py", "*.pyi", "*.h", "*.hpp", "*.cpp", "*.md", "*.toml", "*.sh"]
CRATES = ["sdk", "phantom", "trainer", "bindings/python"]
MAX_COLUMNS, MAX_LINES = 140, 500
# Generated from sdk/src/capi, whose own files are checked.
GENERATED = "include/anatomix.h"
VISIBILITY = r"(?:pub(?:\([a-z: ]+\))?\s+)?"
KEYWORDS = r"(?:const\s+|async\s+|extern\s+\"C\"\s+)*(?:fn|struct|enum|trait|type|const|static|union|macro_rules!)\s+(?:mut\s+)?"
DEFINITION = rf"^\s*{VISIBILITY}(?:unsafe\s+)?{KEYWORDS}"


def code(text):
    """The code without comments, strings, test modules and paths of visibility."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"\bpub\(in [\w:]+\)", "pub", text)
    # A backslash also joins the lines of a string.
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text, flags=re.DOTALL)
    return re.split(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod \w+ \{", text)[0]


def uses(text):
    """Every (is re-export, path, name) of the `use` lines; the name is what the rest of the file calls it."""
    found = []
    for public, tree in re.findall(r"^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", text, re.MULTILINE):
        found += [(bool(public), path, name) for path, name in leaves(re.sub(r"\s+", " ", tree).strip())]
    return found


def leaves(tree, prefix=()):
    """The paths of a use tree: `a::{b, c::{self, D as E}}`."""
    head, brace, rest = tree.partition("{")
    parts = [part.strip() for part in head.split("::") if part.strip()]
    if not brace:
        name, _, renamed = parts[-1].partition(" as ")
        path = (*prefix, *parts[:-1]) if name == "self" else (*prefix, *parts[:-1], name.strip())
        return [(path, renamed.strip() or path[-1])]
    inside, depth, start = rest[: rest.rindex("}")], 0, 0
    items = []
    for at, letter in enumerate(inside + ","):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            items.append(inside[start:at].strip())
            start = at + 1
    return [leaf for item in items if item for leaf in leaves(item, (*prefix, *parts))]


class Crate:
    def __init__(self, source):
        self.files = {self.module(path, source): path for path in source.rglob("*.rs") if "bin" not in path.relative_to(source).parts}
        self.files.pop(("main",), None)
        self.text = {module: code(path.read_text()) for module, path in self.files.items()}
        self.uses = {module: uses(text) for module, text in self.text.items()}

    @staticmethod
    def module(path, source):
        parts = path.relative_to(source).with_suffix("").parts
        return tuple(parts[:-1] if parts[-1] == "mod" else () if parts == ("lib",) else parts)

    def absolute(self, module, path):
        """A path of the crate from its root; None where it leads out of it."""
        first, *rest = path
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return (*module, *rest)
        if first == "super":
            base = module[:-1]
            while rest and rest[0] == "super":
                base, rest = base[:-1], rest[1:]
            return (*base, *rest)
        return (*module, *path) if (*module, first) in self.files else None

    def owner(self, path, seen=frozenset()):
        """The file that defines what a path names."""
        if path in seen:
            return None
        module = path
        while module not in self.files:
            module = module[:-1]
        if module == path:
            return module
        name = path[len(module)]
        for _, used, called in self.uses[module]:
            target = self.absolute(module, used)
            if target is None:
                continue
            if called == name:
                return self.owner((*target, *path[len(module) + 1 :]), seen | {path})
            if called == "*" and target[:-1] in self.files and self.defines(target[:-1], name):
                return target[:-1]
        return module

    def defines(self, module, name):
        return re.search(DEFINITION + re.escape(name) + r"\b", self.text[module], re.MULTILINE) is not None

    def imports(self):
        graph = {}
        for module, text in self.text.items():
            paths = [path for public, path, _ in self.uses[module] if not public]
            body = re.sub(r"^\s*(pub(?:\([^)]*\))?\s+)?use\s+[^;]+;", "", text, flags=re.MULTILINE)
            paths += [tuple(path.split("::")) for path in re.findall(r"\b((?:crate|super)(?:::\w+)+)", body)]
            # A child's name used as a path, `child::function(..)`.
            named = [tuple(path.split("::")) for path in re.findall(r"(?<![\w:])([a-z_]\w*(?:::\w+)+)", body)]
            paths += [path for path in named if (*module, path[0]) in self.files]
            # Names of children that a re-export brought and the file uses itself.
            paths += [path for public, path, called in self.uses[module] if public and re.search(rf"\b{re.escape(called)}\b", body)]
            owners = {self.owner(absolute) for path in paths if (absolute := self.absolute(module, path)) is not None}
            graph[module] = owners - {None, module}
        return graph


def circles(graph):
    """The strongly connected parts of more than one file (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(part)

    for node in graph:
        if node not in index:
            visit(node)
    return found


@pytest.mark.parametrize("crate", CRATES)
def test_imports_form_a_line(crate):
    graph = Crate(ROOT / crate / "src").imports()
    assert sum(map(len, graph.values())) > len(graph) / 2, "hardly any import was found: the reading is broken"
    report, found = [], circles(graph)
    for part in found:
        arrows = [f"{'::'.join(a) or 'lib'} -> {'::'.join(b) or 'lib'}" for a in sorted(part) for b in sorted(graph[a]) if b in part]
        report.append("\n  ".join([f"a circle of {len(part)} files:", *arrows]))
    assert not found, "\n".join(report)


def test_a_circle_is_found(tmp_path):
    (tmp_path / "lib.rs").write_text("mod a;\nmod b;\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/mod.rs").write_text("mod c;\npub use c::{C, D as E};\n")
    (tmp_path / "a/c.rs").write_text("use crate::b::B;\npub struct C(B);\npub struct D;\n")
    (tmp_path / "b.rs").write_text("pub struct B;\n")
    assert circles(Crate(tmp_path).imports()) == []
    (tmp_path / "b.rs").write_text("use crate::a::E;\npub struct B(E);\n")
    assert [sorted(part) for part in circles(Crate(tmp_path).imports())] == [[("a", "c"), ("b",)]]


# Where `unsafe` is allowed outside of tests; ARCHITECTURE.md says why.
UNSAFE = {
    "sdk/src/capi/mod.rs",
    "sdk/src/retrieval/reader.rs",
    "sdk/src/runtime/graph.rs",
    "sdk/src/runtime/locate.rs",
    "sdk/src/runtime/version.rs",
    "sdk/src/runtime/view.rs",
    "bindings/python/src/radiograph.rs",
    "trainer/src/distributed/c10d.rs",
    "trainer/src/graph/source.rs",
}


def test_unsafe_is_where_it_is_allowed():
    """The workspace denies it; a file that allows it is in the list."""
    files = [path for crate in CRATES for path in (ROOT / crate / "src").rglob("*.rs")]
    assert {str(path.relative_to(ROOT)) for path in files if re.search(r"allow\([^)]*unsafe_code", path.read_text())} == UNSAFE


def long_lines(name, text):
    """Numbers of the lines that are too long. In Markdown, rows of tables and lines with an address may be."""
    is_exempt = re.compile(r"^\s*\||https?://").search if name.endswith(".md") else lambda line: False
    return [number for number, line in enumerate(text.splitlines(), 1) if len(line) > MAX_COLUMNS and not is_exempt(line)]


def test_lines_and_files_are_short():
    listed = subprocess.run(["git", "ls-files", "--", *SOURCES], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert len(listed) > 300, "hardly any file was found"
    found = []
    for name in listed:
        path = ROOT / name
        if not path.exists():  # removed, but not committed yet
            continue
        text = path.read_text()
        found += [f"{name}:{number} has more than {MAX_COLUMNS} columns" for number in long_lines(name, text)]
        if (count := len(text.splitlines())) > MAX_LINES and name != GENERATED:
            found.append(f"{name} has {count} lines, more than {MAX_LINES}")
    assert not found, "\n".join(found)


# Bounds that are named after what they are, not after being bounds.
OTHER_BOUNDS = {"BYTES_PER_PIXEL", "NORM_TOLERANCE", "PROMPT_GRID", "SIDES"}


def misnamed_bounds(text):
    """Constants that are the largest or smallest of something and are not called MAX_ or MIN_, and other words for these."""
    found = re.findall(r"((?:^[ \t]*///[^\n]*\n)*)^[ \t]*" + VISIBILITY + r"const ([A-Z][A-Z0-9_]*):", text, re.MULTILINE)
    words = re.compile(r"(^|_)(LIMIT|LARGEST|LONGEST|MAXIMUM|MOST|LEAST|MINIMUM|SHORTEST|SMALLEST)(_|$)")
    bound = re.compile(r"\s*///\s*(Largest|Longest|Most|Smallest|Shortest|Fewest)\b(?! tokens have)")
    named = [name for doc, name in found if words.search(name) or (bound.match(doc) and not name.startswith(("MAX_", "MIN_")))]
    return [name for name in named if name not in OTHER_BOUNDS]


def test_bounds_are_named_alike():
    listed = subprocess.run(["git", "ls-files", "--", "*.rs"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    found = {name: misnamed for name in listed if (ROOT / name).exists() and (misnamed := misnamed_bounds((ROOT / name).read_text()))}
    assert not found
    text = "/// Largest number of turns.\npub const TURNS: usize = 9;\nconst SIZE_LIMIT: u8 = 1;\n"
    assert misnamed_bounds(text) == ["TURNS", "SIZE_LIMIT"]


def test_a_long_line_is_found():
    long = "x" * 141
    assert long_lines("a.rs", f"short\n{long}\n") == [2]
    assert long_lines("a.md", f"{long}\n| {long} |\n[a]: https://{long}\n") == [1]
