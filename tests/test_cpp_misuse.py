"""What a C or C++ program gets wrong is an error with a name, or does nothing. The programs run under sanitizers."""

import subprocess

import pytest
from native import SANITIZERS, STRICT, run

MOVED = r"""
#include <anatomix.hpp>
#include <iostream>

using namespace anatomix;

static int failed = 0;
template <class T> static void refused(const char *what, const Result<T> &result, anx_status code = ANX_INVALID_ARGUMENT) {
    if (!result && result.error().code == code && !result.error().message.empty()) return;
    std::cout << what << ": " << result.error().code << " " << result.error().message << "\n";
    failed = 1;
}
static void check(const char *what, bool good) {
    if (good) return;
    std::cout << what << "\n";
    failed = 1;
}

int main(int, char **argv) {
    Engine engine = Engine::open(argv[1]).value();
    Study study = engine.study_from_file(argv[2]).value();
    Answer answer = study.ask("Where is the left lung?").value();
    CancelHandle cancel = CancelHandle::create().value();
    std::vector<std::uint8_t> bytes = study.save().value();
    const std::vector<std::uint8_t> pixels(64 * 64);

    // Everything that is called on an object that was moved from.
    Engine engine2 = std::move(engine);
    refused("file", engine.study_from_file(argv[2]));
    refused("bytes", engine.study_from_bytes(bytes.data(), bytes.size()));
    refused("pixels", engine.study_from_pixels({64, 64, pixels}));
    refused("load", engine.load_study(bytes));
    for (const auto &one : engine.studies_from_files({argv[2], argv[2]})) refused("files", one);
    for (const auto &one : engine.studies_from_bytes({bytes, {}})) refused("several bytes", one);
    for (const auto &one : engine.studies_from_pixels({{64, 64, pixels}})) refused("several pixels", one);
    check("engine", engine.bundle_name().empty() && engine.bundle_sha256().empty() && engine.provider().empty());
    check("engine's numbers", engine.notes().empty() && engine.batch_size() == 0 && engine.study_bytes(9) == 0 && !engine.get());

    Study study2 = std::move(study);
    refused("ask", study.ask("x"));
    refused("ask_task", study.ask_task(Task::report));
    refused("ask_many", study.ask_many({{"x"}, {"y"}}));
    refused("save", study.save());
    refused("cancel handle", study.cancel_handle());
    refused("report", study.structured_report({&answer}));
    refused("json", study.json());
    refused("overlay", study.overlay());
    check("rewind", study.rewind(0).code == ANX_INVALID_ARGUMENT);
    check("study", study.name().empty() && study.width() == 0 && study.height() == 0 && study.turns() == 0 && !study.get());
    check("study's lists", study.structures().empty() && study.labels().empty() && study.flags().empty() && study.timing().empty());
    check("study's rest", study.embeddings().empty() && study.provenance().sdk.empty());

    Answer answer2 = std::move(answer);
    refused("report of an empty answer", study2.structured_report({&answer}));
    refused("report of no answer", study2.structured_report({nullptr}));
    refused("answer's json", answer.json());
    refused("answer's overlay", answer.overlay());
    check("answer", answer.text().empty() && answer.raw().empty() && answer.question().empty() && answer.task().empty());
    check("answer's numbers", answer.tokens() == 0 && answer.prefilled() == 0 && answer.runs() == 0 && !answer.get());
    check("answer's lists", answer.groundings().empty() && answer.log_probabilities().empty() && answer.flags().empty());
    check("answer's rest", answer.timing().empty() && answer.finish() == ANX_FINISH_STOPPED && answer.provenance().sdk.empty());

    CancelHandle cancel2 = std::move(cancel);
    cancel.cancel();
    cancel.reset();
    PerceiveOptions perceiving;
    perceiving.cancel = cancel; // an empty handle stops nothing
    check("empty cancel handle", static_cast<bool>(engine2.study_from_file(argv[2], perceiving)));

    // Objects are assigned to themselves and to each other, and destroyed in the wrong order.
    Study &same = study2;
    study2 = std::move(same);
    engine2 = Engine::open(argv[1]).value();
    check("a study without its engine", static_cast<bool>(study2.ask("Where is the heart?")));
    study2 = engine2.study_from_file(argv[2]).value();

    // Arguments that nothing can be done with.
    refused("no bytes", engine2.study_from_bytes(nullptr, 0), ANX_RADIOGRAPH_DAMAGED);
    refused("NULL bytes", engine2.study_from_bytes(nullptr, 9));
    refused("too many bytes", engine2.study_from_bytes(bytes.data(), SIZE_MAX));
    refused("no path", engine2.study_from_file(""), ANX_RADIOGRAPH_READ);
    refused("no pixels", engine2.study_from_pixels({0, 0, {pixels}}), ANX_RADIOGRAPH_SIZE);
    Pixels large(0xffffffff, 0xffffffff, pixels), bits(64, 64, pixels), stride(64, 64, pixels);
    bits.bits_stored = 17;
    stride.stride = SIZE_MAX;
    refused("sides", engine2.study_from_pixels(large), ANX_RADIOGRAPH_SIZE);
    refused("bits", engine2.study_from_pixels(bits));
    refused("stride", engine2.study_from_pixels(stride), ANX_RADIOGRAPH_SIZE);
    refused("nothing saved", engine2.load_study({}), ANX_SAVED);
    refused("no question", study2.ask(""), ANX_PROMPT_QUESTION);
    AskOptions options;
    options.temperature = -1;
    refused("temperature", study2.ask("x", {}, options));
    options = {};
    options.json_schema = "{";
    refused("schema", study2.ask("x", {}, options), ANX_DECODER_SCHEMA);
    options.unconstrained = true;
    refused("schema and no constraint", study2.ask("x", {}, options));
    refused("one follow-up", study2.ask_many({{"x"}, {"y", [] { AskOptions o; o.follow_up = true; return o; }()}}));
    check("no questions", study2.ask_many({}).value().empty());
    options = {};
    options.deadline = std::chrono::milliseconds(-5);
    check("a deadline in the past", study2.ask("x", {}, options).value().finish() == ANX_FINISH_DEADLINE);
    EngineOptions opening;
    opening.draft_cost = 2;
    refused("draft_cost", Engine::open(argv[1], opening));
    refused("no bundle", Engine::open(""));
    refused("no bundle to verify", verify_bundle(""));

    // The study that asks is busy in its own callback.
    anx_status inside = ANX_OK;
    auto outer = study2.ask("Where is the left lung?", [&](std::string_view) {
        inside = study2.ask("x").error().code;
        return false;
    });
    check("busy", inside == ANX_BUSY && outer && outer.value().finish() == ANX_FINISH_STOPPED);
    return failed;
}
"""


def test_objects_that_were_moved_from_and_arguments_of_no_use(compiled, bundle, phantom_dicom, environment):
    program = compiled(MOVED, "-Wno-self-move", "-Wno-missing-field-initializers", "-Wno-pessimizing-move")
    run([program, bundle, phantom_dicom], environment)


THROWING = r"""
#include <anatomix.hpp>
#include <cstring>
#include <stdexcept>

using namespace anatomix;

int main(int, char **argv) {
    const std::string where = argv[3];
    EngineOptions options;
    if (where == "log") options.log = [](anx_log_level, std::string_view) { throw std::runtime_error("thrown in log"); };
    if (where == "progress") {
        options.progress = [](std::string_view, std::uint64_t, std::uint64_t) { throw std::runtime_error("thrown in progress"); };
    }
    auto study = Engine::open(argv[1], options).value().study_from_file(argv[2]).value();
    (void)static_cast<bool>(study.ask("x", [](std::string_view) -> bool { throw std::runtime_error("thrown in piece"); }));
}
"""


@pytest.mark.parametrize("where", ["log", "progress", "piece"])
def test_an_exception_in_a_callback_ends_the_program_and_passes_through_nothing(compiled, bundle, phantom_dicom, environment, where):
    program = compiled(THROWING)
    done = subprocess.run([program, bundle, phantom_dicom, where], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0 and f"thrown in {where}" in done.stderr and "terminate" in done.stderr, done.stderr


UNCOMPILABLE = {
    "a study is copied": "void f(anatomix::Study &s) { anatomix::Study t = s; }",
    "an engine is copied": "void f(anatomix::Engine &e) { anatomix::Engine t = e; }",
    "pixels that are gone": "anatomix::Pixels f() { return {1, 1, std::vector<std::uint8_t>(1)}; }",
    "a study that is gone": "void f(anatomix::Engine &e) { auto &s = e.study_from_file(\"x\").value(); (void)s; }",
    "a study of nothing": "anatomix::Study study;",
}


@pytest.mark.parametrize("misuse", UNCOMPILABLE)
def test_what_does_not_compile(root, tmp_path, misuse):
    source = tmp_path / "misuse.cpp"
    compiler = ["g++", "-std=c++17", "-fsyntax-only", "-I", root / "include", source]
    source.write_text(f"#include <anatomix.hpp>\n{UNCOMPILABLE[misuse]}\n")
    done = subprocess.run(compiler, capture_output=True, text=True, check=False)
    assert done.returncode != 0, f"{misuse}, and it compiles"


SIZES = r"""
#include <anatomix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A struct of a later version: more fields, all of them zero, or one that is not. */
#define LATER 64

static int check(const char *what, anx_status status, anx_status wanted) {
    if (status == wanted) return 0;
    printf("%s: %d instead of %d\n", what, (int)status, (int)wanted);
    return 1;
}

int main(int argc, char **argv) {
    static const size_t sizes[] = {0, 1, 7, 4, sizeof(size_t) + 1, 100000, (size_t)-1, (size_t)-8};
    anx_engine *engine = NULL;
    anx_study *study = NULL;
    anx_answer *answer = NULL;
    anx_verified_bundle *bundle = NULL;
    anx_bytes *bytes = NULL;
    size_t i;
    int failed = 0;
    if (argc != 3) return 2;
    failed |= check("open", anx_engine_open(argv[1], NULL, &engine, NULL), ANX_OK);
    failed |= check("study", anx_study_from_file(engine, argv[2], NULL, &study, NULL), ANX_OK);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        /* The size alone is readable: nothing behind it is looked at. */
        size_t *size = malloc(sizeof(size_t));
        anx_engine *none = NULL;
        anx_study *other = NULL;
        *size = sizes[i];
        failed |= check("engine options", anx_engine_open(argv[1], (anx_engine_options *)size, &none, NULL), ANX_INVALID_ARGUMENT);
        failed |= check("verify options", anx_verify_bundle(argv[1], (anx_verify_options *)size, &bundle, NULL), ANX_INVALID_ARGUMENT);
        failed |= check("perceive options", anx_study_from_file(engine, argv[2], (anx_perceive_options *)size, &other, NULL),
                        ANX_INVALID_ARGUMENT);
        failed |= check("ask options", anx_study_ask(study, "x", (anx_ask_options *)size, &answer, NULL), ANX_INVALID_ARGUMENT);
        failed |= check("report options", anx_study_structured_report(study, NULL, 0, (anx_report_options *)size, &bytes, NULL),
                        ANX_INVALID_ARGUMENT);
        failed |= check("pixels", anx_study_from_pixels(engine, (anx_pixels *)size, NULL, &other, NULL), ANX_INVALID_ARGUMENT);
        free(size);
    }
    {
        /* The smallest struct: its size alone. Then larger ones. */
        size_t *size = malloc(sizeof(size_t));
        char *later = calloc(1, sizeof(anx_verify_options) + LATER);
        *size = sizeof *size;
        failed |= check("smallest", anx_verify_bundle(argv[1], (anx_verify_options *)size, &bundle, NULL), ANX_OK);
        anx_verified_bundle_free(bundle);
        *size = sizeof(anx_verify_options) + LATER;
        memcpy(later, size, sizeof *size);
        failed |= check("later", anx_verify_bundle(argv[1], (anx_verify_options *)later, &bundle, NULL), ANX_OK);
        anx_verified_bundle_free(bundle);
        later[sizeof(anx_verify_options) + LATER - 1] = 1;
        failed |= check("later and set", anx_verify_bundle(argv[1], (anx_verify_options *)later, &bundle, NULL), ANX_INVALID_ARGUMENT);
        free(later);
        free(size);
    }
    {
        /* Numbers that are not a switch. */
        anx_perceive_options options = {0};
        anx_study *other = NULL;
        options.struct_size = sizeof options;
        options.keep_radiograph = 3;
        failed |= check("switch", anx_study_from_file(engine, argv[2], &options, &other, NULL), ANX_INVALID_ARGUMENT);
    }
    anx_study_free(study);
    anx_engine_free(engine);
    return failed;
}
"""


def test_wrong_struct_sizes(root, anatomix, bundle, phantom_dicom, environment, tmp_path):
    source, program, library = tmp_path / "sizes.c", tmp_path / "sizes", anatomix.parent
    source.write_text(SIZES)
    link = ["-L", library, "-lanatomix", f"-Wl,-rpath,{library}"]
    run(["gcc", "-std=c11", *STRICT, *SANITIZERS, "-I", root / "include", source, "-o", program, *link])
    run([program, bundle, phantom_dicom], environment)
