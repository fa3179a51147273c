"""Memory of a C program that opens, perceives, asks and closes again and again: constant, and clean under Valgrind.

`make test-memory` runs 1,000 rounds, and one under Valgrind. test_memory.py runs fewer.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from native import STRICT, run

ROOT = Path(__file__).resolve().parent.parent
# Resident memory of the process in kilobytes may grow by this much from a tenth of the rounds to the last one, because allocators keep what
# they had. A leak of 40 kB a round would be more in a thousand rounds.
MOST_GROWTH = 32 << 10
# Memory that is still reachable at the end belongs to what a process loads once: ONNX Runtime with its environment, shared thread pools.
LEAKS = ["--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]
SUPPRESSIONS = Path(__file__).with_name("valgrind.supp")
VALGRIND = ["valgrind", "--quiet", *LEAKS, "--error-exitcode=99", f"--suppressions={SUPPRESSIONS}"]

PROGRAM = r"""
#include <anatomix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long resident(void) {
    long size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &pages) != 2) exit(9);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static int on_piece(const char *piece, size_t length, void *user_data) {
    *(size_t *)user_data += length;
    return piece[length] == '\0' ? ANX_FLOW_CONTINUE : ANX_FLOW_STOP;
}

static int check(anx_status status, anx_error *error) {
    if (status == ANX_OK) return 0;
    fprintf(stderr, "%s\n", anx_error_message(error));
    anx_error_free(error);
    return 1;
}

/* One round: everything is opened, used and freed. */
static int one(const char *bundle, const char *image) {
    anx_engine_options opening = {0};
    anx_perceive_options perceiving = {0};
    anx_ask_options asking = {0};
    anx_engine *engine = NULL;
    anx_study *study = NULL, *loaded = NULL, *other = NULL;
    anx_answer *answer = NULL;
    anx_bytes *json = NULL, *saved = NULL, *png = NULL;
    anx_verified_bundle *verified = NULL;
    anx_error *error = NULL;
    size_t streamed = 0;
    int failed;
    opening.struct_size = sizeof opening;
    opening.provider = "cpu";
    opening.threads = 1;
    opening.golden_check = ANX_SWITCH_OFF;
    perceiving.struct_size = sizeof perceiving;
    perceiving.keep_radiograph = ANX_SWITCH_ON;
    asking.struct_size = sizeof asking;
    asking.max_tokens = 4;
    asking.piece = on_piece;
    asking.piece_user_data = &streamed;
    failed = check(anx_engine_open(bundle, &opening, &engine, &error), error) ||
             check(anx_study_from_file(engine, image, &perceiving, &study, &error), error) ||
             check(anx_study_ask(study, "Where is the left lung?", &asking, &answer, &error), error) ||
             check(anx_answer_json(answer, &json, &error), error) ||
             check(anx_answer_overlay(answer, &png, &error), error) ||
             check(anx_study_save(study, &saved, &error), error) ||
             check(anx_study_load(engine, anx_bytes_data(saved), anx_bytes_size(saved), &loaded, &error), error);
    /* Errors are freed, too. */
    if (!failed) {
        failed = anx_study_from_file(engine, "no such file", NULL, &other, NULL) != ANX_RADIOGRAPH_READ ||
                 anx_verify_bundle("no such bundle", NULL, &verified, &error) != ANX_BUNDLE_READ;
        anx_error_free(error);
    }
    anx_bytes_free(json);
    anx_bytes_free(png);
    anx_bytes_free(saved);
    anx_answer_free(answer);
    anx_study_free(loaded);
    anx_study_free(study);
    anx_engine_free(engine);
    return failed;
}

int main(int argc, char **argv) {
    int round, rounds = argc == 4 ? atoi(argv[3]) : 0;
    for (round = 1; round <= rounds; round++) {
        if (one(argv[1], argv[2])) return 1;
        if (round == rounds / 10 || round == rounds) printf("%d %ld\n", round, resident());
    }
    return rounds > 0 ? 0 : 2;
}
"""


def built(folder: Path, library: Path) -> Path:
    """The compiled program."""
    source, program = folder / "memory.c", folder / "memory"
    source.write_text(PROGRAM, encoding="utf-8")
    link = ["-L", library, "-lanatomix", f"-Wl,-rpath,{library}"]
    run(["gcc", "-std=c11", "-g", *STRICT, "-I", ROOT / "include", source, "-o", program, *link])
    return program


def environment() -> dict:
    return {"ORT_DYLIB_PATH": str(ROOT / ".deps/onnxruntime/libonnxruntime.so"), **os.environ}


def growth(program: Path, bundle: Path, image: Path, rounds: int) -> tuple:
    """Resident memory in kilobytes after a tenth of the rounds and after all of them."""
    output = subprocess.run([program, bundle, image, str(rounds)], check=True, capture_output=True, text=True, env=environment())
    (_, early), (_, late) = (line.split() for line in output.stdout.splitlines())
    return int(early), int(late)


def errors(program: Path, bundle: Path, image: Path) -> str:
    """What Valgrind says of a round; empty if it finds nothing."""
    done = subprocess.run([*VALGRIND, program, bundle, image, "1"], capture_output=True, text=True, env=environment())
    return f"exit code {done.returncode}\n{done.stderr}" if done.returncode or "==" in done.stderr else ""


def main():
    bundle, image = ROOT / "examples/reference-bundle", ROOT / "examples/phantom.dcm"
    with tempfile.TemporaryDirectory() as folder:
        program = built(Path(folder), ROOT / "target/release")
        early, late = growth(program, bundle, image, 1000)
        print(f"resident memory after 100 rounds {early} kB, after 1000 rounds {late} kB, of which {MOST_GROWTH} kB may be more")
        found = errors(program, bundle, image) if shutil.which("valgrind") else ""
        print(found or ("Valgrind finds no error and no leak" if shutil.which("valgrind") else "there is no Valgrind: skipped"))
    if found or late - early > MOST_GROWTH:
        sys.exit("error: the memory is not as it should be")


if __name__ == "__main__":
    main()
