"""Files that clients make for their jobs: ``inbox/KEY``, deleted when the job of that key ends."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Set
from pathlib import Path

from rest_backend.errors import InputError

_log = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 24 * 3600.0  # a folder is made before its job is submitted


def check_key(key: str) -> None:
    """Refuse a key that cannot name a folder of the inbox; the wire allows no separators in it.

    Raises:
        InputError: ``E_KEY``.
    """
    if not key:
        raise InputError("E_KEY", "A job needs a key, so that sending it twice does not run it twice.")
    if _is_no_folder(key):
        raise InputError("E_KEY", f"{key!r} is no key for a job: it ends in a dot.")


class Inbox:
    """The inbox of one daemon.

    Args:
        folder: Its folder. Links in it are deleted, what they point to is never touched.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remove(self, key: str) -> None:
        """Delete the files of a job, if its key names any; whatever cannot be deleted is logged."""
        if _is_no_folder(key):
            return
        path = self._folder / key
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            _log.error("the files of a client's job %s cannot be deleted: %s", path, error)

    def sweep(self, unfinished: Set[str]) -> None:
        """Delete what is older than a day and belongs to no job of the keys given."""
        for path in self._folder.iterdir():
            if path.name in unfinished:
                continue
            try:
                age = time.time() - path.lstat().st_mtime
            except FileNotFoundError:  # its client gave it up just now
                continue
            if age > FORGOTTEN_SECONDS:
                _log.info("%s belongs to no job and is deleted", path)
                self.remove(path.name)


def _is_no_folder(key: str) -> bool:
    """Whether a name means the inbox or another folder: Windows leaves out the dots at a name's end."""
    return not key or key.endswith(".")
