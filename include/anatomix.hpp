// AnatomiX for C++17: anatomix.h with ownership. Header-only, without exceptions or RTTI. Research use, not a medical
// device.
//
//     auto engine = anatomix::Engine::open("bundle").value();
//     auto study = engine.study_from_file("chest.dcm").value();
//     auto answer = study.ask("Is there a pleural effusion?").value();
//     for (const anatomix::Grounding &g : answer.groundings()) draw(g.phrase, g.boxes);
//
// Engine, Study and Answer own their handles: they move, they do not copy, they may be destroyed in any order, and one
// that was moved from is empty. Everything they return is a value of its own; nothing refers back to them.
//
// Threads. Any number of threads may use an Engine at once; its weights are in memory once. With EngineOptions::threads = 1
// callers compute side by side, each on its own core. A Study is asked by one thread at a time, so threads that ask at the
// same time need a Study each. anatomix.h says what each call guarantees.

#ifndef ANATOMIX_HPP
#define ANATOMIX_HPP

#include "anatomix_study.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace anatomix {

// An opened bundle on a provider. Any number of threads may use it at once.
class Engine {
public:
    static Result<Engine> open(const std::string &bundle, const EngineOptions &options = {}) {
        if (anx_abi_version() < ANX_ABI_VERSION) return detail::old_library();
        if (detail::is_cut(bundle)) return detail::cut("bundle");
        if (detail::is_cut(options.provider)) return detail::cut("provider");
        if (detail::is_cut(options.library)) return detail::cut("library");
        if (detail::is_cut(options.public_key)) return detail::cut("public_key");
        anx_engine_options raw = {};
        raw.struct_size = sizeof raw;
        raw.provider = options.provider.empty() ? nullptr : options.provider.c_str();
        raw.threads = options.threads;
        raw.library = options.library.empty() ? nullptr : options.library.c_str();
        raw.memory_limit = options.memory_limit;
        raw.golden_check = detail::on_or_off(options.golden_check);
        raw.look_up = detail::on_or_off(options.look_up);
        raw.draft_cost = options.draft_cost;
        watch(raw, options);
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
    Result<Study> study_from_file(const std::string &path, const PerceiveOptions &options = {}) const {
        if (detail::is_cut(path)) return detail::cut("path");
        const anx_perceive_options raw = lower(options);
        return make([&](auto... out) { return anx_study_from_file(handle_.get(), path.c_str(), &raw, out...); });
    }

    // Such a file in memory; name stands for it in messages.
    Result<Study> study_from_bytes(const std::uint8_t *bytes, std::size_t size, const std::string &name = "bytes",
                                   const PerceiveOptions &options = {}) const {
        if (detail::is_cut(name)) return detail::cut("name");
        const anx_perceive_options raw = lower(options);
        return make([&](auto... out) { return anx_study_from_bytes(handle_.get(), bytes, size, name.c_str(), &raw, out...); });
    }

    // An image in memory as grey pixels.
    Result<Study> study_from_pixels(const Pixels &pixels, const PerceiveOptions &options = {}) const {
        const anx_perceive_options raw = lower(options);
        const anx_pixels image = lower(pixels);
        return make([&](auto... out) { return anx_study_from_pixels(handle_.get(), &image, &raw, out...); });
    }

    // A study from what Study::save gave.
    Result<Study> load_study(const std::vector<std::uint8_t> &bytes) const {
        return make([&](auto... out) { return anx_study_load(handle_.get(), bytes.data(), bytes.size(), out...); });
    }

    // Opens several files and perceives them together, which may be faster: for each path, in order, a study or why there is none.
    // One that fails does not affect the others. A stop ends the whole call: studies that are made by then are returned.
    std::vector<Result<Study>> studies_from_files(const std::vector<std::string> &paths, const PerceiveOptions &options = {}) const {
        std::vector<const char *> raw;
        // No file has the empty path, so the study of a path that C would cut has an error, too.
        for (const std::string &path : paths) raw.push_back(detail::is_cut(path) ? "" : path.c_str());
        std::vector<Result<Study>> made = make_several(raw, options, anx_studies_from_files);
        for (std::size_t i = 0; i < made.size(); i++) {
            if (detail::is_cut(paths[i])) made[i] = detail::cut("paths");
        }
        return made;
    }

    // Such files in memory. names: one per file, used in messages and as the study's name. Files without a name are called "bytes".
    std::vector<Result<Study>> studies_from_bytes(const std::vector<std::vector<std::uint8_t>> &files, const PerceiveOptions &options = {},
                                                  const std::vector<std::string> &names = {}) const {
        std::vector<anx_file> raw;
        for (std::size_t i = 0; i < files.size(); i++) {
            const bool is_named = i < names.size() && !detail::is_cut(names[i]);
            raw.push_back(anx_file{files[i].data(), files[i].size(), is_named ? names[i].c_str() : nullptr});
        }
        std::vector<Result<Study>> made = make_several(raw, options, anx_studies_from_bytes);
        for (std::size_t i = 0; i < made.size() && i < names.size(); i++) {
            if (detail::is_cut(names[i])) made[i] = detail::cut("names");
        }
        return made;
    }

    // Images in memory as grey pixels.
    std::vector<Result<Study>> studies_from_pixels(const std::vector<Pixels> &images, const PerceiveOptions &options = {}) const {
        std::vector<anx_pixels> lowered;
        std::vector<const anx_pixels *> raw;
        lowered.reserve(images.size());
        for (const Pixels &image : images) {
            lowered.push_back(lower(image));
            raw.push_back(&lowered.back());
        }
        return make_several(raw, options, anx_studies_from_pixels);
    }

    // Bytes that the KV cache of a study takes at most for this many tokens; see anx_engine_study_bytes.
    std::size_t study_bytes(std::size_t tokens) const { return anx_engine_study_bytes(handle_.get(), tokens); }
    // The largest number of radiographs that one run of the perception module takes.
    std::size_t batch_size() const { return anx_engine_batch_size(handle_.get()); }

    std::string bundle_name() const { return detail::text(anx_engine_bundle_name(handle_.get())); }
    std::string bundle_sha256() const { return detail::text(anx_engine_bundle_sha256(handle_.get())); }
    // The provider that the engine computes on, never "auto".
    std::string provider() const { return detail::text(anx_engine_provider(handle_.get())); }
    // Notes on where graphs are computed, a line each: why "auto" chose it, whether the bundle was checked on such a processor.
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

    friend Result<VerifiedBundle> verify_bundle(const std::string &bundle, const VerifyOptions &options);

    static void report(const char *phase, std::uint64_t done, std::uint64_t total, void *user_data) noexcept {
        (*static_cast<const ProgressCallback *>(user_data))(phase, done, total);
    }

    // The options that opening and verifying have in common; they borrow all of this.
    template <class Raw, class Options> static void watch(Raw &raw, const Options &options) {
        raw.public_key = options.public_key.empty() ? nullptr : options.public_key.c_str();
        raw.deadline_ms = detail::milliseconds(options.deadline);
        raw.cancel = options.cancel ? options.cancel->get() : nullptr;
        raw.progress = options.progress ? report : nullptr;
        raw.progress_user_data = const_cast<ProgressCallback *>(&options.progress);
    }

    // The options as C has them; they borrow the cancel handle and the callback.
    static anx_perceive_options lower(const PerceiveOptions &options) {
        anx_perceive_options raw = {};
        raw.struct_size = sizeof raw;
        raw.deadline_ms = detail::milliseconds(options.deadline);
        raw.cancel = options.cancel ? options.cancel->get() : nullptr;
        raw.keep_radiograph = detail::on_or_off(options.keep_radiograph);
        raw.progress = options.progress ? report : nullptr;
        raw.progress_user_data = const_cast<ProgressCallback *>(&options.progress);
        raw.window = options.window;
        raw.inverted = detail::on_or_off(options.inverted);
        raw.mirrored = detail::on_or_off(options.mirrored);
        return raw;
    }

    static anx_pixels lower(const Pixels &pixels) {
        anx_pixels raw = {};
        raw.struct_size = sizeof raw;
        raw.values = pixels.values;
        raw.size = pixels.size;
        raw.stride = pixels.stride;
        raw.width = pixels.width;
        raw.height = pixels.height;
        raw.bits_allocated = pixels.bits_allocated;
        raw.bits_stored = pixels.bits_stored;
        raw.photometric = static_cast<std::size_t>(pixels.photometric);
        return raw;
    }

    template <class Call> static Result<Study> make(Call call) {
        anx_study *study = nullptr;
        anx_error *error = nullptr;
        if (call(&study, &error) != ANX_OK) return detail::take(error);
        return Study(study);
    }

    template <class Source, class Call>
    std::vector<Result<Study>> make_several(const std::vector<Source> &sources, const PerceiveOptions &options, Call call) const {
        const anx_perceive_options raw = lower(options);
        std::vector<anx_study *> made(sources.size());
        std::vector<anx_error *> failed(sources.size());
        anx_error *error = nullptr;
        call(handle_.get(), sources.data(), sources.size(), &raw, made.data(), failed.data(), &error);
        const Error whole = detail::take(error);
        std::vector<Result<Study>> outcomes;
        outcomes.reserve(sources.size());
        for (std::size_t i = 0; i < sources.size(); i++) {
            if (made[i]) {
                outcomes.push_back(Study(made[i]));
            } else {
                // If the study has no error of its own, the call as a whole failed.
                outcomes.push_back(failed[i] ? detail::take(failed[i]) : whole);
            }
        }
        return outcomes;
    }

    detail::Owned<anx_engine, anx_engine_free> handle_;
};

// Verifies a bundle without opening an engine: the hashes of all its files, and the whole sentence database.
inline Result<VerifiedBundle> verify_bundle(const std::string &bundle, const VerifyOptions &options = {}) {
    if (anx_abi_version() < ANX_ABI_VERSION) return detail::old_library();
    if (detail::is_cut(bundle)) return detail::cut("bundle");
    if (detail::is_cut(options.public_key)) return detail::cut("public_key");
    anx_verify_options raw = {};
    raw.struct_size = sizeof raw;
    Engine::watch(raw, options);
    anx_verified_bundle *verified = nullptr;
    anx_error *error = nullptr;
    if (anx_verify_bundle(bundle.c_str(), &raw, &verified, &error) != ANX_OK) return detail::take(error);
    detail::Owned<anx_verified_bundle, anx_verified_bundle_free> owned(verified);
    return VerifiedBundle{detail::text(anx_verified_bundle_name(verified)), detail::text(anx_verified_bundle_sha256(verified)),
                          anx_verified_bundle_file_count(verified), anx_verified_bundle_bytes(verified)};
}

// Whether bytes begin as those of Study::save do.
inline bool is_saved_study(const std::vector<std::uint8_t> &bytes) { return anx_is_saved_study(bytes.data(), bytes.size()) != 0; }

// The name of a structure, index 0 to 35, and of a label, 0 to 13; empty beyond.
inline std::string structure_name(std::size_t index) { return detail::text(anx_structure_name(index)); }
inline std::string label_name(std::size_t index) { return detail::text(anx_label_name(index)); }

// The patient's side of a structure, and the index of the same structure on the other side: the given index if it is unpaired.
inline anx_side structure_side(std::size_t index) { return anx_structure_side(index); }
inline std::size_t structure_counterpart(std::size_t index) { return anx_structure_counterpart(index); }

} // namespace anatomix

#endif // ANATOMIX_HPP
