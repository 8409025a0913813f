"""Writing confidence and class probabilities: one band a name, 0 to 254 for 0 to 1.

A stored value times 1/254, the band's declared scale, is the score; 255 is nodata.
Overviews are averages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rest_backend.rasters.legend import score_style_document
from rest_backend.rasters.mapwriter import Layout, MapWriter
from rest_backend.rasters.scene import Scene

SCALE = 1 / 254  # of a stored value
SCORE_BLOCK = 256  # pixels, height and width of the tiles; a tile holds all bands
DISK_SHARE = 2.4  # the rows, and a COG that may not compress with a third more for its overviews


class ScoreMapWriter(MapWriter):
    """Writer of one score map; see :class:`~rest_backend.rasters.mapwriter.MapWriter`.

    ``OUT.qml`` beside it shows the first band in grey, 0 black and 1 white.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scene: Scene,
        window: tuple[int, int, int, int] | None,
        names: Sequence[str],
        tags: Mapping[str, str],
    ) -> None:
        """Check what was asked for; nothing is written yet.

        Args:
            path: The output, ending in ``.tif`` or ``.tiff``.
            scene: The scene the scores belong to, still open.
            window: (column, row, width, height) in pixels of the scene; None is all.
            names: Description of each band, such as the classes' names.
            tags: Provenance, written as TIFF metadata of the default domain.

        Raises:
            InputError: With a code of ``mapwriter``.
            ValueError: No names.
        """
        super().__init__(path, scene, window, tags, score_layout(names))

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Append rows.

        Args:
            row: First row, relative to the window's top; rows come in order, without gaps.
            values: uint8 ``(bands, rows, width)``, 0 to 254, 255 where there is no data;
                any number of rows.

        Raises:
            ValueError: Rows out of order, or of another width, type or number of bands.
            ResourceError: ``E_DISK``.
        """
        self._append(row, values)


def score_layout(names: Sequence[str]) -> Layout:
    """The layout of a score map.

    Args:
        names: Description of each band.

    Raises:
        ValueError: No names.
    """
    if not names:
        raise ValueError("a score map needs at least one band")
    return Layout(tuple(names), SCORE_BLOCK, "AVERAGE", DISK_SHARE, {".qml": score_style_document()}, SCALE)
