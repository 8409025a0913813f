"""Zip the assembled plugin to build/rest_qgis-VERSION.zip, by the rules of QGIS's plugin site.

One top folder, a LICENSE, no bytecode, no hidden files, at most 25 MB, and the
version the backend has. The same sources give the same bytes.
"""

from __future__ import annotations

import configparser
import re
import zipfile
from pathlib import Path

from assemble_plugin import PLUGIN, REPOSITORY, plugin_files

LARGEST_BYTES = 25 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip can hold: no clock in the result


def plugin_version() -> str:
    """Return the version that ``metadata.txt`` declares."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(REPOSITORY / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def backend_version() -> str:
    """Return the backend's version without importing it."""
    source = (REPOSITORY / "backend" / "rest_backend" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise SystemExit("error: backend/rest_backend/__init__.py has no __version__")
    return found.group(1)


def package(folder: Path = PLUGIN, build: Path = REPOSITORY / "build") -> Path:
    """Write the zip.

    Args:
        folder: The assembled plugin.
        build: Folder the zip is put into.

    Returns:
        The zip's path.

    Raises:
        SystemExit: Versions differ, or the zip breaks a rule of the plugin site.
    """
    version = plugin_version()
    if version != backend_version():
        raise SystemExit(f"error: metadata.txt has version {version}, rest_backend has {backend_version()}")
    target = build / f"rest_qgis-{version}.zip"
    unfinished = target.with_suffix(".zip.unfinished")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for inside in sorted(plugin_files()):
            entry = zipfile.ZipInfo(f"rest_qgis/{inside}", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (folder / inside).read_bytes())
    problems = broken_rules(unfinished)
    if problems:
        unfinished.unlink()
        raise SystemExit("error: the plugin site would refuse the zip: " + "; ".join(problems))
    unfinished.replace(target)
    return target


def broken_rules(path: Path) -> list[str]:
    """Name the plugin site's rules that a zip breaks.

    Args:
        path: A plugin's zip.

    Returns:
        One sentence a broken rule; empty for a good zip.
    """
    problems = []
    if path.stat().st_size > LARGEST_BYTES:
        problems.append("it is larger than 25 MB")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if {name.split("/")[0] for name in names} != {"rest_qgis"}:
        problems.append("it needs exactly one top folder, rest_qgis")
    for needed in ("__init__.py", "metadata.txt", "LICENSE"):
        if f"rest_qgis/{needed}" not in names:
            problems.append(f"{needed} is missing")
    for name in names:
        parts = name.split("/")
        compiled = name.endswith((".pyc", ".so", ".pyd", ".dll", ".dylib"))
        hidden = any(part.startswith((".", "__pycache__", "__MACOSX")) for part in parts)
        if compiled or hidden or "\\" in name:
            problems.append(f"{name} may not be shipped")
    return problems


if __name__ == "__main__":
    print(package().relative_to(REPOSITORY))
