"""Command line of the modules that write a file from the message definitions, or check it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def write_or_check(module: str, path: Path, text: str, arguments: list[str] | None = None) -> int:
    """Write the text, or with ``--check`` compare it with what is there.

    Args:
        module: Its name, as ``python -m`` takes it.
        path: Where the file belongs in a checkout.
        text: What it should hold.
        arguments: Command line; None takes the process's own.

    Returns:
        The exit code: 1 where the file differs.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when they differ")
    parser.add_argument("path", nargs="?", type=Path, default=path)
    options = parser.parse_args(arguments)
    place: Path = options.path
    if options.check:
        if place.is_file() and place.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{place} differs from the message definitions; run: python -m {module}\n")
        return 1
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8", newline="\n")
    return 0
