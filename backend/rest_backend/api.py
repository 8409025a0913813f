"""The Python API: the operations of the command line under the same names.

>>> from rest_backend.api import SegmentRequest, segment
>>> segment(SegmentRequest(Path("scene.tif"), Path("classes.tif"), "kitsap-buildings"))
"""

from rest_backend.methods.segment import (
    SegmentProgress,
    SegmentRequest,
    SegmentStart,
    SegmentSummary,
    segment,
)
from rest_backend.methods.verify import VerifyRequest, VerifySummary, verify
from rest_backend.models.zoo import find_model, list_models

__all__ = [
    "SegmentProgress",
    "SegmentRequest",
    "SegmentStart",
    "SegmentSummary",
    "VerifyRequest",
    "VerifySummary",
    "find_model",
    "list_models",
    "segment",
    "verify",
]
