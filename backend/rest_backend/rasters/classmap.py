"""Writing a class map: ids, their legend beside it, overviews by mode."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rest_backend.rasters.legend import MapClass, auxiliary_document, check_classes, style_document
from rest_backend.rasters.mapwriter import NODATA, Layout, MapWriter
from rest_backend.rasters.scene import Scene

__all__ = ["BLOCK", "NODATA", "ClassMapWriter", "class_layout"]

BLOCK = 512  # pixels, height and width of the map's tiles
DISK_SHARE = 1.35  # the rows, and the COG with its overviews at a third of their size


class ClassMapWriter(MapWriter):
    """Writer of one class map; see :class:`~rest_backend.rasters.mapwriter.MapWriter`.

    ``OUT.tif.aux.xml`` and ``OUT.qml`` beside it name and colour its classes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scene: Scene,
        window: tuple[int, int, int, int] | None,
        classes: Sequence[MapClass],
        tags: Mapping[str, str],
    ) -> None:
        """Check what was asked for; nothing is written yet.

        Args:
            path: The output, ending in ``.tif`` or ``.tiff``.
            scene: The scene the map belongs to, still open.
            window: (column, row, width, height) in pixels of the scene; None is all.
            classes: Objects with ``id`` (0-254), ``name`` and ``color`` (``#rrggbb``).
            tags: Provenance, written as TIFF metadata of the default domain.

        Raises:
            InputError: With a code of ``mapwriter``.
            ValueError: Classes that make no map.
        """
        super().__init__(path, scene, window, tags, class_layout(classes))

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Append rows.

        Args:
            row: First row, relative to the window's top; rows come in order, without gaps.
            values: uint8 ``(rows, width)``, ids 0 to 254, 255 where there is no data;
                any number of rows.

        Raises:
            ValueError: Rows out of order, or of another width or type.
            ResourceError: ``E_DISK``.
        """
        self._append(row, values[np.newaxis])


def class_layout(classes: Sequence[MapClass]) -> Layout:
    """The layout of a class map.

    Args:
        classes: Its classes.

    Raises:
        ValueError: Classes that make no map.
    """
    check_classes(classes)
    documents = {".aux.xml": auxiliary_document(classes), ".qml": style_document(classes)}
    return Layout(("class",), BLOCK, "MODE", DISK_SHARE, documents)
