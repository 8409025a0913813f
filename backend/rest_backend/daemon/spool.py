"""Finished class rows on disk: one flat uint8 file per job, cut into blocks.

``spool/JOB/rows.raw`` holds the job's window row by row, one byte a pixel, so a
pixel's place is its offset in the window. A block is a run of that file that is
also a rectangle of the scene and fits one payload. The worker appends, the
broker reads; a block counts only once the journal knows it.
"""

from __future__ import annotations

import errno
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from rest_backend.errors import ResourceError
from rest_backend.wire.messages import PAYLOAD_LIMIT, Window

ROWS_FILE = "rows.raw"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A run of finished rows.

    Attributes:
        seq: Position among the job's blocks, from 0 without gap.
        window: Column, row, width, height in pixels of the scene.
        offset: First byte in the spool file.
        crc32: Checksum of the ``width * height`` bytes.
    """

    seq: int
    window: Window
    offset: int
    crc32: int

    @property
    def nbytes(self) -> int:
        """Length in the spool file."""
        return self.window[2] * self.window[3]


def cut_blocks(
    window: Window, start: int, stop: int, limit: int = PAYLOAD_LIMIT
) -> Iterator[tuple[int, Window]]:
    """Rectangles that cover the bytes ``start`` to ``stop`` of a spool file.

    Whole rows while they fit; a row wider than ``limit``, or a row that was begun
    before, is cut into pieces.

    Args:
        window: The job's window: column, row, width, height in pixels of the scene.
        start: First byte.
        stop: Byte after the last.
        limit: Most bytes of one block.

    Yields:
        Offset of the block and its window in the scene.
    """
    left, top, width, _ = window
    while start < stop:
        row, column = divmod(start, width)
        if column or width > limit or stop - start < width:
            length = min(width - column, limit, stop - start)
            yield start, (left + column, top + row, length, 1)
        else:
            height = min(limit // width, (stop - start) // width)
            length = height * width
            yield start, (left, top + row, width, height)
        start += length


class RowSpool:
    """Writer of one job's rows; used by the worker only.

    A restarted job computes its rows again, maybe in other stripes: bytes before
    ``offset`` are already journaled and are passed over, so nothing is told twice.

    Args:
        path: The spool file; its folder is made where missing.
        window: The job's window in pixels of the scene.
        next_seq: Number of the next block.
        offset: Bytes that are journaled already.

    Raises:
        ResourceError: ``E_SPOOL``: the file holds less than the journal says.
    """

    def __init__(self, path: Path, window: Window, next_seq: int, offset: int) -> None:
        self._window = window
        self._seq = next_seq
        self._end = offset
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # Opened without buffer: what is reported must be visible to the broker.
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        path.chmod(0o600)
        if self._file.seek(0, 2) < offset:
            self._file.close()
            raise ResourceError("E_SPOOL", f"The file {path} lost finished rows; run the job again.")
        self._file.truncate(offset)
        self._file.seek(offset)
        self._expected = 0

    def append(self, row: int, values: bytes | memoryview) -> list[Block]:
        """Write rows that follow the last ones.

        Args:
            row: First row, in pixels of the scene.
            values: Whole rows of the window, uint8.

        Returns:
            The new blocks, empty when all of it was journaled before.

        Raises:
            ValueError: The rows leave a gap, overlap or are not whole.
            ResourceError: ``E_DISK_FULL``, or ``E_SPOOL`` for another failure of the disk.
        """
        _, top, width, height = self._window
        start = (row - top) * width
        stop = start + len(values)
        if start != self._expected or len(values) % width or stop > width * height:
            raise ValueError(f"rows from {row}, {len(values)} bytes, do not follow the rows before them")
        self._expected = stop
        if stop <= self._end:
            return []
        view = memoryview(values)[self._end - start :] if start < self._end else memoryview(values)
        first = stop - len(view)
        self._write(view)
        blocks = []
        for offset, window in cut_blocks(self._window, first, stop):
            piece = view[offset - first : offset - first + window[2] * window[3]]
            blocks.append(Block(seq=self._seq, window=window, offset=offset, crc32=zlib.crc32(piece)))
            self._seq += 1
        self._end = stop
        return blocks

    def close(self) -> None:
        """Close the file; it stays for the broker."""
        self._file.close()

    def _write(self, view: memoryview) -> None:
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            message = f"Finished rows cannot be kept in {self._file.name}: {error}"
            code = "E_DISK_FULL" if error.errno == errno.ENOSPC else "E_SPOOL"
            raise ResourceError(code, message) from error


def read_block(path: Path, block: Block) -> bytes:
    """Bytes of a block.

    Raises:
        ResourceError: ``E_SPOOL``: the file is gone or its bytes changed.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(block.offset)
            values = file.read(block.nbytes)
    except OSError as error:
        raise ResourceError("E_SPOOL", f"Finished rows cannot be read from {path}: {error}") from error
    if len(values) != block.nbytes or zlib.crc32(values) != block.crc32:
        raise ResourceError("E_SPOOL", f"Finished rows in {path} are damaged; run the job again.")
    return values


def intact_blocks(path: Path, blocks: Iterable[Block]) -> int:
    """Number of leading blocks whose bytes are on disk.

    The spool is not synced at every stripe; after a power cut the journal may know more than the disk.
    """
    count = 0
    for block in blocks:
        try:
            read_block(path, block)
        except ResourceError:
            break
        count += 1
    return count


def remove_spool(folder: Path) -> None:
    """Delete a job's spool folder.

    Raises:
        OSError: Something in it cannot be deleted.
    """
    if folder.exists():
        shutil.rmtree(folder)
