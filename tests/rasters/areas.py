"""Areas, scenes and the truth about them for the tests of areas."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray

from rest_backend.errors import InputError
from rest_backend.rasters import vectors
from rest_backend.rasters.area import Area, read_area
from rest_backend.rasters.scene import Scene, open_scene
from tests.rasters.makers import write_raster

UTM = "EPSG:32633"
SIMPLE = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 5_700_000.0)


def save(path: Path, shapes: list[Any], crs: str | None = UTM, **options: Any) -> Path:
    kinds = {shape.geom_type + " Z" * shape.has_z for shape in shapes if shape is not None}
    geometry = np.empty(len(shapes), dtype=object)
    geometry[:] = [None if shape is None else shapely.to_wkb(shape) for shape in shapes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no CRS was given"
        pyogrio.raw.write(
            path,
            geometry,
            [],
            [],
            geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown",
            crs=crs,
            **options,
        )
    return path


def scene_file(
    folder: Path,
    width: int = 200,
    height: int = 150,
    transform: Affine | None = SIMPLE,
    crs: str | None = UTM,
) -> Path:
    return write_raster(
        folder / "scene.tif", np.ones((1, height, width), np.uint8), transform=transform, crs=crs
    )


def whole(area: Area, scene: Scene) -> NDArray[np.bool_]:
    """The mask on the whole scene."""
    result = np.zeros((scene.height, scene.width), dtype=bool)
    column, row, width, height = area.window
    result[row : row + height, column : column + width] = area.mask_rows(0, height)
    return result


def by_centres(shape: Any, scene: Scene) -> NDArray[np.bool_]:
    """The rule itself: pixels whose centre lies inside a shape in the scene's coordinates."""
    columns, rows = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)
    x, y = place(scene.transform, columns, rows)
    shapely.prepare(shape)
    return np.asarray(shapely.contains_xy(shape, x, y))


def place(transform: Affine, column: Any, row: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = transform[:6]
    return a * column + b * row + c, d * column + e * row + f


def star(x: float, y: float, radius: float, points: int = 9) -> Any:
    turns = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False) + 0.1
    reach = np.where(np.arange(2 * points) % 2, 0.41, 1.0) * radius
    return shapely.Polygon(np.column_stack([x + reach * np.cos(turns), y + reach * np.sin(turns)]))


STAR = star(401_003.3, 5_699_251.7, 611.1)


def refused(path: Path | str, scene: Path, window: Any = None) -> tuple[str, str]:
    with open_scene(scene) as opened, pytest.raises(InputError) as failed:
        read_area(path, opened, window)
    assert failed.value.message.endswith((".", ")."))
    return failed.value.code, failed.value.message


def read(file: Path, scene: Path) -> NDArray[Any]:
    with open_scene(scene):
        return vectors.read_polygons(file).shapes
