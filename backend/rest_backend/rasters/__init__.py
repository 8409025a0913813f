"""Reading scenes and writing class maps: knows rasterio, not torch and not jobs."""

from __future__ import annotations

from rest_backend.rasters.classmap import NODATA, ClassMapWriter
from rest_backend.rasters.scene import Scene, open_scene
from rest_backend.rasters.statistics import BandStatistics, band_statistics

__all__ = ["NODATA", "BandStatistics", "ClassMapWriter", "Scene", "band_statistics", "open_scene"]
