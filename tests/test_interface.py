"""The SDK's public interface: it names no type of a dependency, so that another version of one changes nothing for users.

And it is closed: whatever type a user meets there can be named, because the root, `error` or `output` exports it.

Read from the source: what `lib.rs`, `parts.rs`, `error.rs` and `output/mod.rs` re-export, and of these items each public function, field,
variant and implemented trait.
"""

import re

from test_structure import ROOT, code, uses

SOURCE = ROOT / "sdk/src"
INTERFACE = ["lib.rs", "error.rs", "output/mod.rs"]
EXPORTS = [*INTERFACE, "parts.rs"]
# Dependencies whose types are part of the interface: rows of intensities, drawn overlays, and traits for JSON.
SHOWN = {"ndarray", "image", "serde"}


def dependencies():
    section = (ROOT / "sdk/Cargo.toml").read_text().split("[dependencies]\n")[1].split("\n[")[0]
    return {name.replace("-", "_") for name in re.findall(r"^([\w-]+) = ", section, re.MULTILINE)} - SHOWN


def exported(files):
    """Names of all items that these files export or define."""
    texts = [code((SOURCE / file).read_text()) for file in files]
    defined = {name for text in texts for name in re.findall(r"^pub (?:struct|enum|trait|type|fn|const) (\w+)", text, re.MULTILINE)}
    return defined | {name for text in texts for public, _, name in uses(text) if public}


def sources():
    """The code of each file of the library, without the C interface, by its path."""
    paths = [path for path in SOURCE.rglob("*.rs") if path.relative_to(SOURCE).parts[0] not in ("bin", "capi")]
    return {str(path.relative_to(SOURCE)): code(path.read_text()) for path in paths}


def signatures(text, items):
    """Everything in a file that a user of these items sees."""
    for kind, name, body in re.findall(r"^pub (struct|enum|trait) (\w+)[^{;]*(\{.*?^\}|\([^)]*\);|;)", text, re.MULTILINE | re.DOTALL):
        if name not in items:
            continue
        if kind == "enum":
            yield from ((name, "".join(fields)) for fields in re.findall(r"\w+ \{([^}]*)\}|\w+\(([^)]*)\),", body))
        else:
            yield from ((name, field) for field in re.findall(r"\bpub (?:\w+: )?[^,;{]*[,;)]", body))
    for head, name, body in re.findall(r"^impl(?:<[^{]*?>)? ((?:[^{]*? for )?(\w+)[^{]*)\{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        if name in items:
            yield name, head
            yield from ((name, function) for function in re.findall(r"^    pub (?:const |unsafe |async )*fn [^{;]*", body, re.MULTILINE))
    for function in re.findall(r"^pub (?:const |unsafe |async )*fn [^{;]*", text, re.MULTILINE):
        if (name := re.search(r"fn (\w+)", function)[1]) in items:
            yield name, function


def leaks(text, items, foreign):
    """What of these items names a type of a dependency."""
    names = {name for _, path, name in uses(text) if path[0] in foreign} | {f"{crate}::" for crate in foreign}
    pattern = "|".join(rf"\b{re.escape(name)}" + ("" if name.endswith(":") else r"\b") for name in sorted(names))
    return [f"{name}: {' '.join(part.split())}" for name, part in signatures(text, items) if re.search(pattern, part)]


def test_no_type_of_a_dependency_is_public():
    items, foreign = exported(EXPORTS), dependencies()
    assert {"ort", "tokenizers", "serde_json"} <= foreign and {"Engine", "Graph", "PromptTokenizer", "RuntimeError"} <= items
    seen, found = 0, []
    for path, text in sources().items():
        seen += len(list(signatures(text, items)))
        found += [f"{path}: {leak}" for leak in leaks(text, items, foreign)]
    assert seen > 200, "hardly any signature was found: the reading is broken"
    assert not found, "\n".join(found)


def test_a_leak_is_found():
    text = """
use ort::session::Session;
use tokenizers as t;
pub struct Graph { pub session: Session, inner: t::Tokenizer }
impl Graph {
    pub fn run(&self, count: usize) -> usize { let session: Session = self.session.clone(); count }
    pub fn with(
        &self,
        session: &Session,
    ) -> usize { 0 }
    pub(crate) fn hidden(&self) -> Session { self.session.clone() }
}
impl From<ort::Error> for Graph {
}
pub fn load() -> t::Tokenizer { t::Tokenizer::default() }
pub fn private() -> t::Tokenizer { t::Tokenizer::default() }
"""
    found = leaks(text, {"Graph", "load"}, {"ort", "tokenizers"})
    parts = [
        "Graph: pub session: Session", "Graph: From<ort::Error> for Graph", "Graph: pub fn with(", "load: pub fn load() -> t::Tokenizer",
    ]  # fmt: skip
    assert len(found) == len(parts) and all(any(leak.startswith(part) for leak in found) for part in parts), found


def unnamed(texts, items):
    """Types of the crate that signatures of these items contain and that are not among the items."""
    own = {name for text in texts for name in re.findall(r"^\s*pub(?:\([^)]*\))? (?:struct|enum|trait) (\w+)", text, re.MULTILINE)}
    # Not those of a module such as `fmt`, and not associated types.
    capital = re.compile(r"(?<![\w:])[A-Z]\w*\b(?! =)")
    named = ((item, name) for text in texts for item, part in signatures(text, items) for name in capital.findall(part))
    return sorted({f"{item}: {name}" for item, name in named if name in own - items})


def test_every_type_of_the_interface_can_be_named():
    items = exported(INTERFACE)
    assert {"Engine", "Study", "RuntimeError", "StructuredReport"} <= items
    found = unnamed(sources().values(), items)
    assert not found, "export these at the crate's root, or hide what names them: " + ", ".join(found)


def test_a_type_without_a_name_is_found():
    text = """
pub struct Engine { pub bundle: Bundle, module: Hidden }
pub struct Bundle;
pub(crate) struct Hidden;
impl Engine {
    pub fn sizes(&self) -> Sizes { Sizes }
    pub(crate) fn hidden(&self) -> Hidden { Hidden }
}
pub struct Sizes;
"""
    assert unnamed([text], {"Engine"}) == ["Engine: Bundle", "Engine: Sizes"]
    assert unnamed([text], {"Engine", "Bundle", "Sizes"}) == []
