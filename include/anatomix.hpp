// AnatomiX for C++17: anatomix.h with ownership. Header-only, without exceptions or RTTI. Research use, not a medical
// device.
//
//     auto engine = anatomix::Engine::open("bundle").value();
//     auto study = engine.study_from_file("chest.dcm").value();
//     auto answer = study.ask("Is there a pleural effusion?").value();
//     for (const anatomix::Grounding &g : answer.groundings()) draw(g.phrase, g.boxes);
//
// Engine, Study and Answer own their handles: they move, they do not copy, they may be destroyed in any order, and one
// that was moved from is empty. Everything they return is a value of its own; nothing refers back to them. What may be
// shared between threads, what a call guarantees and what it costs stands in anatomix.h.

#ifndef ANATOMIX_HPP
#define ANATOMIX_HPP

#include "anatomix.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace anatomix {

// Why a call failed. The code is stable, the message is for people.
struct Error {
    anx_status code = ANX_OK;
    std::string message;
    std::string cause; // what lies beneath; often empty
};

// A value, or the error that came instead of it.
template <class T> class [[nodiscard]] Result {
public:
    Result(T value) : held_(std::move(value)) {}
    Result(Error error) : held_(std::move(error)) {}

    explicit operator bool() const { return std::holds_alternative<T>(held_); }

    // The value. Without one the program ends with the error's message, so ask first where failure is to be survived.
    T &value() & { return checked(held_); }
    const T &value() const & { return checked(held_); }
    T value() && { return std::move(checked(held_)); }

    // The error; ANX_OK and empty strings where there is a value.
    Error error() const {
        const Error *error = std::get_if<Error>(&held_);
        return error ? *error : Error{};
    }

private:
    template <class Held> static auto &checked(Held &held) {
        if (auto *value = std::get_if<T>(&held)) return *value;
        std::fprintf(stderr, "anatomix: %s\n", std::get_if<Error>(&held)->message.c_str());
        std::abort();
    }

    std::variant<T, Error> held_;
};

namespace detail {

template <auto Free> struct Deleter {
    template <class T> void operator()(T *handle) const { Free(handle); }
};
template <class T, auto Free> using Owned = std::unique_ptr<T, Deleter<Free>>;

inline std::size_t on_or_off(bool value) { return value ? ANX_ON : ANX_OFF; }

inline std::string text(const char *borrowed) { return borrowed ? borrowed : ""; }

inline Error take(anx_error *owned) {
    Owned<anx_error, anx_error_free> error(owned);
    return {anx_error_code(owned), text(anx_error_message(owned)), text(anx_error_cause(owned))};
}

// Everything that count and item give for a handle.
template <class Handle, class Item, class Convert>
auto collect(const Handle *handle, std::size_t (*count)(const Handle *), const Item *(*item)(const Handle *, std::size_t),
             Convert convert) {
    std::vector<decltype(convert(*item(handle, 0)))> all;
    all.reserve(count(handle));
    for (std::size_t i = 0; i < count(handle); i++) all.push_back(convert(*item(handle, i)));
    return all;
}

} // namespace detail

// A box in pixels of the original image: x0, y0, x1, y1.
using Box = anx_box;

// An anatomical structure with its place and the most similar sentence of the bundle's database.
struct Structure {
    std::uint32_t index; // 0 to 35, the same in every bundle
    std::string name;    // left and right are the patient's
    Box bounds;
    std::string sentence;
    float similarity; // cosine, -1 to 1; not calibrated
    float margin;     // to the next sentence
};

// An image label; the score, 0 to 1, is not calibrated.
struct Label {
    std::string name;
    float score;
};

// Something that speaks against trusting a result.
struct Flag {
    std::string code; // a stable name, such as "mirrored"
    anx_severity severity;
    std::string message;
};

// A phrase of an answer with its places.
struct Grounding {
    std::string phrase;
    std::vector<Box> boxes;
};

// How long a step took.
struct Timing {
    std::string step;
    double milliseconds;
};

// Where a result comes from; see anx_provenance.
struct Provenance {
    std::string sdk, bundle, bundle_sha256, provider, precision, input_sha256, decoding, scores, intended_use,
        onnx_runtime;
};

namespace detail {

inline Structure structure(const anx_structure &s) {
    return {s.index, text(s.name), s.bounds, text(s.sentence), s.similarity, s.margin};
}
inline Label label(const anx_label &l) { return {text(l.name), l.score}; }
inline Flag flag(const anx_flag &f) { return {text(f.code), f.severity, text(f.message)}; }
inline Timing timing(const anx_timing &t) { return {text(t.step), t.milliseconds}; }
inline Grounding grounding(const anx_grounding &g) {
    return {text(g.phrase), std::vector<Box>(g.boxes, g.boxes + g.box_count)};
}
inline Provenance provenance(const anx_provenance *p) {
    if (!p) return {};
    return {text(p->sdk),          text(p->bundle),   text(p->bundle_sha256), text(p->provider),    text(p->precision),
            text(p->input_sha256), text(p->decoding), text(p->scores),        text(p->intended_use),
            text(p->onnx_runtime)};
}

} // namespace detail

// The nine tasks.
enum class Task {
    report,
    classification,
    abnormality_detection,
    phrase_grounding,
    anatomy_grounding,
    grounded_diagnosis,
    grounded_captioning,
    open_question,
    closed_question,
};

// A task's name, as the command line and the C interface have it.
constexpr const char *name(Task task) {
    constexpr const char *names[] = {"report",
                                     "classification",
                                     "abnormality_detection",
                                     "phrase_grounding",
                                     "anatomy_grounding",
                                     "grounded_diagnosis",
                                     "grounded_captioning",
                                     "open_question",
                                     "closed_question"};
    return names[static_cast<std::size_t>(task)];
}

// Receives an answer piece by piece as it is decoded; returns whether to go on. It must not throw.
using Callback = std::function<bool(std::string_view piece)>;

// What may be said with a question.
struct AskOptions {
    std::optional<Task> task;   // makes answers more reliable where it is known
    std::size_t max_tokens = 0; // 0: the default
    double temperature = 0;     // 0 takes the most likely token, always; 1 draws as likely as the model says
    std::size_t top_k = 0;      // draws among so many of the most likely tokens; 0: among all
    double top_p = 1;           // draws among the fewest most likely tokens that are this probable together
    double repetition_penalty = 1;
    std::uint64_t seed = 0; // equal seeds draw equal answers
    std::vector<std::string> stop; // texts that end the answer, and are left out
    std::chrono::milliseconds deadline{0}; // ends the answer as far as it has come; 0: never
    bool log_probabilities = false;        // see Answer::log_probabilities
    bool follow_up = false;                // continues the study's conversation
    std::string json_schema;    // the answer is JSON that meets it, see anx_ask_options; empty: text with groundings
    bool unconstrained = false; // the answer may be anything; else groundings are well formed
    bool accept_flags = false;  // asks even what is flagged "not_chest" or "not_frontal"; else that is ANX_RADIOGRAPH_FLAGGED
};

// One of several questions that are asked at once.
struct Question {
    std::string text; // may be empty for a task that needs no question
    AskOptions options = {};
    Callback on_piece = {}; // receives its answer
};

// What the language model said, and where.
class Answer {
public:
    // Readable text, without tags and coordinates.
    std::string text() const { return detail::text(anx_answer_text(handle_.get())); }
    // As the model wrote it: with tags, and with boxes on a grid of 1024 over the padded square, not in pixels.
    std::string raw() const { return detail::text(anx_answer_raw(handle_.get())); }
    std::string question() const { return detail::text(anx_answer_question(handle_.get())); }
    // The name of the question's task; empty where none was named.
    std::string task() const { return detail::text(anx_answer_task(handle_.get())); }
    std::vector<Grounding> groundings() const {
        return detail::collect(handle_.get(), anx_answer_grounding_count, anx_answer_grounding, detail::grounding);
    }
    std::size_t tokens() const { return anx_answer_tokens(handle_.get()); }
    // Tokens computed before the first of these, and runs of the model that these took.
    std::size_t prefilled() const { return anx_answer_prefilled(handle_.get()); }
    std::size_t runs() const { return anx_answer_runs(handle_.get()); }
    // Natural logarithms of the tokens' probabilities; empty unless the options asked for them. Not calibrated.
    std::vector<float> log_probabilities() const {
        const float *values = anx_answer_log_probabilities(handle_.get());
        return values ? std::vector<float>(values, values + tokens()) : std::vector<float>();
    }
    anx_finish finish() const { return anx_answer_finish(handle_.get()); }
    std::vector<Flag> flags() const {
        return detail::collect(handle_.get(), anx_answer_flag_count, anx_answer_flag, detail::flag);
    }
    std::vector<Timing> timing() const {
        return detail::collect(handle_.get(), anx_answer_timing_count, anx_answer_timing, detail::timing);
    }
    Provenance provenance() const { return detail::provenance(anx_answer_provenance(handle_.get())); }
    // The C handle, still owned by this object.
    const anx_answer *get() const { return handle_.get(); }

private:
    friend class Study;
    explicit Answer(anx_answer *handle) : handle_(handle) {}
    detail::Owned<anx_answer, anx_answer_free> handle_;
};

// Stops a study's running answer from any thread. Copies stop the same study.
class CancelHandle {
public:
    void cancel() const { anx_cancel_request(handle_.get()); }

private:
    friend class Study;
    explicit CancelHandle(anx_cancel *handle) : handle_(handle, anx_cancel_free) {}
    std::shared_ptr<anx_cancel> handle_;
};

// One radiograph, perceived. Asked by one thread at a time.
class Study {
public:
    std::string name() const { return detail::text(anx_study_name(handle_.get())); }
    std::uint32_t width() const { return anx_study_width(handle_.get()); }
    std::uint32_t height() const { return anx_study_height(handle_.get()); }
    // The 36 structures in index order.
    std::vector<Structure> structures() const {
        return detail::collect(handle_.get(), anx_study_structure_count, anx_study_structure, detail::structure);
    }
    // The 14 image labels in index order.
    std::vector<Label> labels() const {
        return detail::collect(handle_.get(), anx_study_label_count, anx_study_label, detail::label);
    }
    std::vector<Flag> flags() const {
        return detail::collect(handle_.get(), anx_study_flag_count, anx_study_flag, detail::flag);
    }
    std::vector<Timing> timing() const {
        return detail::collect(handle_.get(), anx_study_timing_count, anx_study_timing, detail::timing);
    }
    Provenance provenance() const { return detail::provenance(anx_study_provenance(handle_.get())); }

    // Asks a question and waits for the answer, which on_piece receives as it is decoded. A region in the question is
    // <box>(x0,y0),(x1,y1)</box> in pixels of the original image.
    Result<Answer> ask(const std::string &question, const Callback &on_piece = {}, AskOptions options = {}) {
        std::vector<const char *> stop;
        const anx_ask_options raw = lower(options, on_piece, stop);
        anx_answer *answer = nullptr;
        anx_error *error = nullptr;
        if (anx_study_ask(handle_.get(), question.c_str(), &raw, &answer, &error) != ANX_OK) return detail::take(error);
        return Answer(answer);
    }

    // Asks several questions at once: they are decoded together, so that each costs little more than its own tokens. Greedy
    // answers are those of ask. Either all are follow-ups or none is.
    Result<std::vector<Answer>> ask_many(const std::vector<Question> &questions) {
        const std::size_t count = questions.size();
        std::vector<const char *> texts;
        std::vector<std::vector<const char *>> stops(count);
        std::vector<anx_ask_options> options;
        std::vector<const anx_ask_options *> given;
        options.reserve(count);
        for (std::size_t i = 0; i < count; i++) {
            texts.push_back(questions[i].text.c_str());
            options.push_back(lower(questions[i].options, questions[i].on_piece, stops[i]));
            given.push_back(&options[i]);
        }
        std::vector<anx_answer *> raw(count);
        anx_error *error = nullptr;
        if (anx_study_ask_many(handle_.get(), texts.data(), given.data(), count, raw.data(), &error) != ANX_OK) {
            return detail::take(error);
        }
        std::vector<Answer> answers;
        for (anx_answer *one : raw) answers.push_back(Answer(one));
        return answers;
    }

    // Sets a task that needs no question: a report, a classification, the detection of abnormalities.
    Result<Answer> ask_task(Task task, const Callback &on_piece = {}, std::size_t max_tokens = 0) {
        AskOptions options;
        options.task = task;
        options.max_tokens = max_tokens;
        return ask({}, on_piece, options);
    }

    // How many questions the conversation holds.
    std::size_t turns() const { return anx_study_turns(handle_.get()); }

    // Forgets all of the conversation but its first turns; a follow-up goes on from there.
    Error rewind(std::size_t turns) {
        anx_error *error = nullptr;
        if (anx_study_rewind(handle_.get(), turns, &error) != ANX_OK) return detail::take(error);
        return {};
    }

    // The study with everything that was computed of it, for Engine::load_study.
    Result<std::vector<std::uint8_t>> save() {
        anx_bytes *raw = nullptr;
        anx_error *error = nullptr;
        if (anx_study_save(handle_.get(), &raw, &error) != ANX_OK) return detail::take(error);
        detail::Owned<anx_bytes, anx_bytes_free> bytes(raw);
        return std::vector<std::uint8_t>(anx_bytes_data(raw), anx_bytes_data(raw) + anx_bytes_size(raw));
    }

    Result<CancelHandle> cancel_handle() const {
        anx_cancel *cancel = nullptr;
        anx_error *error = nullptr;
        if (anx_study_cancel_handle(handle_.get(), &cancel, &error) != ANX_OK) return detail::take(error);
        return CancelHandle(cancel);
    }

    // The C handle, still owned by this object.
    anx_study *get() const { return handle_.get(); }

private:
    friend class Engine;
    explicit Study(anx_study *handle) : handle_(handle) {}

    // An exception must not pass through the library: noexcept ends the program instead.
    static int forward(const char *piece, std::size_t length, void *user_data) noexcept {
        return (*static_cast<const Callback *>(user_data))({piece, length}) ? ANX_CONTINUE : ANX_STOP;
    }

    // The options as C has them; they borrow all of this, and the pointers in stop.
    static anx_ask_options lower(const AskOptions &options, const Callback &on_piece, std::vector<const char *> &stop) {
        anx_ask_options raw = {};
        raw.struct_size = sizeof raw;
        raw.task = options.task ? anatomix::name(*options.task) : nullptr;
        raw.max_tokens = options.max_tokens;
        raw.callback = on_piece ? forward : nullptr;
        raw.user_data = const_cast<Callback *>(&on_piece);
        raw.temperature = options.temperature;
        raw.top_k = options.top_k;
        raw.top_p = options.top_p;
        raw.repetition_penalty = options.repetition_penalty;
        raw.seed = options.seed;
        for (const std::string &text : options.stop) stop.push_back(text.c_str());
        raw.stop = stop.data();
        raw.stop_count = stop.size();
        raw.deadline_ms = static_cast<std::size_t>(std::max<std::chrono::milliseconds::rep>(options.deadline.count(), 0));
        raw.log_probabilities = detail::on_or_off(options.log_probabilities);
        raw.follow_up = detail::on_or_off(options.follow_up);
        raw.json_schema = options.json_schema.empty() ? nullptr : options.json_schema.c_str();
        raw.unconstrained = detail::on_or_off(options.unconstrained);
        raw.accept_flags = detail::on_or_off(options.accept_flags);
        return raw;
    }

    detail::Owned<anx_study, anx_study_free> handle_;
};

// Receives what an engine does, one line a call; see anx_log_callback. Any thread may call it, also several at once, until the engine and
// the last of its studies are gone. It must not throw.
using LogCallback = std::function<void(anx_log_level level, std::string_view message)>;

// How an engine is opened. Empty strings and zeros are the defaults.
struct EngineOptions {
    std::string provider;    // "auto", "cpu", "cuda[:N]", "tensorrt[:N]"
    std::size_t threads = 0; // on the CPU; 0: all cores
    std::string library;     // path of ONNX Runtime's library
    std::size_t memory_limit = 0; // bytes that the KV caches of all studies may take together; 0: no limit
    bool golden_check = true;     // false: only for a bundle that was opened before on this machine
    bool look_up = true;          // prompt look-up decoding; the answers are the same without it
    LogCallback log;              // receives messages about what the engine does
};

// Grey pixels row by row from the top, 0 (black) to the type's largest value (white); width * height of them.
template <class Pixel> struct Image {
    std::uint32_t width, height;
    std::vector<Pixel> pixels;
};

// An opened bundle on a provider. Threads may share it.
class Engine {
public:
    static Result<Engine> open(const std::string &bundle, const EngineOptions &options = {}) {
        if (anx_abi_version() < ANX_ABI_VERSION) {
            return Error{ANX_INVALID_ARGUMENT, "libanatomix.so " + detail::text(anx_version()) +
                         " is older than the header this program was built with; install the newer one", {}};
        }
        anx_engine_options raw = {};
        raw.struct_size = sizeof raw;
        raw.provider = options.provider.empty() ? nullptr : options.provider.c_str();
        raw.threads = options.threads;
        raw.library = options.library.empty() ? nullptr : options.library.c_str();
        raw.memory_limit = options.memory_limit;
        raw.golden_check = detail::on_or_off(options.golden_check);
        raw.look_up = detail::on_or_off(options.look_up);
        if (options.log) {
            raw.log = forward;
            raw.log_user_data = new LogCallback(options.log);
            raw.log_free = [](void *user_data) noexcept { delete static_cast<LogCallback *>(user_data); };
        }
        anx_engine *engine = nullptr;
        anx_error *error = nullptr;
        if (anx_engine_open(bundle.c_str(), &raw, &engine, &error) != ANX_OK) return detail::take(error);
        return Engine(engine);
    }

    // A DICOM, PNG or JPEG file.
    Result<Study> study_from_file(const std::string &path) const {
        return make([&](auto... out) { return anx_study_from_file(handle_.get(), path.c_str(), out...); });
    }

    // Such a file in memory; name stands for it in messages.
    Result<Study> study_from_bytes(const std::uint8_t *bytes, std::size_t size, const std::string &name = "bytes") const {
        return make([&](auto... out) { return anx_study_from_bytes(handle_.get(), bytes, size, name.c_str(), out...); });
    }

    // Grey pixels row by row, 0 (black) to 255 (white); width * height of them.
    Result<Study> study_from_pixels(std::uint32_t width, std::uint32_t height, const std::vector<std::uint8_t> &pixels) const {
        return make([&](auto... out) {
            return anx_study_from_pixels_u8(handle_.get(), width, height, pixels.data(), pixels.size(), out...);
        });
    }

    // Grey pixels row by row, 0 (black) to 65535 (white); width * height of them.
    Result<Study> study_from_pixels(std::uint32_t width, std::uint32_t height, const std::vector<std::uint16_t> &pixels) const {
        return make([&](auto... out) {
            return anx_study_from_pixels_u16(handle_.get(), width, height, pixels.data(), pixels.size(), out...);
        });
    }

    // A study from what Study::save gave.
    Result<Study> load_study(const std::vector<std::uint8_t> &bytes) const {
        return make([&](auto... out) { return anx_study_load(handle_.get(), bytes.data(), bytes.size(), out...); });
    }

    // Opens several files and perceives them together, which may be faster: for each path, in order, a study or why there is none.
    // One that fails takes nothing from the others.
    std::vector<Result<Study>> studies_from_files(const std::vector<std::string> &paths) const {
        std::vector<const char *> raw;
        for (const std::string &path : paths) raw.push_back(path.c_str());
        return make_several(raw, anx_studies_from_files);
    }

    // Such files in memory.
    std::vector<Result<Study>> studies_from_bytes(const std::vector<std::vector<std::uint8_t>> &files) const {
        std::vector<anx_file> raw;
        for (const std::vector<std::uint8_t> &file : files) raw.push_back(anx_file{file.data(), file.size(), nullptr});
        return make_several(raw, anx_studies_from_bytes);
    }

    // Images in memory: one pixel is std::uint8_t or std::uint16_t.
    template <class Pixel> std::vector<Result<Study>> studies_from_pixels(const std::vector<Image<Pixel>> &images) const {
        static_assert(std::is_same_v<Pixel, std::uint8_t> || std::is_same_v<Pixel, std::uint16_t>);
        std::vector<anx_pixels> raw;
        for (const Image<Pixel> &image : images) {
            raw.push_back(anx_pixels{image.pixels.data(), image.pixels.size(), image.width, image.height, 8 * sizeof(Pixel)});
        }
        return make_several(raw, anx_studies_from_pixels);
    }

    // Bytes that a study with so many computed tokens takes.
    std::size_t study_bytes(std::size_t tokens) const { return anx_engine_study_bytes(handle_.get(), tokens); }

    std::string bundle_name() const { return detail::text(anx_engine_bundle_name(handle_.get())); }
    std::string bundle_sha256() const { return detail::text(anx_engine_bundle_sha256(handle_.get())); }
    // The provider that it computes on, never "auto".
    std::string provider() const { return detail::text(anx_engine_provider(handle_.get())); }
    // Notes on where graphs are computed, a line each: why "auto" settled on it, whether the bundle was checked on such a processor.
    std::vector<std::string> notes() const {
        std::vector<std::string> all;
        for (std::size_t i = 0; i < anx_engine_note_count(handle_.get()); i++) {
            all.push_back(detail::text(anx_engine_note(handle_.get(), i)));
        }
        return all;
    }
    // The C handle, still owned by this object.
    anx_engine *get() const { return handle_.get(); }

private:
    explicit Engine(anx_engine *handle) : handle_(handle) {}

    // An exception must not pass through the library: noexcept ends the program instead.
    static void forward(anx_log_level level, const char *message, std::size_t length, void *user_data) noexcept {
        (*static_cast<const LogCallback *>(user_data))(level, {message, length});
    }

    template <class Call> static Result<Study> make(Call call) {
        anx_study *study = nullptr;
        anx_error *error = nullptr;
        if (call(&study, &error) != ANX_OK) return detail::take(error);
        return Study(study);
    }

    template <class Source, class Call> std::vector<Result<Study>> make_several(const std::vector<Source> &sources, Call call) const {
        std::vector<anx_study *> made(sources.size());
        std::vector<anx_error *> failed(sources.size());
        anx_error *error = nullptr;
        call(handle_.get(), sources.data(), sources.size(), made.data(), failed.data(), &error);
        const Error whole = detail::take(error);
        std::vector<Result<Study>> outcomes;
        outcomes.reserve(sources.size());
        for (std::size_t i = 0; i < sources.size(); i++) {
            if (made[i]) {
                outcomes.push_back(Study(made[i]));
            } else {
                // Without a reason of its own, the call as a whole failed.
                outcomes.push_back(failed[i] ? detail::take(failed[i]) : whole);
            }
        }
        return outcomes;
    }

    detail::Owned<anx_engine, anx_engine_free> handle_;
};

} // namespace anatomix

#endif // ANATOMIX_HPP
