"""``rest-backend plan``: what a job would read, hold, write and take, before it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rest_backend.commands.options import scene_options, segment_request
from rest_backend.commands.printing import in_time, in_units, json_option, print_json

if TYPE_CHECKING:
    from rest_backend.methods.plan import PlanSummary

_RESOURCES = ("E_MEMORY", "E_DISK")  # how codes begin that more memory or disk would cure


@click.command()
@click.argument("scene", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default="classes.tif",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Class map that would be written.",
)
@scene_options
@json_option
def plan(scene: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Say what segmenting SCENE would read, hold and take.

    Nothing is written. Exit code 0 when it can run as asked, 4 when memory or disk does not suffice, 2 when
    something else must change first.
    """
    request = segment_request(scene, output, options)
    from rest_backend.methods.plan import PlanRequest
    from rest_backend.methods.plan import plan as run

    summary = run(PlanRequest(request))
    if as_json:
        print_json(asdict(summary))
    else:
        for line in plan_lines(summary):
            click.echo(line)
    sys.exit(exit_code(summary))


def exit_code(summary: PlanSummary) -> int:
    """0, 4 or 2; see :func:`plan`."""
    if summary.fits:
        return 0
    codes = [problem["code"] for problem in summary.problems]
    return 4 if codes and all(code.startswith(_RESOURCES) for code in codes) else 2


def plan_lines(summary: PlanSummary) -> Iterator[str]:
    """The plan as a person reads it, a few lines.

    Args:
        summary: The plan.
    """
    resolution = f", {summary.ground_resolution_m:.3g} m" if summary.ground_resolution_m else ""
    yield _line(
        "scene",
        f"{summary.scene}: {summary.width} x {summary.height} pixels, {summary.count} bands of "
        f"{summary.dtype}{resolution}, {summary.crs or 'no CRS'}",
    )
    yield _line("model", summary.model)
    for match in summary.bands:
        yield _line(f"  {match['model']}", _band_text(match))
    column, row, width, height = summary.window
    area = "" if summary.area_pixels is None else f", {summary.area_pixels:,} pixels inside the area"
    yield _line("result", f"{width} x {height} pixels from column {column}, row {row}{area}")
    column, row, width, height = summary.read_window
    seen = ""
    if summary.resolution_m and (summary.run_width, summary.run_height) != (width, height):
        seen = f", resampled to {summary.run_width} x {summary.run_height} ({summary.resolution_m:.3g} m)"
    yield _line(
        "reads",
        f"{width} x {height} pixels from column {column}, row {row}{seen}"
        + ("" if summary.exact else "; only what is nearby, so classes may differ from the whole scene's"),
    )
    yield _line(
        "device",
        f"{summary.device_name} ({summary.device}), stripes of {summary.stripe} rows, {summary.phases} "
        f"phase(s), first result after {summary.context_rows} rows",
    )
    if summary.fallback_ops:
        yield _line("", f"run whole: {', '.join(summary.fallback_ops)}")
    yield _line(
        "memory",
        f"{in_units(summary.memory_bytes)} of {in_units(summary.memory_limit_bytes)};"
        f" the least that works is {in_units(summary.smallest_memory_bytes)}",
    )
    free = "" if summary.free_bytes is None else f", {in_units(summary.free_bytes)} free"
    yield _line(
        "disk",
        f"output at most {in_units(summary.output_bytes)}, {in_units(summary.disk_bytes)} while it is written"
        f"{free}",
    )
    if summary.seconds is not None:
        yield _line("time", f"about {in_time(summary.seconds)} ({summary.seconds_basis})")
    for note in summary.notes:
        yield _line("note", note)
    for problem in summary.problems:
        yield _line("PROBLEM", f"{problem['code']}: {problem['message']}")
    yield _line("", "It can run." if summary.fits else "It cannot run as asked.")


def _band_text(match: dict[str, Any]) -> str:
    if match["band"] is None:
        return f"NONE: {match['reason']}"
    number, name = match["band"], match["name"]
    text = (
        f"band {number}"
        + (f" ({name})" if name and name != f"Band {number}" else "")
        + f", by {match['how']}"
    )
    return text if match["sure"] else f"{text}  NOT SURE: {match['reason']}"


def _line(name: str, text: str) -> str:
    return f"{name:<12} {text}".rstrip()
