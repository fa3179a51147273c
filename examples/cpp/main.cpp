// example BUNDLE IMAGE [QUESTION]
//
// Prints the results of `anatomix perceive` and `anatomix ask` in a form that can be compared with their --json output:
//   - one line per structure, with index, box and sentence separated by tabs; the box is "x0 y0 x1 y1" in pixels of the
//     original image, with two decimals;
//   - if there is a question: an empty line, the text of the answer while it is decoded, and one line per grounding, with
//     "grounding", the phrase and its boxes separated by tabs.
// Flags go to standard error. The exit code is 1 on failure and 2 on wrong usage.

#include <anatomix.hpp>

#include <cstdio>

static void print(const anatomix::Box &box) { std::printf("%.2f %.2f %.2f %.2f", box.x0, box.y0, box.x1, box.y1); }

static int fail(const anatomix::Error &error) {
    std::fprintf(stderr, "%s\n", error.message.c_str());
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        std::fprintf(stderr, "usage: %s BUNDLE IMAGE [QUESTION]\n", argv[0]);
        return 2;
    }
    auto engine = anatomix::Engine::open(argv[1]);
    if (!engine) return fail(engine.error());
    auto study = engine.value().study_from_file(argv[2]);
    if (!study) return fail(study.error());

    for (const anatomix::Structure &structure : study.value().structures()) {
        std::printf("%u\t", static_cast<unsigned>(structure.index));
        print(structure.bounds);
        std::printf("\t%s\n", structure.sentence.c_str());
    }
    for (const anatomix::Flag &flag : study.value().flags()) {
        std::fprintf(stderr, "%s: %s\n", flag.code.c_str(), flag.message.c_str());
    }
    if (argc == 3) return 0;

    std::printf("\n");
    auto answer = study.value().ask(argv[3], [](std::string_view piece) {
        std::fwrite(piece.data(), 1, piece.size(), stdout);
        return std::fflush(stdout) == 0;
    });
    if (!answer) return fail(answer.error());
    std::printf("\n");
    for (const anatomix::Grounding &grounding : answer.value().groundings()) {
        std::printf("grounding\t%s", grounding.phrase.c_str());
        for (const anatomix::Box &box : grounding.boxes) {
            std::printf("\t");
            print(box);
        }
        std::printf("\n");
    }
    return 0;
}
