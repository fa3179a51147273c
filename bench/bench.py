"""Compares AnatomiX with other libraries for the same work: `make bench`. Prints a table of work, ours, peer, ratio and floor.

Both sides alternate in one run, with the same number of threads. Figures are medians, and a ratio is the median of the rounds' ratios. A
ratio above 1 means that AnatomiX is faster.
"""

import argparse
import sys

from sides import FOLDER, ROOT

sys.path.insert(0, str(ROOT / "tests"))

import images
import language
import table

WORKS = {work.__name__: work for work in [*images.WORKS, *language.WORKS]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", choices=[*WORKS, []], help="the works to measure; all by default")
    chosen = parser.parse_args().works
    FOLDER.mkdir(parents=True, exist_ok=True)
    # The order is fixed, because OpenVINO changes the process's allocator, which makes later works faster.
    for name, work in WORKS.items():
        if name in chosen or not chosen:
            with table.attempt(name):
                work()
    table.write()


if __name__ == "__main__":
    main()
