"""The network's input: rows of the run's grid, normalised, padded, with nodata at the mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rest_backend.engine import PREFERRED_STRIPES
from rest_backend.methods.request import Window
from rest_backend.methods.statistics_cache import scene_statistics
from rest_backend.models.card import ModelCard
from rest_backend.rasters.readable import ReadableScene


@dataclass(frozen=True, eq=False)
class Normalisation:
    """How band values become the network's input: ``(value - mean) / std``, in the units they are read in.

    Attributes:
        mean: float64 ``(bands,)``.
        std: float64 ``(bands,)``.
        notes: What the user should know about the scene's values.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def normalisation(
    scene: ReadableScene, card: ModelCard, seed: int, cancelled: Callable[[], bool]
) -> Normalisation:
    """Normalisation of a scene for a model: the card's own, or from statistics of the whole scene.

    Args:
        scene: The open scene, or its resampled form, with the card's bands chosen.
        card: The model's card.
        seed: Of the sample the statistics come from.
        cancelled: Asked while they are computed.

    Raises:
        InputError: ``E_SCENE_DAMAGED``.
        CancelledError: ``cancelled`` said so.
    """
    if card.normalisation.method == "scene":
        statistics = scene_statistics(scene, seed, cancelled)
        return Normalisation(statistics.mean, statistics.std, statistics.notes)
    scale = np.array(  # of plain stored values; a raster that declares its own is read in scaled units
        [
            band.scale if (own, offset) == (1.0, 0.0) else 1.0
            for band, own, offset in zip(card.bands, scene.scales, scene.offsets, strict=True)
        ]
    )
    mean, std = np.array(card.normalisation.mean), np.array(card.normalisation.std)
    return Normalisation(mean / scale, std / scale)


class NetworkInput:
    """Rows of a window of the padded grid, as a network wants them.

    Pixels without data get the mean, which is 0 after normalisation; so does the
    padding at the bottom and the right.

    Args:
        scene: The open scene, or its resampled form, with the card's bands chosen.
        window: Column, row, width, height in pixels of the padded grid: what the network is run on.
        values: Normalisation of the scene.
    """

    def __init__(self, scene: ReadableScene, window: Window, values: Normalisation) -> None:
        self._scene = scene
        self._column, self._row, self._padded_width, _ = window
        self._width = max(0, min(self._column + window[2], scene.width) - self._column)
        self._height = max(0, min(self._row + window[3], scene.height) - self._row)
        self._mean = values.mean.astype(np.float32).reshape(-1, 1, 1)
        self._factor = (1.0 / values.std).astype(np.float32).reshape(-1, 1, 1)
        self._masks: deque[tuple[int, int, NDArray[np.uint8] | None]] = deque()
        self._masked_rows = 0

    def read_rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``[start, stop)`` of the window: float32 ``(1, bands, rows, width)``, channels last."""
        shape = (1, self._scene.count, stop - start, self._padded_width)
        result: torch.Tensor = torch.empty(shape, memory_format=torch.channels_last).zero_()
        real = min(stop, self._height) - start
        if real > 0 and self._width > 0:
            values, valid, present = self._scene.read_present(
                self._row + start, real, self._column, self._width
            )
            values -= self._mean
            values *= self._factor
            if present is not None:
                values *= present
            if not valid.all():
                values[:, ~valid] = 0.0
            result[0, :, :real, : self._width] = torch.from_numpy(values)
            self._remember(start, real, valid)
        return result

    def valid_rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Where rows of the window that were read hold data; forgets the rows before ``stop``.

        Returns:
            bool ``(stop - start, width)``; False in the padding.
        """
        result = np.zeros((stop - start, self._padded_width), dtype=bool)
        for first, count, packed in self._masks:
            low, high = max(first, start), min(first + count, stop)
            if low < high:
                rows: NDArray[np.bool_] | bool = True
                if packed is not None:
                    unpacked = np.unpackbits(packed, axis=1, count=self._width)
                    rows = unpacked[low - first : high - first].astype(bool)
                result[low - start : high - start, : self._width] = rows
        while self._masks and self._masks[0][0] + self._masks[0][1] <= stop:
            self._masks.popleft()
        return result

    def _remember(self, start: int, count: int, valid: NDArray[np.bool_]) -> None:
        if start < self._masked_rows:  # a later phase reads the scene again
            return
        self._masked_rows = start + count
        self._masks.append((start, count, None if valid.all() else np.packbits(valid, axis=1)))


def reading_bytes(scene: ReadableScene, width: int, device: torch.device) -> int:
    """Bytes held while a stripe is read: as stored, as float32, where present, and padded.

    Args:
        scene: The scene, or its resampled form.
        width: Columns read, padding included.
        device: Device of the sweep, which decides how many rows a stripe may have.
    """
    rows = max(PREFERRED_STRIPES[device.type])
    stored = sum(np.dtype(dtype).itemsize for dtype in scene.dtypes)
    return scene.held_bytes + rows * width * (stored + scene.count * (4 + 1 + 4))
