// The classes Answer and Study of anatomix.hpp, which includes this file.

#ifndef ANATOMIX_STUDY_HPP
#define ANATOMIX_STUDY_HPP

#include "anatomix_types.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace anatomix {

// An answer of the language model, with groundings.
class Answer {
public:
    // Readable text, without tags and coordinates.
    std::string text() const { return detail::text(anx_answer_text(handle_.get())); }
    // As the model wrote it: with tags, and with boxes on a grid of 1024 over the letterboxed square, not in pixels.
    std::string raw() const { return detail::text(anx_answer_raw(handle_.get())); }
    std::string question() const { return detail::text(anx_answer_question(handle_.get())); }
    // The name of the question's task; empty if none was given.
    std::string task() const { return detail::text(anx_answer_task(handle_.get())); }
    std::vector<Grounding> groundings() const {
        return detail::collect(handle_.get(), anx_answer_grounding_count, anx_answer_grounding, detail::grounding);
    }
    // Where each sentence comes from, in the order of the text; empty for an answer in JSON.
    std::vector<Evidence> evidence() const {
        return detail::collect(handle_.get(), anx_answer_evidence_count, anx_answer_evidence, detail::evidence);
    }
    std::size_t tokens() const { return anx_answer_token_count(handle_.get()); }
    // Tokens that were prefilled for this answer, and runs of the decoder that its tokens took.
    std::size_t prefilled() const { return anx_answer_prefilled_count(handle_.get()); }
    std::size_t runs() const { return anx_answer_run_count(handle_.get()); }
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
    // The answer as `anatomix ask --json` prints it.
    Result<std::string> json() const {
        return detail::json([&](auto... out) { return anx_answer_json(handle_.get(), out...); });
    }
    // The radiograph with the answer's boxes as a PNG file, if the study was made with PerceiveOptions::keep_radiograph.
    Result<std::vector<std::uint8_t>> overlay() const {
        return detail::bytes([&](auto... out) { return anx_answer_overlay(handle_.get(), out...); });
    }
    // The C handle, still owned by this object.
    const anx_answer *get() const { return handle_.get(); }

private:
    friend class Study;
    explicit Answer(anx_answer *handle) : handle_(handle) {}
    detail::Owned<anx_answer, anx_answer_free> handle_;
};

// One radiograph with what was perceived in it. Asked by one thread at a time.
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
    // The embedding of each structure, in index order: what the sentences of the database are compared with.
    std::vector<std::vector<float>> embeddings() const {
        std::vector<std::vector<float>> all;
        const std::size_t width = anx_study_embedding_width(handle_.get());
        for (std::size_t i = 0; const float *one = anx_study_embedding(handle_.get(), i); i++) all.emplace_back(one, one + width);
        return all;
    }
    // The study as `anatomix perceive --json` prints it.
    Result<std::string> json() const {
        return detail::json([&](auto... out) { return anx_study_json(handle_.get(), out...); });
    }
    // The radiograph as a display shows it, 0 (black) to 1 (white), row by row from the top, if the study was made with
    // PerceiveOptions::keep_radiograph.
    Result<std::vector<float>> intensities() const {
        std::vector<float> values(std::size_t(width()) * height());
        anx_error *error = nullptr;
        if (anx_study_intensities(handle_.get(), values.data(), values.size(), &error) != ANX_OK) return detail::take(error);
        return values;
    }
    // The radiograph with boxes as a PNG file, if the study was made with PerceiveOptions::keep_radiograph.
    Result<std::vector<std::uint8_t>> overlay() const {
        return detail::bytes([&](auto... out) { return anx_study_overlay(handle_.get(), out...); });
    }

    // Asks a question and waits for the answer; on_piece receives it while it is decoded. A region in the question is written
    // <box>(x0,y0),(x1,y1)</box>, in pixels of the original image.
    Result<Answer> ask(const std::string &question, const PieceCallback &on_piece = {}, AskOptions options = {}) {
        if (detail::is_cut(question)) return detail::cut("question");
        if (const char *cut = cut_option(options)) return detail::cut(cut);
        std::vector<const char *> stop;
        const anx_ask_options raw = lower(options, on_piece, stop);
        anx_answer *answer = nullptr;
        anx_error *error = nullptr;
        if (anx_study_ask(handle_.get(), question.c_str(), &raw, &answer, &error) != ANX_OK) return detail::take(error);
        return Answer(answer);
    }

    // Asks several questions at once: they are decoded together, so that each costs little more than its own tokens. Greedy
    // answers are those of ask. At most 1,024 questions, of which either all are follow-ups or none is; if none is, the study has no
    // conversation afterwards.
    Result<std::vector<Answer>> ask_many(const std::vector<Question> &questions) {
        const std::size_t count = questions.size();
        std::vector<const char *> texts;
        std::vector<std::vector<const char *>> stops(count);
        std::vector<anx_ask_options> options;
        std::vector<const anx_ask_options *> given;
        options.reserve(count);
        for (std::size_t i = 0; i < count; i++) {
            if (detail::is_cut(questions[i].text)) return detail::cut("questions");
            if (const char *cut = cut_option(questions[i].options)) return detail::cut(cut);
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

    // Asks for a task that needs no question: a report, a classification, the detection of abnormalities. With other options than
    // max_tokens it is ask({}, on_piece, options), where options.task is the task.
    Result<Answer> ask_task(Task task, const PieceCallback &on_piece = {}, std::size_t max_tokens = 0) {
        AskOptions options;
        options.task = task;
        options.max_tokens = max_tokens;
        return ask({}, on_piece, options);
    }

    // How many questions the conversation holds.
    std::size_t turns() const { return anx_study_turn_count(handle_.get()); }

    // Bytes that the KV cache takes for the context and this many tokens after it; see anx_study_cache_bytes.
    std::size_t cache_bytes(std::size_t tokens) const { return anx_study_cache_bytes(handle_.get(), tokens); }

    // Removes all of the conversation but its first turns; a follow-up continues from there. On success the
    // code of the error is ANX_OK.
    [[nodiscard]] Error rewind(std::size_t turns) {
        anx_error *error = nullptr;
        if (anx_study_rewind(handle_.get(), turns, &error) != ANX_OK) return detail::take(error);
        return {};
    }

    // The study as bytes, with its prefilled context, for Engine::load_study.
    Result<std::vector<std::uint8_t>> save() {
        return detail::bytes([&](auto... out) { return anx_study_save(handle_.get(), out...); });
    }

    // A DICOM structured report of this study and of answers about it, in the study that the radiograph belongs to, which has to be a
    // DICOM file. Equal results give equal bytes.
    Result<std::vector<std::uint8_t>> structured_report(const std::vector<const Answer *> &answers = {},
                                                        const ReportOptions &options = {}) const {
        if (detail::is_cut(options.content_time)) return detail::cut("options.content_time");
        std::vector<const anx_answer *> given;
        for (const Answer *answer : answers) given.push_back(answer ? answer->get() : nullptr);
        anx_report_options lowered = {};
        lowered.struct_size = sizeof lowered;
        lowered.content_time = options.content_time.empty() ? nullptr : options.content_time.c_str();
        lowered.comprehensive_sr = detail::on_or_off(options.comprehensive_sr);
        return detail::bytes([&](auto... out) {
            return anx_study_structured_report(handle_.get(), given.data(), given.size(), &lowered, out...);
        });
    }

    // A DICOM presentation state with the boxes and labels of this study and of answers about it, which viewers draw over the radiograph.
    Result<std::vector<std::uint8_t>> presentation_state(const std::vector<const Answer *> &answers = {},
                                                         const DocumentOptions &options = {}) const {
        return document(anx_study_presentation_state, answers, options);
    }

    // A DICOM secondary capture: the picture of overlay(), or of the answer's, for viewers that show neither of the others. The study was
    // made with PerceiveOptions::keep_radiograph.
    Result<std::vector<std::uint8_t>> secondary_capture(const Answer *answer = nullptr, const DocumentOptions &options = {}) const {
        if (detail::is_cut(options.content_time)) return detail::cut("options.content_time");
        const anx_document_options lowered = lower(options);
        return detail::bytes([&](auto... out) {
            return anx_study_secondary_capture(handle_.get(), answer ? answer->get() : nullptr, &lowered, out...);
        });
    }

    // A FHIR R4 bundle of this study and of answers about it, as JSON: a diagnostic report with its observations.
    Result<std::vector<std::uint8_t>> fhir(const std::vector<const Answer *> &answers = {}, const DocumentOptions &options = {}) const {
        return document(anx_study_fhir, answers, options);
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

    // The options as C has them; they borrow the text.
    static anx_document_options lower(const DocumentOptions &options) {
        anx_document_options lowered = {};
        lowered.struct_size = sizeof lowered;
        lowered.content_time = options.content_time.empty() ? nullptr : options.content_time.c_str();
        return lowered;
    }

    using Make = anx_status (*)(const anx_study *, const anx_answer *const *, std::size_t, const anx_document_options *, anx_bytes **,
                                anx_error **);
    Result<std::vector<std::uint8_t>> document(Make make, const std::vector<const Answer *> &answers,
                                               const DocumentOptions &options) const {
        if (detail::is_cut(options.content_time)) return detail::cut("options.content_time");
        std::vector<const anx_answer *> given;
        for (const Answer *answer : answers) given.push_back(answer ? answer->get() : nullptr);
        const anx_document_options lowered = lower(options);
        return detail::bytes([&](auto... out) { return make(handle_.get(), given.data(), given.size(), &lowered, out...); });
    }

    // An exception must not pass through the library: noexcept ends the program instead.
    static int forward(const char *piece, std::size_t length, void *user_data) noexcept {
        return (*static_cast<const PieceCallback *>(user_data))({piece, length}) ? ANX_FLOW_CONTINUE : ANX_FLOW_STOP;
    }

    // The name of an option whose text C would cut, or nullptr.
    static const char *cut_option(const AskOptions &options) {
        for (const std::string &text : options.stop) {
            if (detail::is_cut(text)) return "stop";
        }
        return detail::is_cut(options.json_schema) ? "json_schema" : nullptr;
    }

    // The options as C has them; they borrow all of this, and the pointers in stop.
    static anx_ask_options lower(const AskOptions &options, const PieceCallback &on_piece, std::vector<const char *> &stop) {
        anx_ask_options raw = {};
        raw.struct_size = sizeof raw;
        raw.task = options.task ? anatomix::name(*options.task) : nullptr;
        raw.max_tokens = options.max_tokens;
        raw.piece = on_piece ? forward : nullptr;
        raw.piece_user_data = const_cast<PieceCallback *>(&on_piece);
        raw.temperature = options.temperature;
        raw.top_k = options.top_k;
        raw.top_p = options.top_p;
        raw.repetition_penalty = options.repetition_penalty;
        raw.seed = options.seed;
        for (const std::string &text : options.stop) stop.push_back(text.c_str());
        raw.stop = stop.data();
        raw.stop_count = stop.size();
        raw.deadline_ms = detail::milliseconds(options.deadline);
        raw.log_probabilities = detail::on_or_off(options.log_probabilities);
        raw.follow_up = detail::on_or_off(options.follow_up);
        raw.json_schema = options.json_schema.empty() ? nullptr : options.json_schema.c_str();
        raw.unconstrained = detail::on_or_off(options.unconstrained);
        raw.accept_flags = detail::on_or_off(options.accept_flags);
        return raw;
    }

    detail::Owned<anx_study, anx_study_free> handle_;
};

} // namespace anatomix

#endif // ANATOMIX_STUDY_HPP
