"""Times AnatomiX beside what a user would pick instead: `make bench`. One table: work, ours, peer, ratio, floor.

Both sides take turns in one run, with the same threads; figures are medians. A ratio above 1 means that we are faster.
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
    parser.add_argument("works", nargs="*", choices=[*WORKS, []], help="which; all if not said")
    asked = parser.parse_args().works
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Always in this order: what OpenVINO does to the process's memory makes what comes after it faster.
    for name, work in WORKS.items():
        if name in asked or not asked:
            with table.attempt(name):
                work()
    table.write()


if __name__ == "__main__":
    main()
