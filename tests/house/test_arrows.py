"""The arrows between the rooms, as the table in docs/architecture.md has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import BACKEND, PLUGIN, Import, imports, name_of

# Room: what it may import beside the standard library and itself.
# A folder's entry holds for its files; a file's own entry replaces its folder's.
BACKEND_ROOMS = {
    "": set(),
    "engine": {"torch", "numpy", "rest_backend.errors"},
    "models": {
        "torch",
        "torchvision",
        "timm",
        "segmentation_models_pytorch",
        "safetensors",
        "msgspec",
        "rest_backend.errors",
        "rest_backend.bundled",
    },
    "models/card.py": {"msgspec", "rest_backend.errors"},
    "models/zoo.py": {
        "msgspec",
        "platformdirs",
        "rest_backend.models.card",
        "rest_backend.errors",
        "rest_backend.bundled",
    },
    "rasters": {"rasterio", "numpy", "affine", "pyogrio", "shapely", "rest_backend.errors"},
    "metrics": {"numpy", "rest_backend.errors"},
    "methods": {
        "torch",
        "numpy",
        "psutil",
        "rest_backend.engine",
        "rest_backend.models",
        "rest_backend.rasters",
        "rest_backend.metrics",
        "rest_backend.errors",
        "rest_backend.__version__",
    },
    "wire": {"msgspec", "rest_backend.errors"},
    "daemon": {
        "zmq",
        "msgspec",
        "psutil",
        "platformdirs",
        "rest_backend.wire",
        "rest_backend.errors",
        "rest_backend.models.zoo",
        "rest_backend.models.card",
        "rest_backend.__version__",
    },
    "daemon/worker.py": {
        "msgspec",
        "numpy",
        "zmq",
        "psutil",
        "torch",
        "rest_backend.daemon",
        "rest_backend.threads",
        "rest_backend.wire",
        "rest_backend.methods",
        "rest_backend.models.zoo",
        "rest_backend.errors",
        "rest_backend.__version__",
    },
    "__main__.py": {"rest_backend.cli"},
    "doctor": {
        "torch",
        "rasterio",
        "psutil",
        "zmq",
        "rest_backend.methods",
        "rest_backend.models",
        "rest_backend.daemon",
        "rest_backend.wire",
        "rest_backend.errors",
        "rest_backend.__version__",
        "rest_backend.__file__",
    },
    "commands": {
        "click",
        "rich",
        "rest_backend.methods",
        "rest_backend.models.zoo",
        "rest_backend.daemon",
        "rest_backend.doctor",
        "rest_backend.errors",
    },
    "cli.py": {"click", "rest_backend"},
    "api.py": {"rest_backend"},
}
PLUGIN_ROOMS = {
    "": {"qgis", "rest_qgis"},
    "install": set(),
    "client": {"zmq", "rest_qgis.install", "rest_qgis.__version__"},
    "layers": {"qgis", "osgeo", "rest_qgis.client", "rest_qgis.install", "rest_qgis.resources"},
    "processing": {
        "qgis",
        "osgeo",
        "processing",
        "rest_qgis.client",
        "rest_qgis.layers",
        "rest_qgis.install",
        "rest_qgis.resources",
    },
    "gui": {
        "qgis",
        "processing",
        "rest_qgis.processing",
        "rest_qgis.layers",
        "rest_qgis.client",
        "rest_qgis.install",
        "rest_qgis.resources",
    },
}
# The standard library's database belongs to the daemon alone.
SQLITE_ROOMS = {"daemon"}


def _room(path: Path, top: Path, rooms: dict[str, set[str]]) -> str:
    inside = path.relative_to(top).as_posix()
    if inside in rooms:
        return inside
    return inside.split("/")[0] if "/" in inside else ""


def _wrong(path: Path, top: Path, rooms: dict[str, set[str]]) -> list[str]:
    room = _room(path, top, rooms)
    assert room in rooms, f"{name_of(path)} is in no room of docs/architecture.md"
    own = ".".join([top.name, *room.removesuffix(".py").split("/")]).rstrip(".")
    allowed = rooms[room] | ({own} if room else set())

    def permitted(found: Import) -> bool:
        if found.root == "sqlite3":
            return room.split("/")[0] in SQLITE_ROOMS
        if found.root in sys.stdlib_module_names or found.module == top.name:
            return True
        return any(found.module == name or found.module.startswith(name + ".") for name in allowed)

    return [f"{found.place} imports {found.module}" for found in imports(path, top) if not permitted(found)]


@pytest.mark.parametrize("path", sorted(BACKEND.rglob("*.py")), ids=name_of)
def test_backend_arrows(path: Path) -> None:
    assert _wrong(path, BACKEND, BACKEND_ROOMS) == []


@pytest.mark.parametrize("path", sorted(PLUGIN.rglob("*.py")), ids=name_of)
def test_plugin_arrows(path: Path) -> None:
    assert _wrong(path, PLUGIN, PLUGIN_ROOMS) == []


def test_a_wrong_arrow_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: it sees imports that are relative, nested or for types only."""
    monkeypatch.setattr("tests.house.sources.REPOSITORY", tmp_path)
    top = tmp_path / "rest_backend"
    (top / "engine").mkdir(parents=True)
    file = top / "engine" / "sweep.py"
    file.write_text(
        "import torch, math\n"
        "from typing import TYPE_CHECKING\n"
        "from ..rasters import scene\n"
        "from .. import errors\n"
        "from . import program\n"
        "def late():\n    import rasterio.windows\n    import sqlite3\n"
        "if TYPE_CHECKING:\n    from rest_backend.daemon.broker import Broker\n"
    )
    assert {line.split(" imports ")[1] for line in _wrong(file, top, BACKEND_ROOMS)} == {
        "rest_backend.rasters.scene",
        "rest_backend.daemon.broker.Broker",
        "rasterio.windows",
        "sqlite3",
    }


BACKEND_ROOMS_WITH_WEIGHT = {"rest_backend.methods", "rest_backend.engine", "rest_backend.rasters"}
HEAVY = {"torch", "numpy", "rasterio", "timm"} | BACKEND_ROOMS_WITH_WEIGHT


@pytest.mark.parametrize("module", ["daemon.broker", "models.zoo", "cli"])
def test_light_modules_load_nothing_heavy(module: str) -> None:
    """What ``import`` statements cannot show: what the imported modules load in turn."""
    assert _loaded_by(f"rest_backend.{module}") & HEAVY == set()


def test_client_needs_neither_qgis_nor_the_backend() -> None:
    assert _loaded_by("rest_qgis.client") & {"qgis", "osgeo", "numpy", "rest_backend", "msgspec"} == set()


def _loaded_by(module: str) -> set[str]:
    """Names of all modules a fresh Python has loaded after importing one."""
    program = f"import sys, {module}\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=PLUGIN.parent)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
