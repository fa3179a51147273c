// complete BUNDLE FOLDER IMAGE...
//
// Perceives radiographs and asks for their reports, on several threads that share one engine. For each image it writes into the folder:
//   NAME.json   the study and the answers, one JSON object a line, as `anatomix perceive --json` and `anatomix ask --json` print them
//   NAME.png    the radiograph with boxes
//   NAME.dcm    the DICOM structured report, if the image is a DICOM file
// The reports are printed one after the other; messages and progress go to standard error. Ctrl-C ends the program within a moment:
// opening, perceiving and answering are stopped. An image that fails does not affect the others; the exit code is then 1.

#include <anatomix.hpp>

#include <atomic>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace fs = std::filesystem;
using namespace anatomix;

static constexpr unsigned callers = 4;

// What Ctrl-C stops: calls that were given `calls`, and the answers of the studies that are open.
class Stopper {
public:
    explicit Stopper(CancelHandle handle) : calls(std::move(handle)), answers(callers) {}

    // The study that a caller asks from now on. An answer is stopped by the handle of its study.
    void asks(unsigned caller, std::optional<CancelHandle> answer) {
        const std::lock_guard<std::mutex> guard(mutex);
        if (answer && stopped) answer->cancel();
        answers[caller] = std::move(answer);
    }
    void stop() {
        const std::lock_guard<std::mutex> guard(mutex);
        stopped = true;
        calls.cancel();
        for (const auto &answer : answers) {
            if (answer) answer->cancel();
        }
    }

    const CancelHandle calls;
    std::atomic<bool> stopped{false};

private:
    std::mutex mutex;
    std::vector<std::optional<CancelHandle>> answers;
};

static std::mutex output;

static bool fail(const std::string &what, const Error &error) {
    const std::lock_guard<std::mutex> guard(output);
    std::fprintf(stderr, "%s: %s%s%s\n", what.c_str(), error.message.c_str(), error.cause.empty() ? "" : "; caused by: ",
                 error.cause.c_str());
    return false;
}

// std::ofstream gives a new file the permissions of the umask. Results hold patient data: a product sets umask(077) first.
template <class Bytes> static bool write(const fs::path &path, const Bytes &bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file.close();
    return file || fail(path.string(), {ANX_OUTPUT, "cannot be written; check the folder", {}});
}

// Everything for one image; false if something failed, which was said.
static bool read(const Engine &engine, const fs::path &image, const fs::path &folder, unsigned caller, Stopper &stopper) {
    const std::string name = image.string();
    PerceiveOptions perceiving;
    perceiving.deadline = std::chrono::minutes(5);
    perceiving.cancel = stopper.calls;
    perceiving.keep_radiograph = true; // for the overlay
    auto made = engine.study_from_file(name, perceiving);
    if (!made) return fail(name, made.error());
    Study study = std::move(made).value();

    auto handle = study.cancel_handle();
    if (!handle) return fail(name, handle.error());
    stopper.asks(caller, handle.value());
    AskOptions report;
    report.task = Task::report;
    report.deadline = std::chrono::minutes(5);
    std::string streamed;
    auto answer = study.ask({}, [&](std::string_view piece) {
        streamed += piece; // a user interface shows it here; the pieces add up to Answer::text
        return true;
    }, report);
    AskOptions lung;
    lung.deadline = std::chrono::minutes(5);
    auto second = answer ? study.ask("Where is the left lung?", {}, lung) : answer.error();
    stopper.asks(caller, std::nullopt);
    // A study that is flagged as no frontal chest radiograph is not asked (ANX_RADIOGRAPH_FLAGGED).
    if (!answer) return fail(name, answer.error());
    if (!second) return fail(name, second.error());
    for (const Answer *one : {&answer.value(), &second.value()}) {
        if (one->finish() != ANX_FINISH_END_OF_TURN) return fail(name, {ANX_STOPPED, "the answer is incomplete", {}});
    }

    const fs::path out = folder / image.stem();
    const auto named = [&](const char *ending) { return fs::path(out).concat(ending); };
    auto perceived = study.json(), asked = answer.value().json(), grounded = second.value().json();
    auto picture = study.overlay();
    if (!perceived || !asked || !grounded || !picture) return fail(name, {ANX_OUTPUT, "its results cannot be written", {}});
    bool good = write(named(".json"), perceived.value() + "\n" + asked.value() + "\n" + grounded.value() + "\n");
    good = write(named(".png"), picture.value()) && good;
    auto structured = study.structured_report({&answer.value(), &second.value()});
    if (structured) {
        good = write(named(".dcm"), structured.value()) && good;
    } else if (structured.error().code != ANX_OUTPUT) {
        // ANX_OUTPUT: the image is not a DICOM file, so there is no study in the archive that the report could belong to.
        good = fail(name, structured.error());
    }
    const std::lock_guard<std::mutex> guard(output);
    std::printf("%s\n%s\n\n", name.c_str(), streamed.c_str());
    return good;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: %s BUNDLE FOLDER IMAGE...\n", argv[0]);
        return 2;
    }
    // One thread waits for Ctrl-C; a signal handler could not call the library. The others inherit that they do not receive it.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1); // ends the thread
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    auto handle = CancelHandle::create();
    if (!handle) return fail("cancel handle", handle.error()), 1;
    Stopper stopper(handle.value());
    std::thread waiting([&] {
        int signal = 0;
        sigwait(&signals, &signal);
        if (signal == SIGINT) stopper.stop();
    });

    EngineOptions options;
    options.threads = 1; // callers compute side by side, each on its own core
    options.cancel = stopper.calls;
    options.log = [](anx_log_level level, std::string_view message) {
        const std::lock_guard<std::mutex> guard(output);
        if (level >= ANX_LOG_INFO) std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
    };
    options.progress = [](std::string_view phase, std::uint64_t done, std::uint64_t total) {
        if (done == total) std::fprintf(stderr, "%.*s: %" PRIu64 "\n", static_cast<int>(phase.size()), phase.data(), total);
    };
    std::atomic<bool> good{true};
    if (auto opened = Engine::open(argv[1], options)) {
        const Engine &engine = opened.value();
        std::atomic<int> next{3};
        std::vector<std::thread> threads;
        for (unsigned caller = 0; caller < callers; caller++) {
            threads.emplace_back([&, caller] {
                for (int i = next++; i < argc && !stopper.stopped; i = next++) {
                    if (!read(engine, argv[i], argv[2], caller, stopper)) good = false;
                }
            });
        }
        for (std::thread &thread : threads) thread.join();
    } else {
        good = fail(argv[1], opened.error());
    }
    pthread_kill(waiting.native_handle(), SIGUSR1);
    waiting.join();
    return good && !stopper.stopped ? 0 : 1;
}
