"""Which modules of the plugin need Qt alone, and which need QGIS beside it: read, not run."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from tests.house.sources import PLUGIN, imports, tree

QGIS = ("qgis.core", "qgis.gui", "qgis.utils", "processing", "osgeo")


def qt_alone() -> list[str]:
    """Modules that import ``qgis.PyQt`` and, also by way of others, nothing else of QGIS."""
    return [name for name in _modules() if _uses_qt(name) and not _needs_qgis(name)]


def with_qgis() -> list[str]:
    """Modules that, if only by way of others, import more of QGIS than ``qgis.PyQt``."""
    return [name for name in _modules() if name != "rest_qgis" and _needs_qgis(name)]


def names_of_qgis() -> set[str]:
    """What the plugin imports of QGIS: ``qgis.core.QgsProject``, ``osgeo.gdal`` ..."""
    found = {name for module in _modules() for name in _imports(module)}
    return {name for name in found if name.startswith(QGIS)}


@functools.cache
def _modules() -> dict[str, Path]:
    files = sorted(PLUGIN.rglob("*.py"))
    names = [".".join(path.relative_to(PLUGIN.parent).with_suffix("").parts) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    """What a module imports when it is imported."""
    path = _modules()[name]
    lazy = _lazy_lines(path)
    return tuple(
        found.module for found in imports(path, PLUGIN) if int(found.place.rpartition(":")[2]) not in lazy
    )


def _lazy_lines(path: Path) -> set[int]:
    """Lines inside functions, and those for type checkers only."""
    lines: set[int] = set()
    for node in ast.walk(tree(path)):
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        checker = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if function or checker:
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _uses_qt(name: str) -> bool:
    return any(found.startswith("qgis.PyQt") for found in _imports(name))


@functools.cache
def _needs_qgis(name: str) -> bool:
    own = [found for found in _imports(name) if found.startswith(QGIS)]
    return bool(own) or any(_needs_qgis(other) for other in _own_modules(name))


def _own_modules(name: str) -> set[str]:
    """Modules of the plugin that a module imports, ``from a import b`` read either way."""
    known = _modules()
    found = _imports(name)
    return {
        candidate
        for module in found
        for candidate in (module, module.rpartition(".")[0])
        if candidate in known and candidate not in (name, "rest_qgis")
    }
