"""``rest-backend segment``: a scene to a class map, in this process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rest_backend.commands.options import scene_options, segment_request
from rest_backend.commands.printing import json_option, print_json, progress_bar


@click.command()
@click.argument("scene", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Class map to write (.tif)."
)
@scene_options
@json_option
def segment(scene: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Segment SCENE into a class map, in this process."""
    request = segment_request(scene, output, options)
    from rest_backend.methods.segment import segment as run

    with progress_bar(shown=not as_json) as report:
        summary = run(request, on_progress=report)
    if as_json:
        print_json(asdict(summary))
        return
    for note in summary.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{summary.output}: {summary.valid_pixels:,} pixels classified in {summary.seconds:.1f} s"
        f" ({summary.rows_per_second:.0f} rows/s on {summary.device},"
        f" peak memory {summary.peak_rss_bytes / 1e9:.2f} GB)",
        err=True,
    )
