"""What can go wrong on QGIS's side before or around a job: a sentence and a stable code."""

from __future__ import annotations


class OrderError(Exception):
    """A job cannot be handed in or has no result; as text, the sentence and the code.

    Attributes:
        code: Stable name of the cause; the daemon's own where it refused or failed the job.
        message: What is wrong and what to do, in one or two sentences.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class SceneError(OrderError):
    """The layer or the area cannot be segmented: ``E_LAYER``, ``E_LAYER_FILE``, ``E_AREA``.

    Where the layer has to be copied: ``E_AREA_NEEDED``, ``E_RESOLUTION_NEEDED``, ``E_COPY_TOO_LARGE``,
    ``E_DISK``, ``E_SOURCE``, ``E_SOURCE_STALLED``, ``E_COPY``.
    """


class AreaError(SceneError):
    """The polygons cannot be used: ``E_AOI_EMPTY``, ``E_AOI_CRS``, ``E_AOI_WRITE``."""


class ModelError(OrderError):
    """The model cannot be used: ``E_MODEL_UNKNOWN``, ``E_CARD_MISSING``, ``E_CARD_INVALID``."""


class RunError(OrderError):
    """The job ended without a result."""
