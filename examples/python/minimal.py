"""Reads one radiograph: structures, a report, and where a structure is.

    python minimal.py examples/reference-bundle examples/phantom.dcm
"""

import sys

import anatomix


def main(bundle: str, image: str) -> None:
    engine = anatomix.Engine.open(bundle)
    study = engine.study(image)  # DICOM, PNG or JPEG
    for flag in study.flags:
        print(f"{flag.severity}: {flag.message}", file=sys.stderr)
    for found in study.structures:
        print(f"{found.name:<48} {found.box.x0:6.0f} {found.box.y0:6.0f} {found.box.x1:6.0f} {found.box.y1:6.0f}  {found.sentence}")
    print(study.ask(task="report").text)

    stream = study.stream("Where is the left lung?")
    for piece in stream:
        print(piece, end="", flush=True)
    print()
    for grounding in stream.answer.groundings:
        for box in grounding.boxes:
            print(grounding.phrase, box)  # pixels of the image


if __name__ == "__main__":
    main(*sys.argv[1:])
