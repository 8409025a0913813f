"""Write the sample scene and the labels of its test block into ``resources/scenes``.

    python resources/make_scene.py

``kitsap.tif``: 2560 x 2560 pixels of the Kitsap pair, a JPEG-compressed COG with overviews.
``kitsap_test_labels.tif``: the building labels of the test block only (see ``kitsap.py``), so that
anyone can check the score in the model's card.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import kitsap
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy
from rasterio.windows import transform

ROOT = Path(__file__).resolve().parents[1]
QUALITY = 92  # JPEG: a mean difference of 2 grey values; the file must stay below 6 MB


def main() -> None:
    """Cut both files out of the pair."""
    parser = argparse.ArgumentParser(description="Write the sample scene and its test labels.")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "training", help="downloads")
    cache = parser.parse_args().work / "cache"
    folder = ROOT / "resources" / "scenes"
    imagery, labels = kitsap.read_pair(cache)
    with rasterio.open(kitsap.fetch_pair(cache)[0]) as pair:
        crs = pair.crs
        scene_transform = transform(kitsap.DEMO, pair.transform)
    test = transform(kitsap.TEST, scene_transform)
    scene = imagery[(slice(None), *kitsap.DEMO.toslices())]
    write_cog(
        folder / "kitsap.tif",
        scene,
        crs,
        scene_transform,
        compress="JPEG",
        quality=QUALITY,
        overview_quality=75,
        overview_resampling="average",
    )
    block = labels[kitsap.DEMO.toslices()][kitsap.TEST.toslices()]
    write_cog(
        folder / "kitsap_test_labels.tif",
        block[None],
        crs,
        test,
        compress="DEFLATE",
        level=9,
        nbits=1,
        overviews="NONE",
    )


def write_cog(
    path: Path, values: NDArray[np.uint8], crs: Any, geotransform: Any, **options: str | int
) -> None:
    """Write a cloud-optimised GeoTIFF.

    Args:
        path: File to write.
        values: (bands, height, width) uint8.
        crs: Coordinate reference system.
        geotransform: Affine transform of the first pixel's corner.
        options: Creation options of GDAL's COG driver.
    """
    partial = path.with_name(path.name + ".partial.tif")
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "crs": crs,
        "transform": geotransform,
    }
    with rasterio.Env(GDAL_PAM_ENABLED=False), rasterio.MemoryFile() as memory:  # no .aux.xml beside it
        with memory.open(**profile) as dataset:
            dataset.write(values)
        with memory.open() as dataset:
            copy(dataset, partial, driver="COG", blocksize=512, **options)
    partial.replace(path)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
