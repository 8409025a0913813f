"""A scene's statistics, remembered for the last scene: previews ask for them again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rest_backend.rasters.readable import ReadableScene
from rest_backend.rasters.statistics import BandStatistics, band_statistics

_last: tuple[Any, BandStatistics] | None = None


def scene_statistics(scene: ReadableScene, seed: int, cancelled: Callable[[], bool]) -> BandStatistics:
    """The statistics of :func:`band_statistics`; read anew when any of the scene's files changed.

    Args:
        scene: The open scene, or its resampled form.
        seed: Of the sample.
        cancelled: Asked while they are computed.

    Raises:
        InputError: ``E_SCENE_DAMAGED``.
        CancelledError: ``cancelled`` said so.
    """
    global _last
    key = _key(scene, seed)
    if _last is not None and _last[0] == key:
        return _last[1]
    statistics = band_statistics(scene, seed=seed, cancelled=cancelled)
    _last = (key, statistics)
    return statistics


def _key(scene: ReadableScene, seed: int) -> Any:
    files: list[tuple[Path, tuple[int, ...] | None]] = []
    for path in (scene.path, *scene.files):
        try:
            found = path.stat()
        except OSError:
            files.append((path, None))
        else:
            files.append((path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)))
    return tuple(files), scene.bands, scene.width, scene.height, seed
