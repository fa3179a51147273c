#include <anatomix.hpp>
#include <iostream>

int main(int count, char **arguments) {
    if (count != 3) {
        std::cerr << "usage: minimal BUNDLE IMAGE\n";
        return 2;
    }
    auto engine = anatomix::Engine::open(arguments[1]).value();    // a bundle, say examples/reference-bundle
    auto study = engine.study_from_file(arguments[2]).value();     // DICOM, PNG or JPEG
    auto answer = study.ask_task(anatomix::Task::report).value();  // or study.ask("Is there a pleural effusion?")
    std::cout << answer.text() << "\n";
    if (answer.finish() != ANX_FINISH_END_OF_TURN) std::cerr << "note: the answer is incomplete\n";
    for (const auto &[phrase, boxes] : answer.groundings())        // pixels of the original image
        for (const auto &b : boxes) std::cout << phrase << ": " << b.x0 << "," << b.y0 << "," << b.x1 << "," << b.y1 << "\n";
}
