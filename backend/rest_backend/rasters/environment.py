"""The GDAL settings every read and write of this package runs under.

They are set explicitly, so that neither a user's environment variables nor
GDAL's defaults (a cache of 5 % of the computer's memory) decide how much memory
a job takes, what a foreign file may start, or whether the network is touched.
"""

from __future__ import annotations

import rasterio

MINIMUM_CACHE = 64_000_000  # bytes

# Drivers that fetch over the network what a small local file names.
NETWORK_DRIVERS = frozenset(
    {"DAAS", "EEDA", "EEDAI", "HTTP", "OGCAPI", "PLMOSAIC", "STACIT", "STACTA", "WCS", "WMS", "WMTS"}
)


def raster_environment(cache_bytes: int = MINIMUM_CACHE) -> rasterio.Env:
    """Settings for opening, reading and writing; use it as a context manager.

    GDAL's block cache is one for the whole process: the innermost environment
    decides its size, and leaving it restores the size before.

    Args:
        cache_bytes: Size of GDAL's block cache in bytes.

    Returns:
        The environment, not yet entered. It holds for the entering thread only
        (the size of the cache: for the process), so read in the same thread.
    """
    return rasterio.Env(
        GDAL_CACHEMAX=cache_bytes,  # rasterio passes it on in bytes, whatever its size
        GDAL_SKIP=" ".join(sorted(NETWORK_DRIVERS)),
        CPL_VSIL_CURL_ALLOWED_FILENAME="/none",  # a VRT must not fetch its sources by URL
        GDAL_VRT_ENABLE_PYTHON="NO",
        GDAL_DISABLE_READDIR_ON_OPEN="FALSE",  # finds side files whatever the case of their name
        GDAL_PAM_ENABLED="YES",  # reads SCENE.aux.xml; reading pixels never writes one
        GDAL_NUM_THREADS="1",  # the processors belong to the network
        GTIFF_IGNORE_READ_ERRORS="NO",
        OGR_SQLITE_LOAD_EXTENSIONS="",  # a list: none, whatever the environment says
    )
