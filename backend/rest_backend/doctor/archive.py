"""The report to send to someone else: findings and the ends of the logs, redacted, in one zip."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rest_backend.daemon.home import Home
from rest_backend.doctor.check import Check
from rest_backend.doctor.redact import Redactor
from rest_backend.errors import InputError

TAIL = 256 * 1024  # bytes of each log
LOGS = 32


def write_archive(path: Path, checks: Sequence[Check], folder: Path) -> None:
    """Write the report; it appears complete or not at all.

    Args:
        path: The zip to write or replace.
        checks: What was found.
        folder: The daemon's home.

    Raises:
        InputError: ``E_REPORT``: it cannot be written.
    """
    if not path.name or (path.exists() and not path.is_file()):  # a device would be replaced by the report
        raise InputError("E_REPORT", f"The report needs the name of a file, not {path}.")
    home = Home(folder.absolute())
    redactor = Redactor(home)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
            found = redactor.value({"checks": [asdict(check) for check in checks]})
            archive.writestr("doctor.json", json.dumps(found, indent=1, ensure_ascii=False))
            for log in _logs(home.log):
                archive.writestr(f"log/{redactor.text(log.name)}", redactor.text(_tail(log)))
        temporary.replace(path)
    except OSError as error:
        message = f"The report {path} cannot be written: {error.strerror or error}."
        raise InputError("E_REPORT", message) from error
    finally:
        temporary.unlink(missing_ok=True)


def _logs(folder: Path) -> list[Path]:
    """The newest log of daemon, workers and start; older turns of them are left out."""
    return [path for path in sorted(folder.glob("*")) if path.suffix in (".log", ".err")][:LOGS]


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        whole = file.tell() <= TAIL
        file.seek(0 if whole else -TAIL, os.SEEK_END if not whole else os.SEEK_SET)
        text = file.read(TAIL).decode("utf-8", "replace")
    return text if whole else text.partition("\n")[2]  # a line cut in half could hide half a name
