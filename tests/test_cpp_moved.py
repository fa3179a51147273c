"""C++ objects that were moved from are empty: calls on them fail or do nothing, and none crashes."""

from test_cpp import compiled, environment, run  # noqa: F401

MOVED_FROM = r"""
#include <anatomix.hpp>
#include <iostream>

using namespace anatomix;

int main(int, char **argv) {
    Engine engine = Engine::open(argv[1]).value();
    Study study = engine.study_from_file(argv[2]).value();
    Answer answer = study.ask("Where is the left lung?").value();
    CancelHandle own = CancelHandle::create().value(), of_study = study.cancel_handle().value();

    CancelHandle kept = std::move(own), kept_too = std::move(of_study);
    for (const CancelHandle *moved : {&own, &of_study}) {
        moved->cancel();
        moved->reset();
        if (moved->get()) return 1;
    }
    // No call is stopped by an empty handle.
    PerceiveOptions options;
    options.cancel = own;
    if (!engine.study_from_file(argv[2], options) || !study.ask("Where is the heart?")) return 2;
    // The handles that were moved stop what they stopped before.
    options.cancel = kept;
    kept.cancel();
    kept_too.cancel();
    auto stopped = engine.study_from_file(argv[2], options);
    if (stopped || stopped.error().code != ANX_STOPPED) return 3;
    if (study.ask("Where is the heart?").value().finish() != ANX_FINISH_STOPPED) return 4;
    // A handle goes on without the variable that it came from, and may be assigned again.
    own = kept;
    own.reset();
    if (!engine.study_from_file(argv[2], options)) return 5;

    Answer last = std::move(answer);
    if (!answer.text().empty() || !answer.groundings().empty() || answer.tokens() || !answer.provenance().sdk.empty()) return 6;
    if (answer.log_probabilities().size() || answer.get() || last.text().empty()) return 7;
    Study whole = std::move(study);
    auto asked = study.ask("Where is the heart?");
    if (asked || asked.error().code != ANX_INVALID_ARGUMENT || study.ask_many({{"Where?"}}) || study.save()) return 8;
    if (study.width() || study.structures().size() || study.flags().size() || study.turns() || study.get()) return 9;
    if (study.cancel_handle() || study.rewind(0).code != ANX_INVALID_ARGUMENT || study.structured_report()) return 10;
    if (whole.structured_report({&answer})) return 11;
    Engine open = std::move(engine);
    if (engine.study_from_file(argv[2]) || engine.study_bytes(9) || !engine.bundle_name().empty() || engine.get()) return 12;
    if (engine.load_study(whole.save().value()) || engine.studies_from_files({argv[2]}).at(0)) return 13;
    // Moved to itself and back, an object is usable.
    study = std::move(whole);
    engine = std::move(open);
    std::cout << study.ask("Where is the heart?").value().text();
    return study.structures().size() == 36 && engine.study_bytes(9) ? 0 : 14;
}
"""


def test_moved_from_objects_are_empty(compiled, environment, bundle, phantom_dicom):  # noqa: F811
    assert run([compiled(MOVED_FROM), bundle, phantom_dicom], environment)
