"""The exceptions of AnatomiX, a class for each part of it."""

from __future__ import annotations


class Error(Exception):
    """Any error of AnatomiX.

    message: names the path or argument, what is wrong with it and what to do.
    code: the name of the C interface's status, in lower case and without ANX_: "radiograph_damaged", "bundle_missing", ...
    cause: what ONNX Runtime, a parser or the operating system said, on one line; None if there was nothing.

    ``str(error)`` is the message with the cause.
    """

    def __init__(self, message: str, code: str = "error", cause: str | None = None) -> None:
        super().__init__(message, code, cause)
        self.message = message
        self.code = code
        self.cause = cause

    def __str__(self) -> str:
        return self.message if self.cause is None else f"{self.message}; caused by: {self.cause}"


class RadiographError(Error):
    """A radiograph cannot be read or used."""


class FlaggedError(Error):
    """The radiograph is flagged not_chest, not_frontal or for_processing, and the question does not accept that."""


class StoppedError(Error):
    """The call was cancelled (code "stopped") or its deadline passed (code "deadline") before it was finished."""


class BundleError(Error):
    """The bundle is missing, damaged or altered, or made for another version."""


class RetrievalError(Error):
    """The bundle's sentence database cannot be used."""


class OnnxRuntimeError(Error):
    """ONNX Runtime or the provider cannot be used, or a graph fails."""


class QuestionError(Error):
    """The question or one of its options cannot be used."""


class DecoderError(Error):
    """The language model cannot answer, or memory lacks for its KV cache."""


class SavedError(Error):
    """Bytes are not a saved study, are damaged, or belong to another bundle or version."""


class OutputError(Error):
    """A DICOM object cannot be made of a result."""


class InternalError(Error):
    """A defect in AnatomiX stopped the call (code "panic"), or an earlier one on the same study (code "poisoned")."""
