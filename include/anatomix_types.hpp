// Values of the C++ classes in anatomix.hpp, which includes this file: errors, results, options.

#ifndef ANATOMIX_TYPES_HPP
#define ANATOMIX_TYPES_HPP

#include "anatomix.h"

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
#include <utility>
#include <variant>
#include <vector>

namespace anatomix {

// Why a call failed. The code is stable, the message is for people.
struct Error {
    anx_status code = ANX_OK;
    std::string message;
    std::string cause; // what ONNX Runtime, a parser or the operating system said; often empty
};

// A value, or the error of the call that should have returned it.
template <class T> class [[nodiscard]] Result {
public:
    Result(T value) : held_(std::move(value)) {}
    Result(Error error) : held_(std::move(error)) {}

    explicit operator bool() const { return std::holds_alternative<T>(held_); }

    // The value. If there is none, this prints the error and aborts the program, so check with `if (result)` first.
    T &value() & { return checked(held_); }
    const T &value() const & { return checked(held_); }
    T value() && { return std::move(checked(held_)); }

    // The error; ANX_OK and empty strings if there is a value.
    Error error() const {
        const Error *error = std::get_if<Error>(&held_);
        return error ? *error : Error{};
    }

private:
    template <class Held> static auto &checked(Held &held) {
        if (auto *value = std::get_if<T>(&held)) return *value;
        const Error &error = *std::get_if<Error>(&held);
        std::fprintf(stderr, "anatomix: %s%s%s\n", error.message.c_str(), error.cause.empty() ? "" : "; caused by: ", error.cause.c_str());
        std::abort();
    }

    std::variant<T, Error> held_;
};

namespace detail {

template <auto Free> struct Deleter {
    template <class T> void operator()(T *handle) const { Free(handle); }
};
template <class T, auto Free> using Owned = std::unique_ptr<T, Deleter<Free>>;

inline std::size_t on_or_off(bool value) { return value ? ANX_SWITCH_ON : ANX_SWITCH_OFF; }

// A time that is over already, such as the rest until a point in the past, is the shortest one; 0 means none.
inline std::size_t milliseconds(std::chrono::milliseconds time) {
    return time.count() < 0 ? 1 : static_cast<std::size_t>(time.count());
}

// In C a string ends at its first NUL character, so the rest of such a text would be lost.
inline bool is_cut(const std::string &text) { return text.find('\0') != std::string::npos; }

inline Error cut(const char *argument) {
    return {ANX_INVALID_ARGUMENT, std::string("the argument ") + argument + " holds a NUL character; remove it", {}};
}

inline std::string text(const char *borrowed) { return borrowed ? borrowed : ""; }

inline Error old_library() {
    return {ANX_INVALID_ARGUMENT,
            "libanatomix.so " + text(anx_version()) + " is older than the header this program was built with; install the newer one",
            {}};
}

using Bytes = std::vector<std::uint8_t>;

inline Error take(anx_error *owned) {
    Owned<anx_error, anx_error_free> error(owned);
    return {anx_error_code(owned), text(anx_error_message(owned)), text(anx_error_cause(owned))};
}

// The bytes that a call gives.
template <class Call> Result<Bytes> bytes(Call call) {
    anx_bytes *raw = nullptr;
    anx_error *error = nullptr;
    if (call(&raw, &error) != ANX_OK) return take(error);
    Owned<anx_bytes, anx_bytes_free> owned(raw);
    return Bytes(anx_bytes_data(raw), anx_bytes_data(raw) + anx_bytes_size(raw));
}

// The text that a call gives as bytes.
template <class Call> Result<std::string> json(Call call) {
    Result<Bytes> given = bytes(call);
    if (!given) return given.error();
    return std::string(given.value().begin(), given.value().end());
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

// An anatomical structure with its bounding box and the most similar sentence of the bundle's database.
struct Structure {
    std::size_t index; // 0 to 35, the same in every bundle
    std::string name;    // left and right are the patient's
    Box bounds;
    std::string sentence;
    float similarity; // cosine, -1 to 1; not calibrated
    float margin;     // similarity minus that of the second-best sentence; similarity + 1 if there is a single sentence
};

// An image label; the score, 0 to 1, is not calibrated.
struct Label {
    std::string name;
    float score;
};

// A reason not to trust a result.
struct Flag {
    std::string code; // a stable name, such as "mirrored"
    anx_severity severity;
    std::string message;
};

// A phrase of an answer with its bounding boxes.
struct Grounding {
    std::string phrase;
    std::vector<Box> boxes;
};

// A structure whose retrieved sentence, or box, speaks for or against a sentence of an answer; see anx_structure_evidence.
struct StructureEvidence {
    std::size_t index; // of the structure, 0 to 35
    std::string name;
    anx_relation relation;
    float similarity, margin; // as in Structure; not calibrated
    Box bounds;
};

// Where a sentence of an answer comes from; see anx_evidence. It compares the answer with what was perceived, not with the question.
struct Evidence {
    std::string sentence;
    std::size_t start, end; // in the answer's text, in bytes
    anx_support support;
    std::vector<StructureEvidence> structures;
    std::vector<std::size_t> groundings; // indices in Answer::groundings()
    float probability;                   // mean of its tokens, not calibrated; see anx_evidence.probability
};

// The time of a step.
struct Timing {
    std::string step;
    double milliseconds;
};

// Versions, settings and hashes that a result depends on; see anx_provenance.
struct Provenance {
    std::string sdk, bundle, bundle_sha256, provider, precision, input_sha256, decoding, scores, intended_use,
        onnx_runtime;
    // Of a DICOM file, as its header has them; empty if it does not.
    std::string window, burned_in_annotation, lossy_image_compression, lossy_image_compression_ratio, lossy_image_compression_method;
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
inline StructureEvidence structure_evidence(const anx_structure_evidence &e) {
    return {e.index, text(e.name), e.relation, e.similarity, e.margin, e.bounds};
}
inline Evidence evidence(const anx_evidence &e) {
    Evidence made = {text(e.sentence), e.start, e.end, e.support, {}, {}, e.probability};
    for (std::size_t i = 0; i < e.structure_count; i++) made.structures.push_back(structure_evidence(e.structures[i]));
    made.groundings.assign(e.groundings, e.groundings + e.grounding_count);
    return made;
}
inline Provenance provenance(const anx_provenance *p) {
    if (!p) return {};
    return {text(p->sdk),          text(p->bundle),   text(p->bundle_sha256), text(p->provider),    text(p->precision),
            text(p->input_sha256), text(p->decoding), text(p->scores),        text(p->intended_use),
            text(p->onnx_runtime), text(p->window),  text(p->burned_in_annotation),
            text(p->lossy_image_compression), text(p->lossy_image_compression_ratio), text(p->lossy_image_compression_method)};
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

// Receives an answer piece by piece as it is decoded; returns whether to continue. It must not throw.
using PieceCallback = std::function<bool(std::string_view piece)>;

// Options of a question; see anx_ask_options.
struct AskOptions {
    std::optional<Task> task;   // what kind of question it is; see anx_ask_options.task
    std::size_t max_tokens = 0; // 0: the default
    double temperature = 0;     // 0: greedy; 1: samples by the model's probabilities
    std::size_t top_k = 0;      // samples among this many of the most likely tokens; 0: all
    double top_p = 1;           // samples among the smallest set of likely tokens whose probabilities sum to at least this
    double repetition_penalty = 1;
    std::uint64_t seed = 0; // equal seeds give equal answers
    std::vector<std::string> stop; // stop texts: the answer ends before the first of them
    // Ends the answer with the tokens decoded so far. 0 means no deadline. If you compute a remaining time, pass at least 1 ms.
    std::chrono::milliseconds deadline{0};
    bool log_probabilities = false;        // see Answer::log_probabilities
    bool follow_up = false;                // continues the study's conversation
    std::string json_schema;    // constrains the answer to JSON that conforms to it; empty: text with groundings
    bool unconstrained = false; // groundings may be malformed
    bool accept_flags = false;  // asks even if the study is flagged "not_chest", "not_frontal" or "for_processing"
};

// One of several questions that are asked at once.
struct Question {
    std::string text; // may be empty for a task that needs no question
    AskOptions options = {};
    PieceCallback on_piece = {}; // receives its answer
};

// Stops calls from any thread. Copies stop the same calls.
class CancelHandle {
public:
    // A handle for PerceiveOptions::cancel and EngineOptions::cancel. That of an answer comes from Study::cancel_handle.
    static Result<CancelHandle> create() {
        anx_cancel *cancel = nullptr;
        anx_error *error = nullptr;
        if (anx_cancel_new(&cancel, &error) != ANX_OK) return detail::take(error);
        return CancelHandle(cancel);
    }

    // Stops the calls of this handle: of a study's the one that is running or else the next one, of another all until reset.
    void cancel() const { anx_cancel_request(handle_.get()); }
    // Withdraws a pending request. It does not resume calls that were already stopped.
    void reset() const { anx_cancel_reset(handle_.get()); }
    // The C handle, still owned by this object.
    const anx_cancel *get() const { return handle_.get(); }

private:
    friend class Study;
    explicit CancelHandle(anx_cancel *handle) : handle_(handle, anx_cancel_free) {}
    std::shared_ptr<anx_cancel> handle_;
};

// Receives how far a call has come, by one thread at a time; see anx_progress_callback for the phases. It must not throw.
using ProgressCallback = std::function<void(std::string_view phase, std::uint64_t done, std::uint64_t total)>;

// How a radiograph is perceived. A study that is not made in time is the error ANX_DEADLINE, one that was cancelled ANX_STOPPED.
struct PerceiveOptions {
    // 0 means no deadline. If you compute a remaining time, pass at least 1 ms.
    std::chrono::milliseconds deadline{0};
    std::optional<CancelHandle> cancel;    // from CancelHandle::create
    bool keep_radiograph = false;          // for overlays and Study::intensities
    ProgressCallback progress;             // receives how many radiographs are perceived
    std::size_t window = 0;                // of a DICOM file's VOI LUTs, then windows, counted from 1; 0: the first
    bool inverted = false;                 // bright and dark are swapped, for a file that does not say its polarity
    bool mirrored = false;                 // the mirror image is perceived; boxes are in its pixels
};

// How a structured report is written.
struct ReportOptions {
    // The time at which the results were made, as YYYYMMDDhhmmss; empty: that of the radiograph.
    std::string content_time;
    // A Comprehensive SR, for viewers that do not know Comprehensive 3D SR.
    bool comprehensive_sr = false;
};

// How documents other than structured reports are written.
struct DocumentOptions {
    // The time at which the results were made, as YYYYMMDDhhmmss; that of the radiograph if empty.
    std::string content_time = {};
};

// An image in memory as grey pixels, row by row from the top; see anx_pixels. The values are borrowed: they stay where they are until the
// study is made. Change the fields for gaps between rows, fewer bits, or MONOCHROME1.
struct Pixels {
    Pixels(std::uint32_t columns, std::uint32_t rows, const std::vector<std::uint8_t> &from)
        : values(from.data()), size(from.size()), width(columns), height(rows), bits_allocated(8) {}
    Pixels(std::uint32_t columns, std::uint32_t rows, const std::vector<std::uint16_t> &from)
        : values(from.data()), size(from.size() * 2), width(columns), height(rows), bits_allocated(16) {}
    // What is borrowed must outlive this.
    Pixels(std::uint32_t, std::uint32_t, std::vector<std::uint8_t> &&) = delete;
    Pixels(std::uint32_t, std::uint32_t, std::vector<std::uint16_t> &&) = delete;

    const void *values;
    std::size_t size;       // in bytes
    std::size_t stride = 0; // bytes from row to row; 0: no gaps
    std::uint32_t width, height;
    std::uint32_t bits_allocated;
    std::uint32_t bits_stored = 0; // 0: all that are allocated
    anx_photometric photometric = ANX_PHOTOMETRIC_MONOCHROME2;
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
    std::string public_key;       // of minisign: only a bundle that its owner signed is opened; see anx_engine_options.public_key
    LogCallback log;              // receives messages about what the engine does
    double draft_cost = 0;          // of one more token, relative to a run of one token; greater than 0, at most 1; 0: measured
    // Opening that takes longer is the error ANX_DEADLINE. 0 means no deadline. If you compute a remaining time, pass at least 1 ms.
    std::chrono::milliseconds deadline{0};
    std::optional<CancelHandle> cancel;    // from CancelHandle::create; opening that was cancelled is the error ANX_STOPPED
    ProgressCallback progress;             // receives how far opening has come
};

// How a bundle is verified; as in EngineOptions.
struct VerifyOptions {
    std::string public_key;
    std::chrono::milliseconds deadline{0};
    std::optional<CancelHandle> cancel;
    ProgressCallback progress;
};

// A bundle that was verified; see verify_bundle.
struct VerifiedBundle {
    std::string name;
    std::string sha256; // of the manifest, which identifies the bundle
    std::size_t files;
    std::uint64_t bytes;
};

} // namespace anatomix

#endif // ANATOMIX_TYPES_HPP
