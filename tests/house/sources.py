"""Every Python file of the project, and what it imports, read without running it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BACKEND = REPOSITORY / "backend" / "rest_backend"
PLUGIN = REPOSITORY / "rest_qgis"
_FOLDERS = ("backend", "rest_qgis", "tests", "tools", "bench", "demo", "resources")


@dataclass(frozen=True)
class Import:
    """One name a file imports: ``module`` in full (``rest_qgis.client.errors``), and where."""

    module: str
    place: str

    @property
    def root(self) -> str:
        return self.module.split(".")[0]


def python_files() -> list[Path]:
    """All of the project's own Python files."""
    return sorted(
        path
        for folder in _FOLDERS
        for path in (REPOSITORY / folder).rglob("*.py")
        if not {"build", "dist"}.intersection(path.relative_to(REPOSITORY).parts)
    )


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    """Path inside the repository, with ``/``."""
    return path.relative_to(REPOSITORY).as_posix()


def imports(path: Path, top: Path) -> Iterator[Import]:
    """All imports of a file, also those inside functions and for type checkers only.

    ``from a import b`` yields ``a.b``: whether b is a module or a name in a is the same arrow.

    Args:
        path: The file.
        top: Folder of the top package, which relative imports are resolved against.
    """
    package = [top.name, *path.relative_to(top).parent.parts]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, f"{name_of(path)}:{node.lineno}")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", f"{name_of(path)}:{node.lineno}")
