"""The C and C++ interfaces: they compile with strict warnings, and C++ programs give the results of the command line."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from native import SANITIZERS, STRICT, run

PLAIN_C = r"""
#include <anatomix.h>
#include <stdio.h>
#include <string.h>

static int on_piece(const char *piece, size_t length, void *user_data) {
    size_t *total = user_data;
    *total += length;
    return piece[length] == '\0' ? ANX_FLOW_CONTINUE : ANX_FLOW_STOP;
}

int main(int argc, char **argv) {
    anx_engine_options options = {0};
    anx_ask_options asking = {0};
    anx_engine *engine = NULL;
    anx_study *study = NULL;
    anx_answer *answer = NULL;
    anx_error *error = NULL;
    size_t streamed = 0;
    if (argc != 3 || anx_abi_version() != ANX_ABI_VERSION) return 2;

    /* Failure first: an error that is owned, and nothing else. */
    if (anx_engine_open("no such bundle", NULL, &engine, &error) != ANX_BUNDLE_READ || engine) return 3;
    if (anx_error_code(error) != ANX_BUNDLE_READ || !strstr(anx_error_message(error), "no such bundle")) return 4;
    anx_error_free(error);

    options.struct_size = sizeof options;
    options.provider = "cpu";
    asking.struct_size = sizeof asking;
    asking.task = "report";
    asking.piece = on_piece;
    asking.piece_user_data = &streamed;
    if (anx_engine_open(argv[1], &options, &engine, &error) != ANX_OK ||
        anx_study_from_file(engine, argv[2], NULL, &study, &error) != ANX_OK ||
        anx_study_ask(study, NULL, &asking, &answer, &error) != ANX_OK) {
        fprintf(stderr, "%s\n", anx_error_message(error));
        return 1;
    }
    /* Any order of freeing is fine; the answer needs neither. */
    anx_engine_free(engine);
    anx_study_free(study);
    if (streamed != strlen(anx_answer_text(answer)) || anx_answer_finish(answer) != ANX_FINISH_END_OF_TURN) return 5;
    puts(anx_answer_text(answer));
    anx_answer_free(answer);
    return 0;
}
"""

SEVERAL = r"""
#include <anatomix.hpp>
#include <fstream>
#include <iostream>
#include <iterator>

int main(int, char **argv) {
    auto engine = anatomix::Engine::open(argv[1]).value();
    const auto print = [](const std::vector<anatomix::Result<anatomix::Study>> &studies) {
        for (const auto &study : studies) {
            std::cout << (study ? study.value().structures().at(11).sentence : study.error().message) << "\n";
        }
    };
    print(engine.studies_from_files({argv[2], "no such file", argv[2]}));
    std::cout << engine.studies_from_files({}).size() << "\n";
    std::ifstream file(argv[2], std::ios::binary);
    std::vector<std::uint8_t> bytes(std::istreambuf_iterator<char>(file), {});
    print(engine.studies_from_bytes({bytes, bytes}));
    print(engine.studies_from_bytes({{}, bytes}));
    // Texts that C would cut.
    const std::string path = argv[2], question = "Where is the heart?", rest("\0.exe", 5);
    print(engine.studies_from_files({path + rest, path}));
    if (engine.studies_from_files({path + rest})[0].error().code != ANX_INVALID_ARGUMENT) return 3;
    auto named = engine.studies_from_bytes({bytes, bytes, bytes}, {}, {"first", "second" + rest});
    if (named[0].value().name() != "first" || named[1] || named[1].error().code != ANX_INVALID_ARGUMENT) return 4;
    if (named[2].value().name() != "bytes") return 5;
    if (engine.study_from_bytes(bytes.data(), bytes.size(), "first" + rest).error().code != ANX_INVALID_ARGUMENT) return 6;
    // Texts that would leave a hole in messages.
    if (engine.study_from_file("").error().message.find("is empty") == std::string::npos) return 7;
    if (engine.study_from_bytes(bytes.data(), bytes.size(), "").error().message.find("name is empty") == std::string::npos) return 8;
    std::cout << engine.study_from_file(path + rest).error().message << "\n";
    std::cout << engine.study_from_file(path).value().ask(question + rest).error().message << "\n";
    anatomix::AskOptions stopping;
    stopping.stop = {"left" + rest};
    std::cout << engine.study_from_file(path).value().ask(question, {}, stopping).error().message << "\n";
    anatomix::EngineOptions provider;
    provider.provider = "cpu" + rest;
    std::cout << anatomix::Engine::open(argv[1], provider).error().message << "\n";
}
"""


CONVERSATION = r"""
#include <anatomix.hpp>
#include <iostream>

using namespace anatomix;

int main(int, char **argv) {
    auto engine = Engine::open(argv[1]).value();
    auto study = engine.study_from_file(argv[2]).value();
    AskOptions follow_up;
    follow_up.follow_up = true;
    const std::string first = "Where is the left lung?", second = "What does it show?";
    Answer one = study.ask(first).value(), two = study.ask(second, {}, follow_up).value();
    std::cout << one.text() << "\n" << two.text() << "\n";
    if (study.turns() != 2 || one.prefilled() < 300 || two.prefilled() > 60 || two.runs() == 0) return 3;
    // Rewound to the first answer, the same question gets the same answer.
    if (study.rewind(1).code != ANX_OK || study.turns() != 1) return 4;
    if (study.ask(second, {}, follow_up).value().text() != two.text()) return 5;
    // Kept and loaded, nothing is computed again; the conversation is over.
    const std::vector<std::uint8_t> kept = study.save().value();
    auto loaded = engine.load_study(kept).value();
    Answer again = loaded.ask(first).value();
    if (again.text() != one.text() || again.prefilled() > 60 || loaded.turns() != 1) return 6;
    auto damaged = engine.load_study({kept.begin(), kept.begin() + 100});
    if (damaged || damaged.error().code != ANX_SAVED) return 7;
    // The same report of the study that was kept, with an answer and without.
    const ReportOptions plain;
    if (study.structured_report({&one}).value() != loaded.structured_report({&again}).value()) return 10;
    if (study.structured_report().value().size() >= study.structured_report({&one}, plain).value().size()) return 11;
    ReportOptions late;
    late.content_time = "tomorrow";
    if (study.structured_report({}, late).error().code != ANX_INVALID_ARGUMENT) return 12;
    // Its other documents.
    if (study.presentation_state({&one}).value() != loaded.presentation_state({&again}).value()) return 13;
    if (study.presentation_state().value().size() >= study.presentation_state({&one}, {}).value().size()) return 14;
    if (study.fhir({&one}).value() != loaded.fhir({&again}).value() || study.fhir().value().front() != '{') return 16;
    DocumentOptions cut;
    cut.content_time = std::string("2026\0", 5);
    if (study.presentation_state({}, cut).error().code != ANX_INVALID_ARGUMENT) return 15;
    // Memory that two studies do not fit into.
    EngineOptions tight;
    tight.memory_limit = engine.study_bytes(2048);
    auto small = Engine::open(argv[1], tight).value();
    auto held = small.study_from_file(argv[2]).value();
    if (!held.ask(first)) return 8;
    const std::size_t taken = held.cache_bytes(600);
    if (taken <= engine.study_bytes(600) || taken > tight.memory_limit || taken <= held.cache_bytes(0)) return 17;
    auto refused = small.study_from_file(argv[2]).value().ask(first);
    if (refused || refused.error().code != ANX_DECODER_MEMORY) return 9;
    return 0;
}
"""


def record(anatomix, environment, *arguments):
    return json.loads(run([anatomix, *arguments, "--json"], environment))


def numbers(text):
    return [float(number) for number in text.split(" ")]


def test_the_header_is_strict_c89_and_cpp17(root, tmp_path):
    source = tmp_path / "plain.c"
    source.write_text(PLAIN_C)
    for standard in ["c11", "c99", "c89"]:
        run(["gcc", f"-std={standard}", *STRICT, "-I", root / "include", "-fsyntax-only", source])
    # What C compilers may choose freely, the size of an enum, is fixed.
    fixed = tmp_path / "fixed.c"
    enums = ["anx_status", "anx_severity", "anx_finish", "anx_flow", "anx_switch", "anx_log_level", "anx_photometric"]
    wide = " && ".join(f"sizeof({name}) == 4" for name in enums)
    fixed.write_text(f"#include <anatomix.h>\nint fixed[{wide} ? 1 : -1];\n")
    run(["gcc", "-fshort-enums", "-I", root / "include", "-fsyntax-only", fixed])
    # A failure that is not looked at is a warning.
    ignored = tmp_path / "ignored.cpp"
    ignored.write_text('#include <anatomix.hpp>\nint main() { anatomix::Engine::open("bundle"); }\n')
    compiler = ["g++", "-std=c++17", "-Werror=unused-result", "-I", root / "include", "-fsyntax-only", ignored]
    assert subprocess.run(compiler, capture_output=True, check=False).returncode != 0
    alone = tmp_path / "alone.cpp"
    alone.write_text("#include <anatomix.hpp>\n")
    run(["g++", "-std=c++17", *STRICT, "-fno-exceptions", "-fno-rtti", "-I", root / "include", "-fsyntax-only", alone])


def test_plain_c_asks_for_a_report(root, anatomix, bundle, phantom_dicom, environment, tmp_path):
    source, program, library = tmp_path / "plain.c", tmp_path / "plain", Path(anatomix).parent
    source.write_text(PLAIN_C)
    link = ["-L", library, "-lanatomix", f"-Wl,-rpath,{library}"]
    run(["gcc", "-std=c11", *STRICT, *SANITIZERS, "-I", root / "include", source, "-o", program, *link])
    expected = record(anatomix, environment, "report", phantom_dicom, "--bundle", bundle)
    assert run([program, bundle, phantom_dicom], environment).strip() == expected["text"].strip()


def test_cpp_finds_what_the_command_line_finds(programs, anatomix, bundle, phantom_dicom, environment):
    lines = run([programs / "example", bundle, phantom_dicom], environment).splitlines()
    expected = record(anatomix, environment, "perceive", phantom_dicom, "--bundle", bundle)["structures"]
    assert len(lines) == len(expected) == 36
    for line, structure in zip(lines, expected):
        index, box, sentence = line.split("\t")
        assert int(index) == structure["index"]
        assert sentence == structure["sentence"]
        assert numbers(box) == pytest.approx(structure["box"], abs=0.01)


def test_cpp_perceives_several_files(compiled, anatomix, bundle, phantom_dicom, environment):
    program = compiled(SEVERAL, "-fno-exceptions", "-fno-rtti")
    lines = run([program, bundle, phantom_dicom], environment).splitlines()
    sentence = record(anatomix, environment, "perceive", phantom_dicom, "--bundle", bundle)["structures"][11]["sentence"]
    # A missing file does not affect the others.
    assert lines[0] == lines[2] == sentence and "no such file" in lines[1] and lines[3] == "0"
    assert lines[4:6] == [sentence] * 2
    assert "empty" in lines[6] and lines[7] == sentence
    assert lines[8] != sentence and lines[9] == sentence
    assert [line.split()[2] for line in lines[10:]] == ["path", "question", "stop", "provider"]
    assert all("NUL" in line for line in lines[10:])


def test_cpp_holds_a_conversation(compiled, anatomix, bundle, phantom_dicom, environment):
    program = compiled(CONVERSATION, "-fno-exceptions", "-fno-rtti")
    asked = ["ask", phantom_dicom, "Where is the left lung?", "What does it show?", "--follow-up", "--json", "--bundle", bundle]
    expected = [json.loads(line)["text"] for line in run([anatomix, *asked], environment).splitlines()]
    assert run([program, bundle, phantom_dicom], environment).splitlines() == expected


@pytest.mark.parametrize("question", ["Where is the left lung?", "Is there a pleural effusion?"])
def test_cpp_answers_what_the_command_line_answers(programs, anatomix, bundle, phantom_dicom, environment, question):
    output = run([programs / "example", bundle, phantom_dicom, question], environment)
    expected = record(anatomix, environment, "ask", phantom_dicom, question, "--bundle", bundle)
    answer = output.split("\n\n", 1)[1]
    text = re.split(r"^grounding\t", answer, maxsplit=1, flags=re.MULTILINE)[0]
    assert text.strip() == expected["text"].strip()
    groundings = [line.split("\t")[1:] for line in answer.splitlines() if line.startswith("grounding\t")]
    assert [phrase for phrase, *_ in groundings] == [g["phrase"] for g in expected["groundings"]]
    for (_, *boxes), grounding in zip(groundings, expected["groundings"]):
        assert len(boxes) == len(grounding["boxes"])
        for box, wanted in zip(boxes, grounding["boxes"]):
            assert numbers(box) == pytest.approx(wanted, abs=0.01)


TOGETHER = r"""
#include <anatomix.hpp>
#include <iostream>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    auto engine = anatomix::Engine::open(argv[1]);
    if (!engine) return 1;
    auto study = engine.value().study_from_file(argv[2]);
    if (!study) return 1;
    std::string streamed;
    anatomix::AskOptions report;
    report.task = anatomix::Task::report;
    auto answers = study.value().ask_many({
        {"Where is the left lung?"},
        {"", report, [&](std::string_view piece) { streamed += piece; return true; }},
    });
    if (!answers || streamed != answers.value()[1].text()) return 3;
    for (const anatomix::Answer &answer : answers.value()) std::cout << answer.text() << "\n";
    // One that cannot be asked is an error, which is owned.
    auto failed = study.value().ask_many({{"Where is the heart?"}, {" "}});
    return failed || failed.error().message.empty() ? 4 : 0;
}
"""


def test_cpp_asks_several_questions_together(compiled, anatomix, bundle, phantom_dicom, environment):
    program = compiled(TOGETHER, "-Wno-missing-field-initializers")
    expected = [record(anatomix, environment, *asked, "--bundle", bundle)["text"] for asked in [
        ("ask", phantom_dicom, "Where is the left lung?"), ("report", phantom_dicom),
    ]]  # fmt: skip
    assert run([program, bundle, phantom_dicom], environment).strip() == "\n".join(expected).strip()


SIDE_BY_SIDE = r"""
#include <anatomix.hpp>
#include <chrono>
#include <future>
#include <iostream>
#include <thread>

using namespace anatomix;

int main(int, char **argv) {
    EngineOptions options;
    options.provider = "cpu";
    options.threads = 1;
    auto opened = Engine::open(argv[1], options);
    if (!opened) return 1;
    auto &engine = opened.value();
    const std::string questions[] = {"Where is the left lung?", "Is there a pleural effusion?"};

    // Eight callers at once, each with a study of its own.
    std::string answers[8];
    std::vector<std::thread> callers;
    for (std::size_t i = 0; i < 8; i++) callers.emplace_back([&, i] {
        auto study = engine.study_from_file(argv[2]);
        if (!study) return;
        auto answer = study.value().ask(questions[i % 2]);
        if (answer) answers[i] = study.value().structures().at(11).sentence + "\t" + answer.value().text();
    });
    for (std::thread &caller : callers) caller.join();
    for (const std::string &answer : answers) std::cout << answer << "\n";

    // A caller whose callback waits until another caller has its whole answer.
    std::promise<void> answered;
    std::future<void> done = answered.get_future();
    bool met = false, first = true;
    std::thread slow([&] {
        auto study = engine.study_from_file(argv[2]);
        if (!study) return;
        auto answer = study.value().ask(questions[0], [&](std::string_view) {
            if (first) met = done.wait_for(std::chrono::minutes(1)) == std::future_status::ready;
            first = false;
            return true;
        });
        met = met && answer && answer.value().finish() == ANX_FINISH_END_OF_TURN;
    });
    auto study = engine.study_from_file(argv[2]);
    if (study && study.value().ask(questions[1])) answered.set_value();
    slow.join();
    if (!met) return 2;

    // No number of threads that the machine has not is taken for another.
    for (std::size_t threads : {SIZE_MAX, SIZE_MAX / 2, std::size_t{100000}}) {
        options.threads = threads;
        auto refused = Engine::open(argv[1], options);
        if (refused || refused.error().code != ANX_INVALID_ARGUMENT) return 3;
        if (refused.error().message.find(std::to_string(threads) + " threads") != 0) return 4;
    }
}
"""


def test_cpp_callers_side_by_side_get_what_the_command_line_gets(compiled, anatomix, bundle, phantom_dicom, environment):
    program = compiled(SIDE_BY_SIDE, "-pthread")
    sentence = record(anatomix, environment, "perceive", phantom_dicom, "--bundle", bundle)["structures"][11]["sentence"]
    asked = ["Where is the left lung?", "Is there a pleural effusion?"]
    expected = [record(anatomix, environment, "ask", phantom_dicom, question, "--bundle", bundle)["text"] for question in asked]
    answers = "".join(f"{sentence}\t{text}\n" for text in expected * 4)
    assert run([program, bundle, phantom_dicom], environment) == answers


PIXELS = r"""
#include <anatomix.hpp>

using namespace anatomix;

static bool same(const Study &a, const Study &b) {
    const Box x = a.structures().at(11).bounds, y = b.structures().at(11).bounds;
    return x.x0 == y.x0 && x.y1 == y.y1;
}

int main(int, char **argv) {
    auto engine = Engine::open(argv[1]).value();
    const std::uint32_t width = 64, height = 48;
    std::vector<std::uint16_t> values(width * height), inverted, rows;
    for (std::size_t i = 0; i < values.size(); i++) values[i] = static_cast<std::uint16_t>(i * i % 4096);
    for (std::uint16_t value : values) inverted.push_back(static_cast<std::uint16_t>(4095 - value));
    for (std::size_t i = 0; i < values.size(); i++) {
        rows.push_back(values[i]);
        if (i % width == width - 1) rows.insert(rows.end(), {0, 4095});
    }
    Pixels plain(width, height, values), monochrome1(width, height, inverted), gaps(width, height, rows);
    plain.bits_stored = monochrome1.bits_stored = gaps.bits_stored = 12;
    monochrome1.photometric = ANX_PHOTOMETRIC_MONOCHROME1;
    gaps.stride = 2 * (width + 2);
    auto study = engine.study_from_pixels(plain).value();
    if (study.width() != width || study.height() != height) return 1;
    for (const Pixels &other : {monochrome1, gaps}) {
        if (!same(engine.study_from_pixels(other).value(), study)) return 2;
    }
    if (engine.studies_from_pixels({plain, gaps}).at(1).value().width() != width) return 3;
    plain.bits_stored = 10;
    auto wrong = engine.study_from_pixels(plain);
    return wrong || wrong.error().code != ANX_RADIOGRAPH ? 4 : 0;
}
"""


def test_cpp_takes_pixels(compiled, bundle, environment):
    run([compiled(PIXELS, "-fno-exceptions", "-fno-rtti"), bundle], environment)


STOPPED = r"""
#include <anatomix.hpp>

using namespace anatomix;

int main(int, char **argv) {
    auto cancel = CancelHandle::create().value();
    EngineOptions logged;
    // The first study that is finished cancels the call.
    logged.log = [cancel](anx_log_level level, std::string_view line) {
        if (level == ANX_LOG_DEBUG && line.find("study ") == 0) cancel.cancel();
    };
    auto engine = Engine::open(argv[1], logged).value();
    PerceiveOptions options;
    options.deadline = std::chrono::milliseconds(1);
    auto late = engine.study_from_file(argv[2], options);
    if (late || late.error().code != ANX_DEADLINE) return 1;
    options.deadline = std::chrono::minutes(10);
    options.cancel = cancel;
    auto studies = engine.studies_from_files(std::vector<std::string>(20, argv[2]), options);
    if (!studies.front() || studies.back() || studies.back().error().code != ANX_STOPPED) return 2;
    auto stopped = engine.study_from_file(argv[2], options);
    if (stopped || stopped.error().code != ANX_STOPPED) return 3;
    PerceiveOptions second;
    second.window = 2;
    if (engine.study_from_file(argv[2], second)) return 5;
    return engine.study_from_file(argv[2]).value().provenance().burned_in_annotation == "YES" ? 0 : 4;
}
"""


def test_cpp_stops_perceiving(compiled, bundle, phantom_dicom, environment):
    run([compiled(STOPPED, "-fno-exceptions", "-fno-rtti"), bundle, phantom_dicom], environment)


LOGGED = r"""
#include <anatomix.hpp>
#include <iostream>

int main(int, char **argv) {
    auto lines = std::make_shared<std::vector<std::string>>();
    anatomix::EngineOptions options;
    options.log = [lines](anx_log_level level, std::string_view line) {
        lines->push_back(std::to_string(level) + " " + std::string(line));
    };
    if (anatomix::Engine::open("no such bundle", options)) return 1;
    {
        auto study = anatomix::Engine::open(argv[1], options).value().study_from_file(argv[2]).value();
        // The study keeps the callback.
        options.log = nullptr;
        if (!study.ask("Where is the left lung?") || lines.use_count() != 2) return 2;
    }
    for (const std::string &line : *lines) std::cout << line << "\n";
    return lines.use_count() == 1 ? 0 : 3;
}
"""


def test_cpp_receives_the_log(compiled, bundle, phantom_dicom, environment):
    lines = run([compiled(LOGGED), bundle, phantom_dicom], environment).splitlines()
    assert any(re.match(r"1 the bundle .* with ONNX Runtime 1\.", line) for line in lines), lines
    assert [line.split()[1] for line in lines if line.startswith("0 ")] == ["study", "answer"]


def test_cpp_fails_as_the_command_line_does(programs, bundle, tmp_path, environment):
    missing = tmp_path / "missing.dcm"
    done = subprocess.run([programs / "example", bundle, missing], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert str(missing) in done.stderr and done.stdout == ""


def test_the_readme_shows_the_program_that_is_compiled(root, programs, bundle, phantom_dicom, environment):
    source = (root / "examples/cpp/minimal.cpp").read_text()
    blocks = re.findall(r"^```cpp\n(.*?)^```", (root / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks, "README.md shows no C++"
    for block in blocks:
        assert block.strip() in source, "README.md shows C++ that is not in examples/cpp/minimal.cpp"
    assert run([programs / "minimal", bundle, phantom_dicom], environment).strip()
    alone = subprocess.run([programs / "minimal"], env=environment, capture_output=True, text=True, check=False)
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, "", "usage: minimal BUNDLE IMAGE\n")
