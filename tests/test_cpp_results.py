"""C++ programs get the JSON and the overlays of the command line, verify bundles, and follow and stop long calls."""

import json

from native import run

RESULTS = r"""
#include <anatomix.hpp>
#include <fstream>
#include <iostream>

using namespace anatomix;

static void write(const std::string &path, const std::vector<std::uint8_t> &bytes) {
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

int main(int, char **argv) {
    const std::string out = argv[3];
    auto engine = Engine::open(argv[1]).value();
    PerceiveOptions keeping;
    keeping.keep_radiograph = true;
    auto study = engine.study_from_file(argv[2], keeping).value();
    auto answer = study.ask("Where is the left lung?").value();
    std::cout << study.json().value() << "\n" << answer.json().value() << "\n";
    write(out + "/study.png", study.overlay().value());
    write(out + "/answer.png", answer.overlay().value());
    write(out + "/study.dcm", study.secondary_capture().value());
    write(out + "/answer.dcm", study.secondary_capture(&answer, {}).value());
    auto plain = engine.study_from_file(argv[2]).value();
    if (plain.overlay().error().code != ANX_INVALID_ARGUMENT) return 1;
    const auto embeddings = study.embeddings();
    if (embeddings.size() != 36 || embeddings[0].empty() || embeddings[0].size() != embeddings[35].size()) return 2;
    if (!is_saved_study(study.save().value()) || is_saved_study({1, 2, 3}) || is_saved_study({})) return 3;
    if (structure_name(11) != "Left lung" || !structure_name(36).empty() || label_name(13) != "Support Devices") return 4;
    if (structure_side(11) != ANX_SIDE_LEFT || structure_counterpart(11) != 20 || structure_counterpart(36) != 36) return 6;
    const auto shown = study.intensities().value();
    keeping.inverted = true;
    keeping.mirrored = true;
    const auto turned = engine.study_from_file(argv[2], keeping).value().intensities().value();
    if (shown.size() != std::size_t(study.width()) * study.height() || shown.size() != turned.size()) return 7;
    if (shown[0] + turned[study.width() - 1] != 1 || plain.intensities().error().code != ANX_INVALID_ARGUMENT) return 8;
    return engine.batch_size() == 8 ? 0 : 5;
}
"""


def test_results_are_those_of_the_command_line(compiled, anatomix, bundle, phantom_dicom, environment, tmp_path):
    program = compiled(RESULTS, "-fno-exceptions", "-fno-rtti")
    lines = run([program, bundle, phantom_dicom, tmp_path], environment).splitlines()
    shared = ["--json", "--bundle", bundle, "--overlay"]
    for line, picture, asked in [
        (lines[0], "study.png", ["perceive", phantom_dicom]),
        (lines[1], "answer.png", ["ask", phantom_dicom, "Where is the left lung?"]),
    ]:
        drawn = tmp_path / f"expected-{picture}"
        capture = drawn.with_suffix(".dcm")
        expected = json.loads(run([anatomix, *asked, *shared, drawn, "--sc", capture], environment))
        found = json.loads(line)
        assert found.pop("timing_ms").keys() == expected.pop("timing_ms").keys()
        # How many draft tokens are verified together depends on measured times.
        found.pop("runs", None), expected.pop("runs", None)
        assert list(found) == list(expected) and found == expected
        assert (tmp_path / picture).read_bytes() == drawn.read_bytes()
        assert (tmp_path / picture).with_suffix(".dcm").read_bytes() == capture.read_bytes()


WATCHED = r"""
#include <anatomix.hpp>
#include <iostream>

using namespace anatomix;

int main(int, char **argv) {
    const auto print = [](std::string_view phase, std::uint64_t done, std::uint64_t total) {
        if (done == 0 || done == total) std::cout << phase << " " << done << " " << total << "\n";
    };
    EngineOptions options;
    options.progress = print;
    VerifyOptions verifying;
    verifying.progress = print;
    const VerifiedBundle bundle = verify_bundle(argv[1], verifying).value();
    std::cout << bundle.name << " " << bundle.sha256 << " " << bundle.files << " " << bundle.bytes << "\n";
    auto opened = Engine::open(argv[1], options);
    if (!opened || opened.value().bundle_sha256() != bundle.sha256 || opened.value().bundle_name() != bundle.name) return 1;
    PerceiveOptions watched;
    watched.progress = print;
    for (const auto &study : opened.value().studies_from_files({argv[2], "no such file", argv[2]}, watched)) (void)static_cast<bool>(study);

    // Stopped by a handle in each phase, and by a deadline.
    auto cancel = CancelHandle::create().value();
    options.cancel = cancel;
    verifying.cancel = cancel;
    for (const std::string wanted : {"hashes", "graphs", "golden_check"}) {
        options.progress = [&](std::string_view phase, std::uint64_t, std::uint64_t) {
            if (phase == wanted) cancel.cancel();
        };
        auto stopped = Engine::open(argv[1], options);
        if (stopped || stopped.error().code != ANX_STOPPED) return 2;
        if (verify_bundle(argv[1], verifying).error().code != ANX_STOPPED) return 3;
        cancel.reset();
    }
    options.progress = nullptr;
    options.deadline = std::chrono::milliseconds(1);
    if (Engine::open(argv[1], options).error().code != ANX_DEADLINE) return 4;
    options.deadline = std::chrono::milliseconds(0);
    if (!Engine::open(argv[1], options)) return 5;
    // What C would cut, and what is not a bundle.
    if (verify_bundle(std::string("a\0b", 3)).error().code != ANX_INVALID_ARGUMENT) return 6;
    verifying.public_key = "no key";
    if (verify_bundle(argv[1], verifying).error().code != ANX_INVALID_ARGUMENT) return 7;
    return verify_bundle(argv[2]).error().code == ANX_BUNDLE_READ ? 0 : 8;
}
"""


def test_opening_verifying_and_perceiving_are_followed_and_stopped(compiled, anatomix, bundle, phantom_dicom, environment):
    program = compiled(WATCHED, "-fno-exceptions", "-fno-rtti")
    verified = json.loads(run([anatomix, "bundle", "verify", bundle, "--json"], environment))
    size = verified["bytes"]
    hashes = [f"hashes 0 {size}", f"hashes {size} {size}"]
    phases = [f"{phase} {done} {total}" for phase, total in [("graphs", 3), ("golden_check", 3), ("perceive", 3)] for done in (0, total)]
    lines = run([program, bundle, phantom_dicom], environment).splitlines()
    described = lines.pop(4)
    assert lines == [*hashes, "sentences 0 1", "sentences 1 1", *hashes, *phases]
    assert described.endswith(f" {verified['sha256']} {verified['files']} {size}")
