"""Putting finished files in the place of older ones: all of them, or none."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# What a file system says that has no second names for a file, or no more of them.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EACCES)


@dataclass(frozen=True)
class Move:
    """A finished file and where it belongs.

    Attributes:
        source: The finished file, in the folder of its place.
        place: Where it goes; what is there is replaced.
        backup: A free name in that folder, for the older file until all moves are done.
    """

    source: Path
    place: Path
    backup: Path


def replace_all(moves: Sequence[Move]) -> None:
    """Move every file to its place; when one cannot be moved, bring back what the others replaced.

    Args:
        moves: In the order in which the files shall appear.

    Raises:
        OSError: Of the move that failed; its ``filename2`` is the place. Everything is as it was before.
    """
    done: list[tuple[Move, bool]] = []
    for move in moves:
        kept: bool | None = None
        try:
            kept = _keep(move)
            os.replace(move.source, move.place)  # noqa: PTH105  the atomic call, by its own name
        except OSError as error:
            if kept is not None and not move.place.exists():  # moved aside, for want of a second name
                os.replace(move.backup, move.place)  # noqa: PTH105
            move.backup.unlink(missing_ok=True)
            for earlier, replaced in reversed(done):
                _take_back(earlier, replaced)
            error.filename2 = str(move.place)
            raise
        done.append((move, kept is not None))
    for move in moves:
        move.backup.unlink(missing_ok=True)
    for folder in {move.place.parent for move in moves}:
        _folder_through_to_disk(folder)


def _keep(move: Move) -> bool | None:
    """Keep the older file under another name: a second one, so that its place is never empty."""
    try:
        os.link(move.place, move.backup)  # noqa: PTH200
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(move.place, move.backup)  # noqa: PTH105
    return True


def _take_back(move: Move, replaced: bool) -> None:
    with suppress(OSError):  # the error that led here is the one to tell
        if replaced:
            os.replace(move.backup, move.place)  # noqa: PTH105
        else:
            move.place.unlink(missing_ok=True)


def _folder_through_to_disk(folder: Path) -> None:
    if os.name != "posix":  # Windows has no handle on a folder to flush
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks cannot; the files are in place
            os.fsync(handle)
    finally:
        os.close(handle)
