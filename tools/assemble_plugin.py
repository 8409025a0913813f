"""Assemble build/plugin/rest_qgis: the folder that QGIS loads, tests use and the zip holds.

It appears complete or not at all, and stays as it is when nothing changed.
Standard library only, any Python from 3.9: ``make plugin`` needs no environment.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = REPOSITORY / "build" / "plugin" / "rest_qgis"
_NOT_SHIPPED = {"__pycache__", "tests", ".DS_Store"}


def plugin_files() -> dict[str, Path]:
    """List what the plugin consists of.

    Returns:
        Path inside the plugin folder, with ``/``, to the file it is copied from.
    """
    files = {name: REPOSITORY / name for name in ("metadata.txt", "LICENSE")}
    for source, target in (("rest_qgis", ""), ("resources/icons", "icons/"), ("resources/styles", "styles/")):
        folder = REPOSITORY / source
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and path.suffix != ".pyc" and not _NOT_SHIPPED.intersection(inside.parts):
                files[target + inside.as_posix()] = path
    return files


def assemble(target: Path = PLUGIN) -> bool:
    """Bring the plugin folder up to date.

    Args:
        target: The folder to make; its parent is made where it is missing.

    Returns:
        Whether anything changed.
    """
    files = plugin_files()
    if _same(target, files):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".assembling-") as scratch:
        fresh = Path(scratch) / "new"
        for inside, source in files.items():
            (fresh / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, fresh / inside)
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    return True


def _same(target: Path, files: dict[str, Path]) -> bool:
    """Whether ``target`` holds exactly ``files``, bytecode that Python left there aside."""
    present = {
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return present == set(files) and all(
        (target / inside).read_bytes() == source.read_bytes() for inside, source in files.items()
    )


if __name__ == "__main__":
    changed = assemble()
    print(f"{PLUGIN.relative_to(REPOSITORY)}: {'assembled' if changed else 'up to date'}")
