"""Eight threads of a C++ program on one engine, under ThreadSanitizer.

The C++ side is instrumented: the program and the classes of anatomix.hpp. The library is not, because stable Rust has no ThreadSanitizer;
neither is ONNX Runtime. So what is found are races between the threads of the program in memory that C++ code reads or writes: handles and
what is borrowed from them, results, callbacks with their user data. What the library does inside is left to Rust's type system and to the
tests of the SDK.
"""

import subprocess

from native import run

THREAD_SANITIZER = ["-fsanitize=thread", "-O1", "-g", "-pthread"]
# What the uninstrumented libraries do with memory (memcpy, free) is not looked at: their locks are not seen either.
OPTIONS = "halt_on_error=1:exitcode=66:ignore_noninstrumented_modules=1"

RACE = r"""
#include <thread>
int shared;
int main() {
    std::thread other([] { shared++; });
    shared++;
    other.join();
}
"""

THREADS = r"""
#include <anatomix.hpp>
#include <atomic>
#include <iostream>
#include <mutex>
#include <thread>

using namespace anatomix;

static const char *const questions[] = {"Where is the left lung?", "Is there a pleural effusion?"};

int main(int, char **argv) {
    std::atomic<unsigned> logged{0}, stopped{0}, busy{0};
    EngineOptions options;
    options.provider = "cpu";
    options.threads = 1;
    options.log = [&logged](anx_log_level, std::string_view message) { logged += message.size() > 0; };
    auto opened = Engine::open(argv[1], options);
    if (!opened) return 1;
    Engine engine = std::move(opened).value();
    const std::string path = argv[2];

    // One study that all threads read, and that some of them ask.
    auto shared = engine.study_from_file(path);
    if (!shared) return 2;
    Study &common = shared.value();
    const std::string first = common.structures().at(11).sentence;
    // The newest cancel handle of each thread, which its neighbour uses.
    std::mutex mutex;
    std::vector<std::optional<CancelHandle>> handles(8);
    std::string answers[8];
    std::atomic<int> wrong{0};

    const auto work = [&](std::size_t self) {
        for (int round = 0; round < 2; round++) {
            // Perceive and ask.
            auto made = engine.study_from_file(path);
            if (!made) return void(wrong = 10);
            Study study = std::move(made).value();
            auto answer = study.ask(questions[self % 2]);
            if (!answer) return void(wrong = 11);
            answers[self] = answer.value().text();
            if (study.json().value().empty() || answer.value().json().value().empty()) return void(wrong = 12);

            // A long answer that another thread cancels, or that ends with its deadline.
            {
                const std::lock_guard<std::mutex> guard(mutex);
                handles[self] = study.cancel_handle().value();
            }
            AskOptions endless;
            endless.unconstrained = true;
            endless.temperature = 100;
            endless.max_tokens = 100000;
            endless.deadline = std::chrono::seconds(2);
            std::size_t pieces = 0;
            auto cut = study.ask("Describe.", [&](std::string_view) {
                if (++pieces % 20 == 0) {
                    const std::lock_guard<std::mutex> guard(mutex);
                    if (const auto &neighbour = handles[(self + 1) % 8]) neighbour->cancel();
                }
                return true;
            }, endless);
            if (!cut || cut.value().finish() == ANX_FINISH_MAX_TOKENS) return void(wrong = 13);
            stopped += cut.value().finish() == ANX_FINISH_STOPPED;
            {
                const std::lock_guard<std::mutex> guard(mutex);
                handles[self].reset();
            }
            // A request that came after the answer is not meant for what follows.
            study.cancel_handle().value().reset();

            // Save and restore.
            auto saved = study.save();
            if (!saved) return void(wrong = 14);
            auto loaded = engine.load_study(saved.value());
            if (!loaded || loaded.value().structures().at(11).sentence != first) return void(wrong = 15);

            // Errors, each of them owned.
            if (engine.study_from_file("no such file").error().code != ANX_RADIOGRAPH_READ) return void(wrong = 16);
            if (study.ask(" ").error().message.empty()) return void(wrong = 17);
            if (engine.load_study({1, 2, 3}).error().code != ANX_SAVED) return void(wrong = 18);
            PerceiveOptions late;
            late.deadline = std::chrono::milliseconds(1);
            if (engine.study_from_file(path, late).error().code != ANX_DEADLINE) return void(wrong = 19);

            // The common study: read at any time, asked by one at a time.
            if (common.structures().at(11).sentence != first || common.json().value().empty()) return void(wrong = 20);
            auto asked = common.ask(questions[0]);
            if (!asked && asked.error().code != ANX_BUSY) return void(wrong = 21);
            busy += !asked;
            if (engine.notes().empty() != engine.notes().empty() || engine.provider() != "cpu") return void(wrong = 22);
        }
    };
    std::vector<std::thread> threads;
    for (std::size_t self = 0; self < 8; self++) threads.emplace_back(work, self);
    for (std::thread &thread : threads) thread.join();
    for (std::size_t self = 2; self < 8; self++) {
        if (answers[self] != answers[self % 2]) return 3;
    }
    std::cout << stopped << " stopped, " << busy << " busy, " << logged << " logged\n";
    return wrong;
}
"""

# Two threads make every document and picture of a study again and again, while a third asks it.
READERS = r"""
#include <anatomix.hpp>
#include <atomic>
#include <iostream>
#include <thread>

using namespace anatomix;

int main(int, char **argv) {
    EngineOptions options;
    options.provider = "cpu";
    options.threads = 1;
    auto opened = Engine::open(argv[1], options);
    if (!opened) return 1;
    PerceiveOptions kept;
    kept.keep_radiograph = true;
    auto made = opened.value().study_from_file(argv[2], kept);
    if (!made) return 2;
    Study &study = made.value();
    std::atomic<bool> asking{true};
    std::atomic<int> ready{0}, failed{0};
    const auto read = [&] {
        const auto document = [&](const auto &result) {
            if (!result) std::cerr << result.error().message << "\n";
            failed += !result;
        };
        do {
            document(study.json());
            document(study.structured_report());
            document(study.presentation_state());
            document(study.fhir());
            document(study.overlay());
            document(study.secondary_capture());
            ready++;
        } while (asking && !failed);
    };
    std::thread first(read), second(read);
    // An answer is counted only if both threads read during it.
    int answers = 0;
    for (int round = 0; round < 5 && !failed; round++) {
        const int before = ready;
        do {
            auto answer = study.ask("Where is the left lung?");
            if (!answer) std::cerr << answer.error().message << "\n";
            failed += !answer;
            answers++;
        } while (ready < before + 2 && !failed);
    }
    asking = false;
    first.join();
    second.join();
    return failed || answers < 5 ? 3 : 0;
}
"""


def test_eight_threads_on_one_engine(compiled, bundle, phantom_dicom, environment):
    program = compiled(THREADS, "-fno-exceptions", "-fno-rtti", sanitizers=THREAD_SANITIZER)
    output = run([program, bundle, phantom_dicom], {**environment, "TSAN_OPTIONS": OPTIONS})
    assert int(output.split()[0]) > 0, f"no answer was cancelled by another thread: {output}"


def test_readers_do_not_make_an_ask_fail(compiled, bundle, phantom_dicom, environment):
    program = compiled(READERS, "-fno-exceptions", "-fno-rtti", sanitizers=THREAD_SANITIZER)
    run([program, bundle, phantom_dicom], {**environment, "TSAN_OPTIONS": OPTIONS})


def test_thread_sanitizer_sees_a_race(tmp_path, environment):
    """The program above would fail if its threads raced: this one does."""
    source, program = tmp_path / "race.cpp", tmp_path / "race"
    source.write_text(RACE)
    run(["g++", "-std=c++17", *THREAD_SANITIZER, source, "-o", program])
    done = subprocess.run([program], capture_output=True, text=True, env={**environment, "TSAN_OPTIONS": OPTIONS}, check=False)
    assert done.returncode == 66 and "data race" in done.stderr, done.stderr
