"""The network's input: scene rows, normalised, padded, with nodata at the mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from rest_backend.engine import PREFERRED_STRIPES
from rest_backend.models.card import ModelCard
from rest_backend.rasters.scene import Scene
from rest_backend.rasters.statistics import band_statistics

Window = tuple[int, int, int, int]


class SceneInput:
    """Rows of a scene's window as a network wants them.

    Pixels without data get the mean, which is 0 after normalisation; so does the
    padding at the bottom and the right.

    Args:
        scene: The open scene, with the card's bands chosen.
        window: Column, row, width, height in pixels.
        card: The model's card.
        padded: Height and width in pixels the network is run at.
        seed: Of the sample the scene's statistics come from.
        cancelled: Asked while the statistics are computed.

    Attributes:
        notes: What the user should know about the scene's values.
    """

    def __init__(
        self,
        scene: Scene,
        window: Window,
        card: ModelCard,
        padded: tuple[int, int],
        seed: int,
        cancelled: Callable[[], bool],
    ) -> None:
        self._scene, self._window, self._padded = scene, window, padded
        self.notes: tuple[str, ...] = ()
        scale = np.array([band.scale for band in card.bands])
        if card.normalisation.method == "scene":
            statistics = band_statistics(scene, seed=seed, cancelled=cancelled)
            mean, std, self.notes = statistics.mean, statistics.std, statistics.notes
        else:
            mean, std = np.array(card.normalisation.mean) / scale, np.array(card.normalisation.std) / scale
        self._mean = np.asarray(mean, dtype=np.float32).reshape(-1, 1, 1)
        self._factor = (1.0 / np.asarray(std, dtype=np.float64)).astype(np.float32).reshape(-1, 1, 1)
        self._masks: deque[tuple[int, int, NDArray[np.uint8] | None]] = deque()
        self._masked_rows = 0

    def read_rows(self, start: int, stop: int) -> torch.Tensor:
        """Padded rows ``[start, stop)``: float32 ``(1, bands, rows, padded width)``, channels last."""
        column, row, width, height = self._window
        shape = (1, self._scene.count, stop - start, self._padded[1])
        result: torch.Tensor = torch.empty(shape, memory_format=torch.channels_last).zero_()
        real = min(stop, height) - start
        if real > 0:
            values, valid, present = self._scene.read_present(row + start, real, column, width)
            values -= self._mean
            values *= self._factor
            if present is not None:
                values *= present
            if not valid.all():
                values[:, ~valid] = 0.0
            result[0, :, :real, :width] = torch.from_numpy(values)
            self._remember(start, real, valid)
        return result

    def valid_rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Where rows that were read hold data; forgets the rows before ``stop``.

        Returns:
            bool ``(stop - start, width)``.
        """
        width = self._window[2]
        result = np.ones((stop - start, width), dtype=bool)
        for first, count, packed in self._masks:
            low, high = max(first, start), min(first + count, stop)
            if low < high and packed is not None:
                rows = np.unpackbits(packed, axis=1, count=width)[low - first : high - first]
                result[low - start : high - start] = rows.astype(bool)
        while self._masks and self._masks[0][0] + self._masks[0][1] <= stop:
            self._masks.popleft()
        return result

    def _remember(self, start: int, count: int, valid: NDArray[np.bool_]) -> None:
        if start < self._masked_rows:  # a later phase reads the scene again
            return
        self._masked_rows = start + count
        self._masks.append((start, count, None if valid.all() else np.packbits(valid, axis=1)))


def reading_bytes(scene: Scene, width: int, device: torch.device) -> int:
    """Bytes held while a stripe is read: as stored, as float32, where present, and padded."""
    rows = max(PREFERRED_STRIPES[device.type])
    stored = sum(np.dtype(dtype).itemsize for dtype in scene.dtypes)
    return rows * width * (stored + scene.count * (4 + 1 + 4))
