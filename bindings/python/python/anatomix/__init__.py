"""Anatomy-aware chest X-ray interpretation. For research use; not a medical device.

An Engine opens a bundle. Its method study finds the structures of one radiograph; the resulting Study is asked questions, and each Answer
has boxes in pixels of the radiograph:

    import anatomix

    engine = anatomix.Engine.open("examples/reference-bundle")
    study = engine.study("chest.dcm")
    for found in study.structures:
        print(found.name, found.box, found.sentence)
    print(study.ask(task="report").text)
"""

from ._anatomix import (
    COUNTERPARTS,
    LABELS,
    STRUCTURES,
    TASKS,
    Answer,
    CancelHandle,
    Engine,
    Question,
    Radiograph,
    Stream,
    Study,
    __version__,
    is_saved_study,
    verify_bundle,
)
from ._errors import (
    BundleError,
    DecoderError,
    Error,
    FlaggedError,
    InternalError,
    OnnxRuntimeError,
    OutputError,
    QuestionError,
    RadiographError,
    RetrievalError,
    SavedError,
    StoppedError,
)
from ._records import Box, Evidence, Flag, Grounding, Structure, StructureEvidence

__all__ = [
    "COUNTERPARTS",
    "LABELS",
    "STRUCTURES",
    "TASKS",
    "Answer",
    "Box",
    "BundleError",
    "CancelHandle",
    "DecoderError",
    "Engine",
    "Error",
    "Evidence",
    "Flag",
    "FlaggedError",
    "Grounding",
    "InternalError",
    "OnnxRuntimeError",
    "OutputError",
    "Question",
    "QuestionError",
    "Radiograph",
    "RadiographError",
    "RetrievalError",
    "SavedError",
    "StoppedError",
    "Stream",
    "Structure",
    "StructureEvidence",
    "Study",
    "__version__",
    "is_saved_study",
    "verify_bundle",
]
