"""Results that are only data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Box(NamedTuple):
    """A box in pixels of the original image: origin at its top-left corner, x right, y down."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Structure:
    """An anatomical structure that was found, with its retrieved sentence.

    index: 0 to 35, the place in ``anatomix.STRUCTURES``.
    name: the structure's name.
    side: the patient's side, "left" or "right"; None for an unpaired structure.
    box: in pixels of the original image.
    sentence: the sentence of the database that is nearest to the structure's object embedding.
    similarity: cosine similarity of the two embeddings, -1..1, not calibrated.
    margin: similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    """

    index: int
    name: str
    side: str | None
    box: Box
    sentence: str
    similarity: float
    margin: float


@dataclass(frozen=True)
class Grounding:
    """A phrase of an answer with its boxes.

    phrase: empty for boxes without a phrase.
    boxes: in pixels of the original image.
    """

    phrase: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class StructureEvidence:
    """A structure whose retrieved sentence, or box, speaks for or against a sentence of an answer.

    index: 0 to 35, the place in ``anatomix.STRUCTURES``.
    name: the structure's name.
    relation: "repeats", "agrees" or "contradicts".
    similarity: cosine similarity of the retrieved sentence, -1..1, not calibrated.
    margin: similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    box: in pixels of the original image.
    """

    index: int
    name: str
    relation: str
    similarity: float
    margin: float
    box: Box


@dataclass(frozen=True)
class Evidence:
    """Where a sentence of an answer comes from.

    sentence: the sentence.
    support: "supported", "contradicted", "unsupported", or "not_assessed" if it states nothing that could be compared.
    structures: those that speak for or against it, in index order.
    groundings: indices in ``Answer.groundings`` of the phrases that it grounds.
    probability: mean probability of its tokens under the model, 0..1, not calibrated; None if it lies within a token of an
        earlier sentence.
    """

    sentence: str
    support: str
    structures: tuple[StructureEvidence, ...]
    groundings: tuple[int, ...]
    probability: float | None


@dataclass(frozen=True)
class Flag:
    """A reason not to trust a study.

    code: the kind of the flag, for example "not_frontal".
    severity: "info" if results can be used, "warning" if a person has to look at the image first.
    message: the reason in a sentence.
    """

    code: str
    severity: str
    message: str
