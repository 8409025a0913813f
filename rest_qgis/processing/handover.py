"""From a layer and an area in QGIS to the files and the window the daemon reads.

One way for the dock and the toolbox: a :class:`Handover` is made on the main thread and
written on another. A layer that is a file is handed over by its path, and costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, NamedTuple

from qgis.core import QgsMapLayer, QgsProject, QgsRectangle, QgsReferencedRectangle
from qgis.PyQt.QtCore import QCoreApplication

from rest_qgis.processing.area import Area
from rest_qgis.processing.copies import STALL_SECONDS, LayerCopy
from rest_qgis.processing.errors import SceneError
from rest_qgis.processing.scene import Window, box_in, checked_raster, needs_copy, placement, scene_window

SCENE_NAME = "scene.tif"


class Handed(NamedTuple):
    """What goes into an order.

    Attributes:
        scene: The scene's file.
        window: Its part that was asked for by an extent; None is all of it.
        aoi: The file of polygons; empty for none.
        resolution_m: The ground resolution the network shall see, as an order has it: 0 where a
            rendered map was drawn in it.
        notes: What the user should know.
    """

    scene: str
    window: Window | None
    aoi: str
    resolution_m: float
    notes: tuple[str, ...]


class Handover:
    """A layer, and what part of it is wanted.

    Attributes:
        copies: Whether pixels have to be copied, which takes time and room.
        expected_resolution: Metres; what a rendered map is drawn in where no resolution was asked for,
            best the model's. May be set until :meth:`write`.
    """

    def __init__(
        self,
        layer: QgsMapLayer | None,
        extent: QgsReferencedRectangle | None = None,
        area: Area | None = None,
        resolution: float = 0.0,
        expected_resolution: float = 0.0,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Take what is needed of the layer; on the main thread.

        Args:
            layer: The raster layer.
            extent: Only this box gets classes; with an area, where both are.
            area: Only these polygons get classes.
            resolution: Metres of ground a pixel shall cover for the network; 0: as the layer has it.
            expected_resolution: See above; 0: unknown yet.
            stall_seconds: A network source that gives nothing for so long is given up.

        Raises:
            SceneError: The layer cannot be segmented at all, the extent and the area do not meet, or
                (``E_AREA_NEEDED``) the layer has no end and no area was given.
        """
        raster = checked_raster(layer)
        self.copies = needs_copy(raster)
        self.expected_resolution = expected_resolution
        self._crs = raster.crs()
        self._extent = extent
        self._area = area
        self._resolution = resolution
        self._context = QgsProject.instance().transformContext()
        box = self._box()
        self._placement = None if self.copies else placement(raster)
        self._copy = LayerCopy(raster, box, stall_seconds=stall_seconds) if self.copies else None

    def write(self, folder: Callable[[], Path], feedback: Any) -> Handed:
        """Write what has to be written; waits, so on a background thread.

        Args:
            folder: Makes the folder of the job's own files; asked only where something is written.
            feedback: A ``QgsFeedback`` or ``QgsTask``: told the progress of a copy, looked at for a cancel.

        Raises:
            SceneError: As of :class:`~rest_qgis.processing.copies.LayerCopy` and
                :class:`~rest_qgis.processing.area.Area`, and where the extent does not touch the scene.
            RunError: ``E_CANCELLED``.
        """
        notes: tuple[str, ...] = ()
        scene, resolution = self._placement, self._resolution
        if self._copy is not None:
            self._copy.resolution = self._resolution or self.expected_resolution
            scene, notes = self._copy.write(folder() / SCENE_NAME, feedback)
            resolution = 0.0 if self._copy.rendered else self._resolution
        window = None
        if self._extent is not None:
            window = scene_window(scene.path, self._crs, self._extent, self._extent.crs(), self._context)
        aoi = ""
        if self._area is not None:
            aoi = self._area.write(folder(), scene, self._context, feedback)
        return Handed(scene.path, window, aoi, resolution, notes)

    def _box(self) -> QgsRectangle | None:
        """The box around all that is wanted, in the layer's coordinates; None: the whole layer."""
        boxes = []
        if self._extent is not None:
            boxes.append(box_in(self._crs, self._extent, self._extent.crs(), self._context))
        if self._area is not None:
            boxes.append(box_in(self._crs, self._area.extent, self._area.crs, self._context))
        if len(boxes) == 2 and not boxes[0].intersects(boxes[1]):
            message = QCoreApplication.translate("Handover", "The extent and the polygons do not meet.")
            raise SceneError("E_AREA", message)
        return boxes[0].intersect(boxes[-1]) if boxes else None
