"""``rest-backend doctor``: whether all is well here, and a report to send where it is not."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rest_backend.commands.printing import json_option, print_json

if TYPE_CHECKING:
    from rest_backend.doctor.check import Check

_WORDS = {"ok": "OK", "warning": "warning", "problem": "PROBLEM"}


@click.command()
@click.option(
    "--zip",
    "archive",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a report to send: findings and logs, without names, paths and keys.",
)
@json_option
def doctor(archive: Path | None, as_json: bool) -> None:
    """Check whether all is well here.

    Looks at versions, devices, folders, models, the daemon and the engine itself. Exit code 0,
    or 4 when there is a problem.
    """
    from rest_backend.daemon.home import home
    from rest_backend.doctor.examine import examine

    checks: list[Check] = []
    for check in examine(home()):
        checks.append(check)
        if not as_json:
            click.echo(f"{_WORDS[check.state]:<8} {check.name:<9} {check.message}")
    if archive is not None:
        from rest_backend.doctor.archive import write_archive

        write_archive(archive, checks, home())
        click.echo(f"Wrote {archive}. Look through it before you send it.", err=True)
    well = all(check.state != "problem" for check in checks)
    if as_json:
        print_json({"ok": well, "checks": [asdict(check) for check in checks]})
    sys.exit(0 if well else 4)
