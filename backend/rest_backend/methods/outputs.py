"""The files of a result: the class map and, when asked for, confidence and probabilities."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from rest_backend.errors import InputError
from rest_backend.methods.request import SegmentRequest, Window
from rest_backend.models.card import ModelCard
from rest_backend.rasters.classmap import ClassMapWriter, class_layout
from rest_backend.rasters.mapwriter import check_space, finish_together
from rest_backend.rasters.scene import Scene
from rest_backend.rasters.scoremap import ScoreMapWriter, score_layout


class ResultFiles:
    """Writers of one result's files; use it as a context manager.

    Leaving the context without :meth:`finish` removes every temporary file and leaves
    older results as they were.

    Args:
        request: Where to write.
        scene: The scene, open.
        window: Column, row, width, height of the result in the scene, in pixels.
        card: The model's card.
        tags: Provenance, written into every file.

    Attributes:
        temporary_paths: Every file that may exist before :meth:`finish` is done.

    Raises:
        InputError: A code of the writers, or ``E_OUTPUT_TWICE``.
    """

    def __init__(
        self, request: SegmentRequest, scene: Scene, window: Window, card: ModelCard, tags: dict[str, str]
    ) -> None:
        _check_different([request.output, request.confidence, request.probabilities])
        self._classes = ClassMapWriter(request.output, scene, window, card.classes, tags)
        self._scores: list[ScoreMapWriter] = []
        self._bands: list[int] = []
        for path, names in score_files(request, card):
            self._scores.append(ScoreMapWriter(path, scene, window, names, tags))
            self._bands.append(len(names))
        self._writers = (*self._scores, self._classes)  # the class map appears last
        self.temporary_paths: tuple[Path, ...] = tuple(
            path for writer in self._writers for path in writer.temporary_paths
        )
        self._open = ExitStack()

    def __enter__(self) -> ResultFiles:
        """Create the temporary files.

        Raises:
            InputError: ``E_OUTPUT_FOLDER``.
            ResourceError: ``E_DISK``.
        """
        self.check_space()
        with ExitStack() as on_failure:
            for writer in self._writers:
                on_failure.enter_context(writer)
            self._open = on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is temporary."""
        self._open.__exit__(kind, error, trace)

    def check_space(self) -> None:
        """Refuse what the disks have no room for.

        Raises:
            ResourceError: ``E_DISK``.
        """
        check_space(self._writers)

    def write(self, row: int, planes: NDArray[np.uint8]) -> None:
        """Append rows.

        Args:
            row: First row, relative to the window's top; in order, without gaps.
            planes: uint8 ``(products, rows, width)`` in the order of :class:`Products`.

        Raises:
            ResourceError: ``E_DISK``.
        """
        self._classes.write(row, planes[0])
        first = 1
        for writer, bands in zip(self._scores, self._bands, strict=True):
            writer.write(row, planes[first : first + bands])
            first += bands

    def finish(self) -> None:
        """Put all files in place, or none.

        Raises:
            InputError: ``E_OUTPUT_IN_USE``.
            ResourceError: ``E_DISK``.
        """
        finish_together(self._writers)


def score_files(request: SegmentRequest, card: ModelCard) -> list[tuple[Path, list[str]]]:
    """Score maps a request asks for, and the names of their bands, in the order of :class:`Products`."""
    files = []
    if request.confidence is not None:
        files.append((request.confidence, ["confidence"]))
    if request.probabilities is not None:
        files.append((request.probabilities, [entry.name for entry in card.classes]))
    return files


@dataclass(frozen=True)
class DiskBytes:
    """Bytes of a result's files, at most.

    Attributes:
        while_written: Until all of them are in place.
        result: Afterwards.
    """

    while_written: int
    result: int


def disk_bytes(request: SegmentRequest, card: ModelCard, window: Window) -> DiskBytes:
    """What a request's files take on the disk, at most.

    Args:
        request: Which files.
        card: The model's card.
        window: Column, row, width, height of the result, in pixels.
    """
    width, height = window[2:]
    layouts = [class_layout(card.classes), *(score_layout(names) for _, names in score_files(request, card))]
    needed = sum(layout.needed_bytes(width, height) for layout in layouts)
    rows = sum(len(layout.names) for layout in layouts) * width * height  # gone once the result is there
    return DiskBytes(needed, needed - rows)


def _check_different(paths: list[Path | None]) -> None:
    """Each file needs a place of its own, and so does the style beside it."""
    places = [Path(path).absolute().with_suffix("") for path in paths if path is not None]
    if len(set(places)) < len(places):
        raise InputError(
            "E_OUTPUT_TWICE",
            "Class map, confidence and probabilities need a name each: two are the same.",
        )
