"""``rest-backend serve``: the daemon, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--home",
    "folder",
    type=click.Path(path_type=Path),
    help="State folder; else REST_HOME, else the user's data folder.",
)
@click.option(
    "--idle-minutes", default=30.0, show_default=True, help="End after this long without jobs and clients."
)
def serve(folder: Path | None, idle_minutes: float) -> None:
    """Run the daemon QGIS talks to, on this computer only."""
    from rest_backend.daemon.home import home
    from rest_backend.daemon.serve import serve as run

    sys.exit(run(folder or home(), idle_minutes))
