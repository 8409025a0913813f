"""REST for QGIS: whole-scene segmentation, the backend.

Importing this package imports nothing heavy: torch is loaded by ``engine``,
rasterio by ``rasters``, and neither by ``daemon.broker``.
"""

__version__ = "0.1.0"
