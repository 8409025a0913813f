"""Products: from finished logits to bytes on the scene's grid, masked and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rest_backend.methods.grid import RunGrid
from rest_backend.methods.network_input import NetworkInput
from rest_backend.methods.request import MaskRows, SegmentRequest, Window
from rest_backend.models.card import ModelCard

NODATA = 255
FULL_SCORE = 254  # the byte of a score of 1
VALUES_AT_ONCE = 4 * 1024**2  # float32 values of scores computed in one go, whatever the number of classes
_COPIES = 4  # of these values: the logits picked, their softmax, and what is made of it

OnPlanes = Callable[[int, NDArray[np.uint8]], None]


class Products:
    """What is computed of each pixel's logits.

    Args:
        card: The model's card.
        confidence: Whether the highest softmax is wanted.
        probabilities: Whether the softmax of every class is wanted.

    Attributes:
        names: ``classes``, ``confidence``, ``probability-ID`` for each class; those wanted, in this order.
    """

    def __init__(self, card: ModelCard, *, confidence: bool, probabilities: bool) -> None:
        self._ids = torch.tensor([entry.id for entry in card.classes], dtype=torch.uint8)
        self._confidence, self._probabilities = confidence, probabilities
        self.names: tuple[str, ...] = (
            "classes",
            *(("confidence",) if confidence else ()),
            *(f"probability-{entry.id}" for entry in card.classes if probabilities),
        )

    @classmethod
    def of(cls, request: SegmentRequest, card: ModelCard) -> Products:
        """What a request asks for."""
        confidence, probabilities = request.confidence is not None, request.probabilities is not None
        return cls(card, confidence=confidence, probabilities=probabilities)

    def planes(self, logits: torch.Tensor) -> NDArray[np.uint8]:
        """Bytes of pixels.

        Args:
            logits: float ``(classes, rows, columns)`` on any device.

        Returns:
            uint8 ``(products, rows, columns)``: class ids, and scores of 0 to 1 as 0 to 254.
        """
        ids = self._ids.to(logits.device)[logits.argmax(0)]
        parts = [ids[None]]
        if self._confidence or self._probabilities:
            scores = torch.softmax(logits, dim=0).mul_(FULL_SCORE).round_()
            if self._confidence:
                parts.append(scores.amax(0, keepdim=True).to(torch.uint8))
            if self._probabilities:
                parts.append(scores.to(torch.uint8))
        return torch.cat(parts).cpu().numpy()


class ResultRows:
    """Takes finished rows of the network and hands out the result's, in order and without gap.

    Args:
        products: What to compute.
        grid: The scene's grid and the run's.
        window: Column, row, width, height of the result, in pixels of the scene.
        read_window: What the network runs on, in pixels of the padded run grid.
        source: The network's input, which knows where there is data.
        masks: ``mask(start, stop)`` gives where rows of the result may have a value, bool ``(rows, width)``.
        on_planes: ``on_planes(row, values)`` with uint8 ``(products, rows, width)``; rows count from
            the result's top.

    Attributes:
        done: Result rows handed out.
        valid_pixels: Pixels of these with a class.
    """

    def __init__(
        self,
        products: Products,
        grid: RunGrid,
        window: Window,
        read_window: Window,
        source: NetworkInput,
        masks: list[MaskRows],
        on_planes: OnPlanes,
    ) -> None:
        self._products, self._source, self._masks, self._on_planes = products, source, masks, on_planes
        self._rows = grid.run_rows(window) - read_window[1]  # of what the network hands out
        self._columns = _Nearest(grid.run_columns(window) - read_window[0])
        self._width = window[2]
        self.done = 0
        self.valid_pixels = 0

    def take(self, start: int, logits: torch.Tensor) -> None:
        """Take finished rows of the network: ``(1, classes, rows, columns)``."""
        stop = start + logits.shape[2]
        valid = self._source.valid_rows(start, stop)
        last = int(np.searchsorted(self._rows, stop))
        for low, high in self._portions(last, logits.shape[1]):
            rows = _Nearest(self._rows[low:high] - start)
            planes = self._products.planes(logits[0][:, rows.among][:, :, self._columns.among])
            values = np.ascontiguousarray(self._columns.repeat(rows.repeat(planes, 1), 2))
            shown = valid[rows.among][:, self._columns.among]
            shown = self._columns.repeat(rows.repeat(shown, 0), 1)
            for mask in self._masks:
                shown = shown & mask(low, high)
            values[:, ~shown] = NODATA
            self.valid_pixels += int(np.count_nonzero(shown))
            self.done = high
            self._on_planes(low, values)

    def _portions(self, last: int, classes: int) -> Iterator[tuple[int, int]]:
        """Result rows up to ``last``, a bounded number at a time."""
        at_once = rows_at_once(classes, self._width)
        for low in range(self.done, last, at_once):
            yield low, min(low + at_once, last)


def rows_at_once(classes: int, width: int) -> int:
    """Result rows whose scores are computed in one go."""
    return max(1, VALUES_AT_ONCE // (classes * width))


def product_bytes(classes: int, planes: int, width: int, rows: int) -> int:
    """Bytes held while a portion of rows becomes products.

    Args:
        classes: Classes of the network.
        planes: Products.
        width: Columns of the result.
        rows: Most result rows that become final at once.
    """
    rows = min(rows, rows_at_once(classes, width))
    return rows * width * (4 * classes * _COPIES + 8 + 2 * planes + 4)


class _Nearest:
    """Where the result's rows (or columns) lie among the network's, which may be more or fewer.

    Attributes:
        among: Index of those of the network's that are needed, each once.
    """

    def __init__(self, at: NDArray[np.int64]) -> None:
        found, back = np.unique(at, return_inverse=True)
        first, last = int(found[0]), int(found[-1])
        gapless = last - first + 1 == len(found)
        self.among: slice | NDArray[np.int64] = slice(first, last + 1) if gapless else found
        self._back = None if len(found) == len(at) else back

    def repeat(self, values: NDArray[Any], axis: int) -> NDArray[Any]:
        """What was picked with :attr:`among`, once for each row (or column) of the result."""
        return values if self._back is None else np.take(values, self._back, axis=axis)
