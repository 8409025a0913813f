"""Stored tensors: what outlives a phase, in memory or in a mapped temporary file.

The pages of a mapped file count as resident memory while they are mapped in; they
are given back to the system after each stripe is written or read.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from math import prod
from pathlib import Path

import torch

from rest_backend.errors import ResourceError


class StoredTensor:
    """A whole-scene tensor written and read by rows.

    Rows lie one behind the other whatever the shape, so that any interval of rows
    is one piece of memory.

    Args:
        shape: Whole-scene shape.
        dim: Dimension of the rows.
        dtype: Element type.
        device: Where it lives when it is in memory.
        folder: Folder for the temporary file; None keeps it in memory.

    Raises:
        ResourceError: ``E_DISK`` when the folder's disk has no room for the file.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dim: int,
        dtype: torch.dtype,
        device: torch.device,
        folder: Path | None = None,
    ) -> None:
        self._dim = dim
        self._device = device
        # Rows first, channels last: the order of a channels-last image.
        last = (1,) if dim != 1 and len(shape) > 1 else ()
        self._order = (dim, *(d for d in range(len(shape)) if d not in (dim, 1)), *last)
        physical = tuple(shape[d] for d in self._order)
        self._row_bytes = prod(physical[1:]) * dtype.itemsize
        self._map: mmap.mmap | None = None
        if folder is None:
            flat = torch.empty(physical, dtype=dtype, device=device)
        else:
            self._map = _map_file(folder, max(1, physical[0] * self._row_bytes))
            flat = torch.frombuffer(self._map, dtype=dtype, count=prod(physical)).view(physical)
        inverse = [self._order.index(d) for d in range(len(shape))]
        self._tensor = flat.permute(inverse)

    def write(self, low: int, rows: torch.Tensor) -> None:
        """Store rows from ``low`` on."""
        count = rows.shape[self._dim]
        self._tensor.narrow(self._dim, low, count).copy_(rows)
        self._give_back(low, low + count)

    def read(self, low: int, high: int) -> torch.Tensor:
        """Rows ``[low, high)``; a view when in memory, a copy when in a file."""
        rows = self._tensor.narrow(self._dim, low, high - low)
        if self._map is None:
            return rows
        copied = rows.clone().to(self._device)
        self._give_back(low, high)
        return copied

    def whole(self) -> torch.Tensor:
        """All rows, on the device."""
        return self._tensor.to(self._device)

    def _give_back(self, low: int, high: int) -> None:
        if self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = low * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, start, min(high * self._row_bytes, len(self._map)) - start)


def _map_file(folder: Path, size: int) -> mmap.mmap:
    """A mapped temporary file that takes its room now: a disk found full later would kill the process."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix="rest-stored-") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise ResourceError(
            "E_DISK",
            f"{folder} has no room for {size / 1e6:,.0f} MB of intermediate results: {error.strerror}.",
        ) from error
