"""Line buffers: the rows of an activation that consumers still need."""

from __future__ import annotations

import torch


class LineBuffer:
    """A run of rows ``[first, last)`` of an activation.

    Args:
        dim: Which dimension holds the rows.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._first = 0  # row the tensor begins with
        self._low = 0  # first row still needed
        self._rows: torch.Tensor | None = None

    def append(self, rows: torch.Tensor) -> None:
        """Add the rows that follow the last one."""
        if self._rows is None:
            self._rows = rows
        else:
            kept = self._rows.shape[self._dim] - (self._low - self._first)
            self._rows = torch.cat(
                [self._rows.narrow(self._dim, self._low - self._first, kept), rows], self._dim
            )
        self._first = self._low

    def read(self, low: int, high: int) -> torch.Tensor:
        """Rows ``[low, high)`` as a view.

        Raises:
            IndexError: When a row is not held.
        """
        if self._rows is None or low < self._low or high > self._first + self._rows.shape[self._dim]:
            raise IndexError(f"rows {low} to {high} are not held")
        return self._rows.narrow(self._dim, low - self._first, high - low)

    def holds_only(self, low: int, high: int) -> bool:
        """Whether the tensor holds rows ``[low, high)`` and no other."""
        return self._rows is not None and self._first == low and low + self._rows.shape[self._dim] == high

    def drop(self, low: int) -> None:
        """Forget the rows before ``low``; memory is freed once at least half of the buffer is forgotten."""
        self._low = low
        if self._rows is None:
            return
        kept = self._rows.shape[self._dim] - (low - self._first)
        if kept == 0:
            self._rows, self._first = None, low
        elif kept <= self._rows.shape[self._dim] // 2:
            self._rows, self._first = self._rows.narrow(self._dim, low - self._first, kept).clone(), low
