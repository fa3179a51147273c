"""Where ONNX Runtime's library is."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def find() -> str | None:
    """The path of the library in the installed package onnxruntime, which is not imported.

    None if the environment variable ORT_DYLIB_PATH names a library, or there is no such package; the engine then looks for one itself.
    """
    if os.environ.get("ORT_DYLIB_PATH"):
        return None
    # The wheels onnxruntime and onnxruntime-gpu install the same package.
    package = importlib.util.find_spec("onnxruntime")
    for folder in (package and package.submodule_search_locations) or []:
        for library in sorted(Path(folder, "capi").glob("libonnxruntime.so*")):
            return str(library)
    return None
