"""The command line: one command per operation, over the same functions the API has.

With ``--json`` a command prints one compact line on stdout; everything for people
goes to stderr. Exit codes: 0 done, 2 bad input, 3 cancelled, 4 out of resources.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rest_backend import __version__
from rest_backend.errors import CancelledError, InputError, RestError
from rest_backend.threads import wait_passively

if TYPE_CHECKING:
    from rest_backend.methods.segment import SegmentProgress

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON on stdout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rest-backend")
def commands() -> None:
    """Segment whole remote-sensing scenes."""


@commands.command()
@click.argument("scene", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Class map to write (.tif)."
)
@click.option("--model", required=True, help="Model id (see `rest-backend models`) or path of a card.")
@click.option("--memory", help="Most resident memory of the process, such as 2GB (10^9 bytes) or 800MB.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@_json_option
def segment(scene: Path, output: Path, model: str, memory: str | None, device: str, as_json: bool) -> None:
    """Segment SCENE into a class map, in this process."""
    limit = parse_memory(memory)
    from rest_backend.methods.segment import SegmentRequest
    from rest_backend.methods.segment import segment as run

    with _progress_bar(shown=not as_json) as report:
        summary = run(SegmentRequest(scene, output, model, limit, device), on_progress=report)
    if as_json:
        _print_json(asdict(summary))
        return
    for note in summary.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{summary.output}: {summary.valid_pixels:,} pixels classified in {summary.seconds:.1f} s"
        f" ({summary.rows_per_second:.0f} rows/s on {summary.device},"
        f" peak memory {summary.peak_rss_bytes / 1e9:.2f} GB)",
        err=True,
    )


@commands.command()
@_json_option
def models(as_json: bool) -> None:
    """List the installed models, the bundled ones first."""
    from rest_backend.models.zoo import scan_models, summary

    usable, broken = scan_models()
    found = [summary(model) for model in usable]
    for model in broken:
        click.echo(f"left out {model.id}: {model.error.code}: {model.error.message}", err=True)
    if as_json:
        _print_json({"models": found})
        return
    for entry in found:
        bands = ", ".join(band["name"] for band in entry["bands"])
        classes = ", ".join(item["name"] for item in entry["classes"])
        click.echo(
            f"{entry['id']}  {entry['name']}\n"
            f"    bands {bands}; classes {classes}; licence {entry['licence']}\n    {_score_line(entry)}"
        )


@commands.command()
@click.option("--encoder", required=True, help="tu-NAME of timm, or mit_b0 to mit_b5.")
@click.option("--decoder", required=True, help="Decoder of segmentation_models_pytorch.")
@click.option("--bands", default=3, show_default=True)
@click.option("--classes", default=6, show_default=True)
@click.option("--height", default=512, show_default=True, help="Scene rows in pixels.")
@click.option("--width", default=512, show_default=True, help="Scene columns in pixels.")
@click.option("--stripe", type=int, help="Scene rows per stripe; without it the engine chooses.")
@click.option("--dtype", default="float32", show_default=True, help="float32 or float64.")
@click.option("--seed", default=0, show_default=True)
@_json_option
def verify(as_json: bool, **options: Any) -> None:
    """Compare the engine with the plain whole forward on a random scene."""
    from rest_backend.methods.verify import VerifyRequest
    from rest_backend.methods.verify import verify as run

    summary = run(VerifyRequest(**options))
    if as_json:
        _print_json(asdict(summary))
        return
    click.echo(
        f"{summary.encoder} + {summary.decoder}, {summary.width} x {summary.height}, {summary.dtype}:"
        f" largest difference {summary.max_rel_diff:.1e} of the logits' deviation,"
        f" {summary.label_flips} of {summary.pixels:,} labels differ;"
        f" {summary.phases} phase(s), whole operations: {', '.join(summary.fallback_ops) or 'none'}",
        err=True,
    )


@commands.command()
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


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of ``rest-backend``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    wait_passively()
    try:
        commands.main(arguments, standalone_mode=False)
    except RestError as error:
        _fail(error, "--json" in arguments)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _fail(CancelledError(), "--json" in arguments)
    sys.exit(0)


def parse_memory(text: str | None) -> int | None:
    """Bytes of an amount such as ``2GB`` (decimal units); None stays None.

    Raises:
        InputError: ``E_MEMORY_OPTION``.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", text.upper())
    if match is None or float(match[1]) <= 0:
        raise InputError(
            "E_MEMORY_OPTION", f"{text!r} is not an amount of memory; write it like 2GB or 800MB."
        )
    return int(float(match[1]) * _UNITS[match[2]])


def _score_line(entry: dict[str, Any]) -> str:
    """The test score of a model's summary, for people."""
    if not entry["score"]:
        return "no score in its card"
    names = {item["id"]: item["name"] for item in entry["classes"]}
    scored = [item for item in entry["score"]["classes"] if item["iou"] is not None]
    return "test IoU " + ", ".join(f"{names[item['id']]} {item['iou']:.2f}" for item in scored)


def _fail(error: RestError, as_json: bool) -> NoReturn:
    click.echo(f"error {error.code}: {error.message}", err=True)
    if as_json:
        _print_json({"error": {"code": error.code, "message": error.message}})
    sys.exit(error.exit_code)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _progress_bar(shown: bool) -> AbstractContextManager[Callable[[SegmentProgress], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not shown or not sys.stderr.isatty():
        return nullcontext(None)
    return _Bar()


class _Bar:
    """Progress on the terminal, drawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} rows"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("loading", total=1)

    def __enter__(self) -> Callable[[SegmentProgress], None]:
        self._progress.start()
        return self._report

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()

    def _report(self, progress: SegmentProgress) -> None:
        self._progress.update(
            self._task, description=progress.stage, completed=progress.rows_done, total=max(1, progress.rows)
        )


if __name__ == "__main__":
    main()
