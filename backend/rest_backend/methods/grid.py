"""Two pixel grids: the scene's, on which results lie, and the run's, on which the network works.

They are the same unless a resolution was asked for. A result pixel takes the value of
the run pixel in which its centre lies (nearest neighbour), so that windows, masks and
rows handed out never leave the scene's grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rest_backend.errors import InputError
from rest_backend.methods.request import Window

LONGEST_SIDE = 1_000_000  # pixels of a side of the run's grid
LARGEST_CHANGE = 64.0  # times finer or coarser than the scene


@dataclass(frozen=True)
class RunGrid:
    """The scene's grid and the run's, over the same ground.

    Attributes:
        scene_width: Columns of the scene.
        scene_height: Rows of the scene.
        width: Columns the network sees, without padding.
        height: Rows the network sees, without padding.
    """

    scene_width: int
    scene_height: int
    width: int
    height: int

    @property
    def same(self) -> bool:
        """Whether the network runs on the scene's own pixels."""
        return (self.width, self.height) == (self.scene_width, self.scene_height)

    def run_window(self, window: Window) -> Window:
        """Run pixels from which the scene's window takes its values."""
        column, row, width, height = window
        left, right = (self._column(at) for at in (column, column + width - 1))
        top, bottom = (self._row(at) for at in (row, row + height - 1))
        return left, top, right - left + 1, bottom - top + 1

    def scene_window(self, window: Window) -> Window:
        """Scene pixels under a window of the run's padded grid."""
        column, row, width, height = self.seen(window)
        left, right = _cover(column, column + width, self.scene_width, self.width)
        top, bottom = _cover(row, row + height, self.scene_height, self.height)
        return left, top, right - left, bottom - top

    def seen(self, window: Window) -> Window:
        """A window of the run's padded grid without the padding."""
        column, row, width, height = window
        return column, row, min(width, self.width - column), min(height, self.height - row)

    def run_columns(self, window: Window) -> NDArray[np.int64]:
        """For each column of the scene's window, the run's column its centre lies in: int64 ``(width,)``."""
        return _nearest(window[0], window[2], self.scene_width, self.width)

    def run_rows(self, window: Window) -> NDArray[np.int64]:
        """For each row of the scene's window, the run's row its centre lies in: int64 ``(height,)``."""
        return _nearest(window[1], window[3], self.scene_height, self.height)

    def _column(self, at: int) -> int:
        return (2 * at + 1) * self.width // (2 * self.scene_width)

    def _row(self, at: int) -> int:
        return (2 * at + 1) * self.height // (2 * self.scene_height)


def run_grid(width: int, height: int, own_resolution: float | None, resolution_m: float | None) -> RunGrid:
    """The grid for a resolution.

    Args:
        width: Columns of the scene.
        height: Rows of the scene.
        own_resolution: Its metres per pixel on the ground; None where it does not tell.
        resolution_m: Metres per pixel the network shall see; None: the scene's own.

    Raises:
        InputError: ``E_RESOLUTION``: not a length, too far from the scene's, or the scene tells none.
    """
    if resolution_m is None:
        return RunGrid(width, height, width, height)
    if not 0 < resolution_m < float("inf"):
        raise InputError("E_RESOLUTION", f"A resolution is a length in metres, not {resolution_m:g}.")
    if own_resolution is None:
        raise InputError(
            "E_RESOLUTION",
            "The scene does not say how large its pixels are on the ground, so it cannot be brought to"
            f" {resolution_m:g} m. Give it a coordinate reference system, or leave the resolution out.",
        )
    factor = own_resolution / resolution_m
    if not 1 / LARGEST_CHANGE <= factor <= LARGEST_CHANGE or max(width, height) * factor > LONGEST_SIDE:
        raise InputError(
            "E_RESOLUTION",
            f"The scene has {own_resolution:.3g} m per pixel; {resolution_m:g} m is too far from it. Take"
            f" {own_resolution / LARGEST_CHANGE:.2g} to {own_resolution * LARGEST_CHANGE:.2g} m, and at most"
            f" {LONGEST_SIDE:,} pixels a side.",
        )
    return RunGrid(width, height, *(max(1, round(side * factor)) for side in (width, height)))


def _nearest(first: int, count: int, scene: int, run: int) -> NDArray[np.int64]:
    at = np.arange(first, first + count, dtype=np.int64)
    return (2 * at + 1) * run // (2 * scene)


def _cover(start: int, stop: int, scene: int, run: int) -> tuple[int, int]:
    """Scene pixels touched by run pixels ``[start, stop)``."""
    return start * scene // run, -(-stop * scene // run)
