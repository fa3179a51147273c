"""Results as rows: lists of dictionaries, which pandas.DataFrame and csv.DictWriter take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._anatomix import Answer, Study


def of_study(study: Study) -> list[dict[str, Any]]:
    """A row for each structure."""
    return [
        {
            "image": study.name,
            "index": found.index,
            "name": found.name,
            "side": found.side,
            **found.box._asdict(),
            "sentence": found.sentence,
            "similarity": found.similarity,
            "margin": found.margin,
        }
        for found in study.structures
    ]


def of_answer(answer: Answer) -> list[dict[str, Any]]:
    """A row for each box."""
    return [
        {"question": answer.question, "phrase": grounding.phrase, **box._asdict()}
        for grounding in answer.groundings
        for box in grounding.boxes
    ]
