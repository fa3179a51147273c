"""Everything that Rust can do, C, C++ and Python can do: each public function of the Rust interface has its counterparts in this table.

The interface is what lib.rs, error.rs and output/mod.rs re-export. A function that is missing in the table fails, and so does a counterpart
that the header, the C++ classes or the types of the Python package do not have. Where a language has none, the table says why.
"""

import ast
import re

import abi
import pytest
from test_structure import ROOT, Crate

SOURCE = ROOT / "sdk/src"
EXPORTS = [(), ("error",), ("output",)]

# Why a language has no counterpart.
REASONS = {
    "call": "it checks beforehand what the call itself refuses",
    "default": "zero and the absence of an argument are the defaults",
    "drawing": "boxes of one's own are drawn with a library of one's own",
    "field": "it is a field of a plain struct or object, or what such a field says in other words",
    "files": "reading and writing files is the program's own",
    "header": "programs read the header with a library for DICOM; what speaks against a result is in the flags",
    "intensities": "it follows from the intensities",
    "manifest": "it is JSON in the bundle's folder, which programs read themselves",
    "pixels": "boxes are in pixels of the image here",
    "network": "it makes the network's input, which only the engine takes",
    "text": "the text itself is the value",
}

# Rust | C | C++ | Python. `Engine.open(cancel)` is an argument.
TABLE = """
AskRecord::to_json | anx_answer_json | Answer::json | Answer.to_dict
Bundle::bytes | anx_verified_bundle_bytes | VerifiedBundle::bytes | verify_bundle
Bundle::file | -files | -files | -files
Bundle::folder | -files | -files | -files
Bundle::hash | anx_verified_bundle_sha256 | VerifiedBundle::sha256 | verify_bundle
Bundle::manifest | -manifest | -manifest | -manifest
Bundle::open | anx_verify_bundle | verify_bundle | verify_bundle
Bundle::open_signed | anx_verify_options.public_key | VerifyOptions::public_key | verify_bundle(public_key)
Bundle::verify | anx_verify_bundle | verify_bundle | verify_bundle
CancelHandle::cancel | anx_cancel_request | CancelHandle::cancel | CancelHandle.cancel
CancelHandle::new | anx_cancel_new | CancelHandle::create | CancelHandle.__new__
CancelHandle::reset | anx_cancel_reset | CancelHandle::reset | CancelHandle.reset
Engine::batch_size | anx_engine_batch_size | Engine::batch_size | Engine.batch_size
Engine::builder | anx_engine_options | EngineOptions | Engine.open
Engine::bundle | anx_engine_bundle_sha256 | Engine::bundle_sha256 | Engine.bundle_sha256
Engine::load_study | anx_study_load | Engine::load_study | Engine.load_study
Engine::notes | anx_engine_note | Engine::notes | Engine.notes
Engine::open_study | -files | -files | Engine.open_study
Engine::provider | anx_engine_provider | Engine::provider | Engine.provider
Engine::studies | anx_studies_from_files | Engine::studies_from_files | Engine.studies
Engine::studies_with | anx_perceive_options | PerceiveOptions | Engine.studies(deadline)
Engine::study | anx_study_from_file | Engine::study_from_file | Engine.study
Engine::study_bytes | anx_engine_study_bytes | Engine::study_bytes | Engine.study_bytes
Engine::study_with | anx_perceive_options | PerceiveOptions | Engine.study(deadline)
EngineBuilder::cancel | anx_engine_options.cancel | EngineOptions::cancel | Engine.open(cancel)
EngineBuilder::deadline | anx_engine_options.deadline_ms | EngineOptions::deadline | Engine.open(deadline)
EngineBuilder::draft_cost | anx_engine_options.draft_cost | EngineOptions::draft_cost | Engine.open(draft_cost)
EngineBuilder::golden_check | anx_engine_options.golden_check | EngineOptions::golden_check | Engine.open(golden_check)
EngineBuilder::library | anx_engine_options.library | EngineOptions::library | Engine.open(library)
EngineBuilder::log | anx_engine_options.log | EngineOptions::log | Engine.open(log)
EngineBuilder::look_up | anx_engine_options.look_up | EngineOptions::look_up | Engine.open(look_up)
EngineBuilder::memory_limit | anx_engine_options.memory_limit | EngineOptions::memory_limit | Engine.open(memory_limit)
EngineBuilder::open | anx_engine_open | Engine::open | Engine.open
EngineBuilder::progress | anx_engine_options.progress | EngineOptions::progress | Engine.open(progress)
EngineBuilder::provider | anx_engine_options.provider | EngineOptions::provider | Engine.open(provider)
EngineBuilder::public_key | anx_engine_options.public_key | EngineOptions::public_key | Engine.open(public_key)
EngineBuilder::threads | anx_engine_options.threads | EngineOptions::threads | Engine.open(threads)
EngineBuilder::verify_bundle | anx_verify_bundle | verify_bundle | verify_bundle
Error::causes | anx_error_cause | Error::cause | Error.cause
Error::code | anx_error_code | Error::code | Error.code
Error::full_message | anx_error_message | Error::message | Error.cause
ErrorCode::name | anx_status | -field | Error.code
FhirBundle::content_time | anx_document_options.content_time | DocumentOptions::content_time | Study.fhir(content_time)
FhirBundle::of | anx_study_fhir | Study::fhir | Study.fhir
FhirBundle::to_bytes | anx_study_fhir | Study::fhir | Study.fhir
FhirBundle::write | -files | -files | -files
Finish::name | anx_answer_finish | Answer::finish | Answer.finish
FlagCode::must_be_accepted | anx_ask_options.accept_flags | AskOptions::accept_flags | Question.__new__(accept_flags)
FlagCode::name | anx_flag.code | Flag::code | Flag.code
Label::from_name | -text | -text | -text
Label::index | anx_study_label | Study::labels | LABELS
Label::name | anx_label_name | label_name | LABELS
Manifest::processor_note | anx_engine_note | Engine::notes | Engine.notes
Manifest::tolerances | -manifest | -manifest | -manifest
NormalizedBox::from_center | -pixels | -pixels | -pixels
NormalizedBox::from_grid | -pixels | -pixels | -pixels
NormalizedBox::to_center | -pixels | -pixels | -pixels
NormalizedBox::to_grid | -pixels | -pixels | -pixels
Overlay::new | -drawing | -drawing | -drawing
Overlay::of_answer | anx_answer_overlay | Answer::overlay | Answer.overlay
Overlay::of_study | anx_study_overlay | Study::overlay | Study.overlay
Overlay::render | -files | -files | Study.overlay
Overlay::subtitle | -drawing | -drawing | -drawing
Overlay::to_png | anx_study_overlay | Study::overlay | Study.overlay_png
Overlay::write | -files | -files | -files
PerceiveOptions::cancel | anx_perceive_options.cancel | PerceiveOptions::cancel | Engine.studies(cancel)
PerceiveOptions::deadline | anx_perceive_options.deadline_ms | PerceiveOptions::deadline | Engine.studies(deadline)
PerceiveOptions::new | -default | -default | -default
PerceiveOptions::progress | anx_perceive_options.progress | PerceiveOptions::progress | Engine.studies(progress)
PerceiveRecord::to_json | anx_study_json | Study::json | Study.to_dict
Perception::embedding | anx_study_embedding | Study::embeddings | Study.object_embeddings
Perception::scores | anx_study_label | Study::labels | Study.labels
Phase::name | anx_progress_callback | ProgressCallback | Engine.open(progress)
PresentationState::content_time | anx_document_options.content_time | DocumentOptions::content_time | Study.presentation_state(content_time)
PresentationState::of | anx_study_presentation_state | Study::presentation_state | Study.presentation_state
PresentationState::to_bytes | anx_study_presentation_state | Study::presentation_state | Study.presentation_state
PresentationState::write | -files | -files | -files
PromptForm::check | -manifest | -manifest | -manifest
PromptForm::image_features | -manifest | -manifest | -manifest
PromptForm::version | -manifest | -manifest | -manifest
Question::accept_flags | anx_ask_options.accept_flags | AskOptions::accept_flags | Question.__new__(accept_flags)
Question::deadline | anx_ask_options.deadline_ms | AskOptions::deadline | Question.__new__(deadline)
Question::follow_up | anx_ask_options.follow_up | AskOptions::follow_up | Question.__new__(follow_up)
Question::json_schema | anx_ask_options.json_schema | AskOptions::json_schema | Question.__new__(json_schema)
Question::log_probabilities | anx_ask_options.log_probabilities | AskOptions::log_probabilities | Question.__new__(log_probabilities)
Question::max_tokens | anx_ask_options.max_tokens | AskOptions::max_tokens | Question.__new__(max_tokens)
Question::new | -default | Question::text | Question.__new__
Question::sampling | anx_ask_options.temperature | AskOptions::temperature | Question.__new__(temperature)
Question::stop | anx_ask_options.stop | AskOptions::stop | Question.__new__(stop)
Question::task | anx_ask_options.task | AskOptions::task | Question.__new__(task)
Question::unconstrained | anx_ask_options.unconstrained | AskOptions::unconstrained | Question.__new__(unconstrained)
Radiograph::from_bytes | anx_study_from_bytes | Engine::study_from_bytes | Radiograph.from_bytes
Radiograph::from_bytes_with | anx_perceive_options.window | PerceiveOptions::window | Radiograph.from_bytes(window)
Radiograph::from_pixels_u16 | anx_study_from_pixels | Engine::study_from_pixels | Radiograph.from_array
Radiograph::from_pixels_u8 | anx_study_from_pixels | Engine::study_from_pixels | Radiograph.from_array
Radiograph::header | -header | -header | -header
Radiograph::height | anx_study_height | Study::height | Radiograph.height
Radiograph::intensities | anx_study_intensities | Study::intensities | Radiograph.intensities
Radiograph::inverted | anx_perceive_options.inverted | PerceiveOptions::inverted | Radiograph.inverted
Radiograph::mirrored | anx_perceive_options.mirrored | PerceiveOptions::mirrored | Radiograph.mirrored
Radiograph::name | anx_study_name | Study::name | Radiograph.name
Radiograph::open | anx_study_from_file | Engine::study_from_file | Radiograph.open
Radiograph::open_with | anx_perceive_options.window | PerceiveOptions::window | Radiograph.open(window)
Radiograph::percentiles | -intensities | -intensities | -intensities
Radiograph::preprocess | -network | -network | -network
Radiograph::sha256 | anx_provenance.input_sha256 | Provenance::input_sha256 | Radiograph.sha256
Radiograph::width | anx_study_width | Study::width | Radiograph.width
ReadOptions::new | -default | -default | -default
ReadOptions::window | anx_perceive_options.window | PerceiveOptions::window | Radiograph.open(window)
Relation::name | anx_structure_evidence.relation | StructureEvidence::relation | StructureEvidence.relation
Sampling::check | -call | -call | -call
Sampling::is_greedy | anx_ask_options.temperature | AskOptions::temperature | Question.__new__(temperature)
SecondaryCapture::content_time | anx_document_options.content_time | DocumentOptions::content_time | Study.secondary_capture(content_time)
SecondaryCapture::of | anx_study_secondary_capture | Study::secondary_capture | Study.secondary_capture
SecondaryCapture::to_bytes | anx_study_secondary_capture | Study::secondary_capture | Study.secondary_capture
SecondaryCapture::write | -files | -files | -files
Severity::name | anx_flag.severity | Flag::severity | Flag.severity
Structure::all | anx_structure_name | structure_name | STRUCTURES
Structure::counterpart | anx_structure_counterpart | structure_counterpart | COUNTERPARTS
Structure::from_name | -text | -text | -text
Structure::index | anx_structure.index | Structure::index | Structure.index
Structure::name | anx_structure_name | structure_name | STRUCTURES
Structure::new | anx_structure_name | structure_name | STRUCTURES
Structure::side | anx_structure_side | structure_side | Structure.side
StructuredReport::check | -call | -call | -call
StructuredReport::class | anx_report_options.comprehensive_sr | ReportOptions::comprehensive_sr | Study.structured_report(comprehensive_sr)
StructuredReport::content_time | anx_report_options.content_time | ReportOptions::content_time | Study.structured_report(content_time)
StructuredReport::of | anx_study_structured_report | Study::structured_report | Study.structured_report
StructuredReport::to_bytes | anx_study_structured_report | Study::structured_report | Study.structured_report
StructuredReport::write | -files | -files | -files
Study::ask | anx_study_ask | Study::ask | Study.ask
Study::ask_many | anx_study_ask_many | Study::ask_many | Study.ask_many
Study::ask_many_streaming | anx_study_ask_many | Question::on_piece | Study.ask_many
Study::ask_streaming | anx_ask_options.piece | Study::ask | Study.stream
Study::cache_bytes | anx_study_cache_bytes | Study::cache_bytes | Study.cache_bytes
Study::cancel_handle | anx_study_cancel_handle | Study::cancel_handle | Study.cancel_handle
Study::fhir | anx_study_fhir | Study::fhir | Study.fhir
Study::flags | anx_study_flag | Study::flags | Study.flags
Study::height | anx_study_height | Study::height | Study.height
Study::labels | anx_study_label | Study::labels | Study.labels
Study::name | anx_study_name | Study::name | Study.name
Study::perception | anx_study_embedding | Study::embeddings | Study.object_embeddings
Study::presentation_state | anx_study_presentation_state | Study::presentation_state | Study.presentation_state
Study::provenance | anx_study_provenance | Study::provenance | Study.provenance
Study::rewind | anx_study_rewind | Study::rewind | Study.rewind
Study::save | anx_study_save | Study::save | Study.save_bytes
Study::secondary_capture | anx_study_secondary_capture | Study::secondary_capture | Study.secondary_capture
Study::structured_report | anx_study_structured_report | Study::structured_report | Study.structured_report
Study::structures | anx_study_structure | Study::structures | Study.structures
Study::timing | anx_study_timing | Study::timing | Study.timing
Study::turns | anx_study_turn_count | Study::turns | Study.turns
Study::width | anx_study_width | Study::width | Study.width
Support::name | anx_evidence.support | Evidence::support | Evidence.support
Task::check | -call | -call | -call
Task::from_name | -text | -text | -text
Task::instruction | anx_answer_question | Answer::question | Answer.question
Task::name | anx_task_name | name | TASKS
Task::question | anx_answer_question | Answer::question | Answer.question
Timing::steps | anx_study_timing | Study::timing | Study.timing
check_content_time | -call | -call | -call
check_writable | -files | -files | -files
is_saved_study | anx_is_saved_study | is_saved_study | is_saved_study
write_private | -files | -files | -files
write_whole | -files | -files | -files
"""


def table():
    return {name: rest for name, *rest in ([cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines())}


def public_functions():
    """`Study::ask`, `is_saved_study`: the public functions of what the Rust interface re-exports, and of what error.rs defines."""
    crate = Crate(SOURCE)
    names = {(*module, name) for module in EXPORTS for public, _, name in crate.uses[module] if public}
    names |= {("error", "Error")}
    owners = {name[-1]: crate.owner(name) for name in names}
    found = set()
    for module, text in crate.text.items():
        if module[:1] == ("capi",):
            continue
        # What a type of this name is in this file.
        called = {name: crate.owner(target) for _, path, name in crate.uses[module] if (target := crate.absolute(module, path))}
        for name, body in re.findall(r"^impl(?:<[^{]*?>)? (\w+)(?:<[^{]*?>)? \{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            if name in owners and called.get(name, module) == owners[name]:
                found |= {f"{name}::{function}" for function in re.findall(r"^    pub (?:const )?fn (\w+)", body, re.MULTILINE)}
        found |= {function for function in re.findall(r"^pub fn (\w+)", text, re.MULTILINE) if owners.get(function) == module}
    return found


def c_names():
    return {name.split(" ", 1)[1] for name in abi.described(abi.HEADER) if " " in name}


def cpp_names():
    """`Study::ask` for members, `verify_bundle` for functions and types of the namespace."""
    found = set()
    for header in ("anatomix.hpp", "anatomix_study.hpp", "anatomix_types.hpp"):
        text = re.sub(r"//[^\n]*", "", (ROOT / "include" / header).read_text())
        for name, body in re.findall(r"^(?:class|struct) (\w+) \{(.*?)^\};", text, re.MULTILINE | re.DOTALL):
            public = re.split(r"^private:", body, flags=re.MULTILINE)[0]
            found |= {name} | {f"{name}::{member}" for member in re.findall(r"\b(\w+)(?= ?[({;=,])", public)}
        found |= set(re.findall(r"^(?:inline|constexpr) [^()\n]*?\*?\b(\w+)\(", text, re.MULTILINE))
        found |= set(re.findall(r"^using (\w+) =", text, re.MULTILINE))
    return found


def python_names():
    """`Study.ask`, `Engine.open(cancel)`, `is_saved_study`."""
    folder = ROOT / "bindings/python/python/anatomix"
    found = set()
    options = set()
    for file in ("_anatomix.pyi", "_records.py", "_errors.py"):
        for node in ast.parse((folder / file).read_text()).body:
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    found |= members(node.name, member)
                if node.name == "_Options":
                    options = {member.target.id for member in node.body if isinstance(member, ast.AnnAssign)}
            else:
                found |= members("", node)
    return found | {f"Question.__new__({option})" for option in options}


def members(owner, node):
    prefix = f"{owner}." if owner else ""
    if isinstance(node, ast.FunctionDef):
        arguments = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        # What an exception's `__init__` sets.
        attributes = [target.attr for target in ast.walk(node) if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)]
        return {f"{prefix}{node.name}"} | {f"{prefix}{node.name}({name})" for name in arguments} | {prefix + name for name in attributes}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {prefix + node.target.id}
    return set()


def test_every_function_of_rust_is_in_the_table():
    functions, listed = public_functions(), table()
    assert {"Study::ask", "Engine::studies_with", "Study::save", "Overlay::of_study", "is_saved_study"} <= functions
    missing, gone = sorted(functions - listed.keys()), sorted(listed.keys() - functions)
    assert not missing, f"public functions of the Rust interface without counterparts in C, C++ and Python: {missing}"
    assert not gone, f"no public functions of the Rust interface: {gone}"


@pytest.mark.parametrize(("language", "names"), [("C", c_names), ("C++", cpp_names), ("Python", python_names)])
def test_every_counterpart_is_there(language, names):
    column, known = ["C", "C++", "Python"].index(language), names()
    wrong = [
        f"{function}: {cell}"
        for function, cells in table().items()
        if (cell := cells[column]) and (cell[1:] not in REASONS if cell.startswith("-") else cell not in known)
    ]
    assert not wrong, f"{language} has none of these: {wrong}"


def test_the_table_is_sorted_and_whole():
    lines = TABLE.strip().splitlines()
    assert lines == sorted(lines) and len(lines) == len(table())
    assert all(len(cells) == 3 and all(cells) for cells in table().values())


# Where the program's option has another name, or there is none: the reason.
OTHER_OPTIONS = {
    "cancel": "Ctrl-C",
    "draft_cost": "for tests",
    "golden_check": "--no-golden-check",
    "inverted": "the file is corrected",
    "keep_radiograph": "an overlay is drawn at once",
    "look_up": "--no-look-up",
    "mirrored": "the file is corrected",
    "piece": "the program prints",
    "progress": "the program draws a bar",
}


def test_options_have_one_name():
    """An option of C is called the same in C++, in Python and on the command line, and in Rust if it is an option there by itself."""
    header = abi.HEADER.read_text()
    options = {}
    for struct, body in re.findall(r"typedef struct (anx_\w+_options) \{(.*?)\} anx_", header, re.DOTALL):
        fields = re.findall(r"(\w+);", re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL))
        options[struct] = {field for field in fields if not field.endswith(("_size", "_data", "_count", "_free"))}
    assert set(options) == {f"anx_{kind}_options" for kind in ("engine", "verify", "perceive", "ask", "report", "document")}
    differing = []
    for rust, cells in table().items():
        struct, _, field = cells[0].partition(".")
        if struct not in options or not field:
            continue
        name = field.removesuffix("_ms")
        found = [rust.split("::")[-1], cells[1].split("::")[-1], re.sub(r".*[(.](\w+)\)?$", r"\1", cells[2])]
        if field == "piece" or rust.split("::")[0] not in ("EngineBuilder", "PerceiveOptions", "Question", "ReadOptions"):
            found = found[1:] if field != "piece" else []
        differing += [f"{rust}: {other} is {name} in C" for other in found if other != name and rust != "Question::sampling"]
    assert not differing, "\n".join(differing)
    program = set()
    for path in (SOURCE / "bin/anatomix").glob("*.rs"):
        program |= set(re.findall(r"#\[arg\(long[^\n]*\)\]\s*(?:pub(?:\([^)]*\))? )?(\w+):", path.read_text()))
    names = {field.removesuffix("_ms") for fields in options.values() for field in fields}
    assert names - program == set(OTHER_OPTIONS)
