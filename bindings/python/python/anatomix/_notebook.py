"""How results look in a notebook."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._anatomix import Answer, Study
    from ._records import Box, Flag

NOTE = "Research use, not a medical device. Scores are not calibrated."


def of_study(study: Study, has_radiograph: bool) -> str:
    """The overlay, and the flags. Without a radiograph, the structures as a table."""
    if has_radiograph:
        body = picture(study.overlay_png(), study.name)
    else:
        head = "<tr><th>structure</th><th>box</th><th>sentence</th></tr>"
        rows = [
            f"<tr><td>{escape(found.name)}</td><td>{corners(found.box)}</td><td>{escape(found.sentence)}</td></tr>"
            for found in study.structures
        ]
        body = f"<table>{head}{''.join(rows)}</table>"
    return f"<div>{body}{listed(study.flags)}<small>{NOTE}</small></div>"


def of_answer(answer: Answer, has_radiograph: bool) -> str:
    """Question and text, the flags, and the overlay if there is a box to draw."""
    text = f"<p><b>{escape(answer.question)}</b></p><p>{escape(answer.text)}</p>"
    has_boxes = any(grounding.boxes for grounding in answer.groundings)
    body = picture(answer.overlay_png(), answer.question) if has_radiograph and has_boxes else ""
    return f"<div>{text}{body}{listed(answer.flags)}<small>{NOTE}</small></div>"


def corners(box: Box) -> str:
    return ", ".join(f"{corner:.0f}" for corner in box)


def picture(png: bytes, title: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(title)}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def listed(flags: tuple[Flag, ...]) -> str:
    items = "".join(f"<li>{escape(flag.severity)}: {escape(flag.message)}</li>" for flag in flags)
    return f"<ul>{items}</ul>" if items else ""
