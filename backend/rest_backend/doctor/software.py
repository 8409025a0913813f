"""Versions of what computes, reads and talks."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from rest_backend import __version__
from rest_backend.doctor.check import Check
from rest_backend.wire.messages import PROTOCOL

_PACKAGES = (
    "torch", "torchvision", "timm", "segmentation-models-pytorch", "safetensors", "rasterio", "pyogrio",
    "shapely", "numpy", "pyzmq", "msgspec", "psutil",
)  # fmt: skip


def check_software() -> Check:
    """Versions of backend, Python and the packages underneath; a missing one is a problem."""
    facts: dict[str, str | int] = {"rest-backend": __version__, "protocol": PROTOCOL}
    facts["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    missing = []
    for name in _PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        message = f"These packages are missing: {', '.join(missing)}. Install rest-backend anew."
        return Check("software", "problem", message, facts)
    import rasterio
    import zmq

    facts["gdal"] = rasterio.__gdal_version__
    facts["zeromq"] = zmq.zmq_version()
    shown = ", ".join(
        f"{title} {facts[name]}"
        for title, name in (
            ("torch", "torch"),
            ("rasterio", "rasterio"),
            ("GDAL", "gdal"),
            ("timm", "timm"),
            ("smp", "segmentation-models-pytorch"),
            ("pyzmq", "pyzmq"),
        )
    )
    message = f"rest-backend {__version__}, {facts['python']}, {shown}"
    if not zmq.has("curve"):
        message = (
            f"{message}; pyzmq has no CURVE encryption, so no daemon can run. Install pyzmq anew by pip."
        )
        return Check("software", "problem", message, facts)
    if sys.maxsize < 2**32:
        return Check("software", "problem", f"{message}; a 64-bit Python is needed.", facts)
    return Check("software", "ok", message, facts)
