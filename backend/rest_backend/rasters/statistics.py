"""Mean and spread of a scene's bands, from a seeded sample of full-resolution blocks.

The sample lies on a grid of the scene's own pixels, never on overviews and never
on the file's tiles or strips: a scene gives the same numbers, to the last bit,
however it is stored and whatever overviews it has. Blocks are visited from the top
down, so that formats that can only be decoded in order (PNG, JPEG) are decoded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rest_backend.errors import CancelledError
from rest_backend.rasters.readable import ReadableScene

BLOCK = 256  # pixels, height and width of a block of the sample
ENOUGH_VALID = BLOCK * BLOCK  # valid pixels below which further blocks are read
VALUES_AT_ONCE = 4 * 1024**2  # float32 values read in one go, whatever the number of bands
NOTABLE_ZEROS = 0.01  # share of pixels that are 0 in every band from which the user is told


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """Statistics of a scene's chosen bands over valid pixels.

    Attributes:
        mean: float64 ``(count,)``; 0 for a band without any value.
        std: float64 ``(count,)``, of the population; 1 for a constant band.
        valid_share: Valid pixels of those sampled, 0 to 1; 0 means that the whole
            scene was read and holds no valid pixel.
        notes: Sentences for the user, such as fill that no nodata value declares.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    valid_share: float
    notes: tuple[str, ...] = ()


def band_statistics(
    scene: ReadableScene,
    seed: int = 0,
    blocks: int = 64,
    cancelled: Callable[[], bool] | None = None,
) -> BandStatistics:
    """Estimate each band's mean and standard deviation.

    A scene of at most ``blocks`` blocks is read whole. Otherwise as many are drawn,
    and further ones as long as they hold less than one block's worth of valid
    pixels, in the end all: a scene is only called empty when it is.

    Args:
        scene: An open scene, or one at another size.
        seed: Seed of the draw; the same seed gives the same numbers.
        blocks: Blocks of 256 x 256 pixels to draw at first.
        cancelled: Asked between blocks whether to give up.

    Returns:
        The statistics, float64.

    Raises:
        InputError: ``E_SCENE_DAMAGED``.
        CancelledError: ``cancelled`` said so.
    """
    if blocks < 1:
        raise ValueError("at least one block is needed")
    moments = _Moments(scene.count)
    sampled = valid_pixels = zero_pixels = 0
    stored_zero = np.array(scene.offsets, dtype=np.float32).reshape(-1, 1, 1)
    for windows in _rounds(scene, seed, blocks):
        if valid_pixels >= ENOUGH_VALID:
            break
        for column, row, width, height in windows:
            if cancelled is not None and cancelled():
                raise CancelledError
            values, valid, present = scene.read_present(row, height, column, width)
            sampled += width * height
            found = int(np.count_nonzero(valid))
            if not found:
                continue
            valid_pixels += found
            zero_pixels += int(np.count_nonzero(valid & (values == stored_zero).all(axis=0)))
            for band in range(scene.count):
                counted = valid if present is None else valid & present[band]
                moments.add(band, values[band][counted])
    return BandStatistics(
        mean=moments.mean,
        std=moments.std(),
        valid_share=valid_pixels / sampled,
        notes=_notes(scene, valid_pixels, zero_pixels),
    )


class _Moments:
    """Running mean and sum of squared deviations of each band.

    Merged by the pairwise update of Chan, Golub and LeVeque, "Updating Formulae and
    a Pairwise Algorithm for Computing Sample Variances" (1979).
    """

    def __init__(self, bands: int) -> None:
        self.count = np.zeros(bands, dtype=np.int64)
        self.mean = np.zeros(bands, dtype=np.float64)
        self._squares = np.zeros(bands, dtype=np.float64)

    def add(self, band: int, values: NDArray[np.float32]) -> None:
        """Add a band's values, any number of them."""
        if not values.size:
            return
        exact = values.astype(np.float64)
        mean = float(exact.mean())
        squares = float(np.square(exact - mean).sum())
        before, added = int(self.count[band]), exact.size
        total = before + added
        shift = mean - float(self.mean[band])
        self.mean[band] += shift * added / total
        self._squares[band] += squares + shift * shift * before * added / total
        self.count[band] = total

    def std(self) -> NDArray[np.float64]:
        """Standard deviations, 1 where a band is constant but for rounding."""
        std = np.sqrt(self._squares / np.maximum(self.count, 1))
        std[std <= 1e-9 * np.abs(self.mean)] = 1.0
        return std


def _rounds(scene: ReadableScene, seed: int, blocks: int) -> Iterator[Iterator[tuple[int, int, int, int]]]:
    """Rounds of `blocks` drawn blocks each, as windows (column, row, width, height) from the top down."""
    number = math.ceil(scene.width / BLOCK) * math.ceil(scene.height / BLOCK)
    order = np.arange(number) if number <= blocks else np.random.default_rng(seed).permutation(number)
    for first in range(0, number, blocks):
        yield _windows(scene, np.sort(order[first : first + blocks]).tolist())


def _windows(scene: ReadableScene, blocks: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """The blocks' windows, cut into fewer rows where many bands make them large."""
    across = math.ceil(scene.width / BLOCK)
    rows_at_once = max(1, min(BLOCK, VALUES_AT_ONCE // (scene.count * BLOCK)))
    for block in blocks:
        top, left = block // across * BLOCK, block % across * BLOCK
        bottom, width = min(top + BLOCK, scene.height), min(BLOCK, scene.width - left)
        for row in range(top, bottom, rows_at_once):
            yield left, row, width, min(rows_at_once, bottom - row)


def _notes(scene: ReadableScene, valid_pixels: int, zero_pixels: int) -> tuple[str, ...]:
    if valid_pixels == 0:
        return ("The scene holds no valid pixel: the result is empty.",)
    share = zero_pixels / valid_pixels
    if any(value is not None for value in scene.nodata) or share < NOTABLE_ZEROS:
        return ()
    return (
        f"About {share:.0%} of the scene is 0 in every band, and it declares no nodata value: these pixels "
        "are treated as data. If they are empty, give the scene the nodata value 0.",
    )
