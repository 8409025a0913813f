"""The Python API: the operations of the command line under the same names.

>>> from rest_backend.api import SegmentRequest, models, segment
>>> segment(SegmentRequest(Path("scene.tif"), Path("classes.tif"), "kitsap-buildings"))
"""

from typing import Any

from rest_backend.daemon.serve import serve
from rest_backend.methods.plan import PlanRequest, PlanSummary, plan
from rest_backend.methods.segment import (
    SegmentProgress,
    SegmentRequest,
    SegmentStart,
    SegmentSummary,
    segment,
)
from rest_backend.methods.verify import VerifyRequest, VerifySummary, verify
from rest_backend.models.zoo import list_models, summary

__all__ = [
    "PlanRequest",
    "PlanSummary",
    "SegmentProgress",
    "SegmentRequest",
    "SegmentStart",
    "SegmentSummary",
    "VerifyRequest",
    "VerifySummary",
    "models",
    "plan",
    "segment",
    "serve",
    "verify",
]


def models() -> list[dict[str, Any]]:
    """The installed models, bundled ones first, each as ``rest-backend models --json`` prints it."""
    return [summary(model) for model in list_models()]
