"""Windows that slide down the rows: the arithmetic convolutions and pools share.

With kernel ``k``, stride ``s``, padding ``p`` above and dilation ``d``, output rows
``[a, b)`` need input rows ``[a s - p, (b - 1) s - p + d (k - 1) + 1)``, clipped to the
scene. Rows outside the scene are padding, and only there is padding applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rest_backend.engine.rules.registry import Interval


@dataclass(frozen=True)
class Stencil:
    """A sliding window along one dimension.

    Attributes:
        size: Rows of the whole input.
        kernel: Rows of the window.
        stride: Step between windows, in rows.
        before: Padding above the first row.
        dilation: Distance between the window's rows.
    """

    size: int
    kernel: int
    stride: int
    before: int
    dilation: int = 1

    def source(self, start: int, stop: int) -> Interval:
        """Existing input rows that output rows ``[start, stop)`` see; may be empty."""
        low, high = self._reach(start, stop)
        low = min(max(low, 0), self.size)
        return low, max(low, min(high, self.size))

    def outside(self, start: int, stop: int) -> tuple[int, int]:
        """How many rows of padding output rows ``[start, stop)`` see above and below the scene."""
        low, high = self._reach(start, stop)
        return max(0, min(high, 0) - low), max(0, high - max(low, self.size))

    def pad(self, rows: torch.Tensor, start: int, stop: int, value: float) -> torch.Tensor:
        """Input rows ``source(start, stop)`` of an image ``(N, C, rows, W)`` with the padding they see."""
        above, below = self.outside(start, stop)
        return F.pad(rows, (0, 0, above, below), value=value) if above or below else rows

    def _reach(self, start: int, stop: int) -> Interval:
        low = start * self.stride - self.before
        return low, (stop - 1) * self.stride - self.before + self.dilation * (self.kernel - 1) + 1


def pair(value: int | list[int] | tuple[int, ...] | None, default: int = 1) -> tuple[int, int]:
    """``(rows, columns)`` of an argument given as one number, one or two in a list, or nothing."""
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return default, default
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[-1]))
