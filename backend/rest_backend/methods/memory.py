"""Resident memory of this process: now, its peak since a moment, and when there is none left."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from rest_backend.errors import ResourceError

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """Bytes of this process that are in memory now."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Bytes the system can still give without swapping."""
    return int(psutil.virtual_memory().available)


def release_unused() -> None:
    """Give memory back that an earlier job of this process left free but resident."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn every form of "out of memory" into one sentence.

    Args:
        what: What was being done, for the sentence.

    Raises:
        ResourceError: ``E_MEMORY``.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _exhausted(what) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # how torch's CPU allocator says it
            raise
        raise _exhausted(what) from error


def _exhausted(what: str) -> ResourceError:
    return ResourceError(
        "E_MEMORY", f"There was not enough memory to {what}. Close other programs or take a smaller window."
    )


def reset_peak() -> None:
    """Start measuring the peak anew where the system can (Linux); elsewhere it is of the whole process."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Most bytes in memory at once since :func:`reset_peak`, or since the process began."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
