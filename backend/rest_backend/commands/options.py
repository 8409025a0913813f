"""Options of the commands that are about one scene, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rest_backend.errors import InputError

if TYPE_CHECKING:
    from rest_backend.methods.request import SegmentRequest

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LARGEST = 2**31 - 1  # pixels of a side, as GDAL counts them
_BANDS_LIMIT = 1024

_path = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., None])
_OPTIONS = (
    click.option("--model", required=True, help="Model id (see `rest-backend models`) or path of a card."),
    click.option("--window", metavar="C,R,W,H", help="Only these pixels: column, row, width, height."),
    click.option(
        "--aoi", type=_path, metavar="FILE", help="Only what the polygons of this vector file cover."
    ),
    click.option(
        "--bands",
        metavar="4,3,2",
        help="Bands of the scene, from 1, in the model's order; without it they are found by what they show.",
    ),
    click.option(
        "--resolution",
        metavar="METRES",
        help="Metres per pixel the network shall see; default the scene's own.",
    ),
    click.option(
        "--confidence", type=_path, metavar="FILE", help="Raster of each pixel's highest score to write."
    ),
    click.option(
        "--probabilities", type=_path, metavar="FILE", help="Raster of every class's score to write."
    ),
    click.option("--memory", help="Most resident memory of the process, such as 2GB (10^9 bytes) or 800MB."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N."),
)


def scene_options(command: _Command) -> _Command:
    """The options a job has on the command line, all but its output."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def segment_request(scene: Path, output: Path, options: dict[str, Any]) -> SegmentRequest:
    """The request that SCENE, the output and the texts of :func:`scene_options` make.

    Raises:
        InputError: ``E_WINDOW_OPTION``, ``E_BANDS_OPTION``, ``E_RESOLUTION_OPTION``, ``E_MEMORY_OPTION``.
    """
    window = parse_window(options["window"])
    bands = parse_bands(options["bands"])
    resolution = parse_resolution(options["resolution"])
    memory = parse_memory(options["memory"])
    from rest_backend.methods.request import SegmentRequest

    return SegmentRequest(
        scene,
        output,
        options["model"],
        memory_bytes=memory,
        device=options["device"],
        window=window,
        bands=bands,
        aoi=options["aoi"],
        resolution_m=resolution,
        confidence=options["confidence"],
        probabilities=options["probabilities"],
    )


def parse_window(text: str | None) -> tuple[int, int, int, int] | None:
    """Column, row, width and height in pixels from ``C,R,W,H``; None stays None.

    Raises:
        InputError: ``E_WINDOW_OPTION``.
    """
    if text is None:
        return None
    numbers = _whole_numbers(text)
    if numbers is None or len(numbers) != 4 or min(numbers[2:]) < 1 or max(numbers) > _LARGEST:
        raise InputError(
            "E_WINDOW_OPTION",
            f"{text!r} is not a window; write column, row, width and height in pixels, like 0,512,1024,1024.",
        )
    column, row, width, height = numbers
    return column, row, width, height


def parse_bands(text: str | None) -> tuple[int, ...]:
    """Band numbers, from 1, from ``4,3,2``; None is none.

    Raises:
        InputError: ``E_BANDS_OPTION``.
    """
    if text is None:
        return ()
    numbers = _whole_numbers(text)
    if not numbers or min(numbers) < 1 or max(numbers) > 65536 or len(numbers) > _BANDS_LIMIT:
        raise InputError(
            "E_BANDS_OPTION",
            f"{text!r} is not a list of bands; write their numbers in the model's order, like 4,3,2; the "
            "first band is 1.",
        )
    return tuple(numbers)


def parse_resolution(text: str | None) -> float | None:
    """Metres per pixel; None stays None.

    Raises:
        InputError: ``E_RESOLUTION_OPTION``.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*m?\s*", text)
    if match is None or float(match[1]) <= 0:
        raise InputError(
            "E_RESOLUTION_OPTION", f"{text!r} is not a ground resolution; write metres per pixel, like 0.3."
        )
    return float(match[1])


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


def _whole_numbers(text: str) -> list[int] | None:
    if not re.fullmatch(r"\s*\d{1,10}\s*(,\s*\d{1,10}\s*)*", text, re.ASCII):
        return None
    return [int(number) for number in text.split(",")]
