"""Finished rows on disk: one flat uint8 file per product of a job, cut into blocks.

``spool/JOB/PRODUCT.raw`` holds the job's window row by row, one byte a pixel, so a
pixel's place is its offset in the window. A block is a run of such a file that is
also a rectangle of the scene and fits one payload; the blocks of all products of a
job share one sequence. The worker appends, the broker reads; a block counts only
once the journal knows it.
"""

from __future__ import annotations

import errno
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path

import msgspec

from rest_backend.errors import ResourceError
from rest_backend.wire.messages import PAYLOAD_LIMIT, Window

CLASSES = "classes"  # the product that counts a job's rows
_INPUTS = "inputs"
PRODUCT_LIMIT = 300  # of one job: classes, confidence and 255 probabilities fit
_PRODUCT = re.compile(r"[a-z]{1,32}(-[0-9]{1,3})?")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A run of finished rows.

    Attributes:
        seq: Position among the job's blocks of all products, from 0 without gap.
        product: What its bytes are: ``classes``, ``confidence``, ``probability-ID``.
        window: Column, row, width, height in pixels of the scene.
        offset: First byte in the spool file.
        crc32: Checksum of the ``width * height`` bytes.
    """

    seq: int
    product: str = CLASSES
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


def product_path(folder: Path, product: str) -> Path:
    """Spool file of a product.

    Args:
        folder: The job's spool folder.
        product: Its name, lower-case letters and at most one number behind a hyphen.

    Raises:
        ValueError: The name could be the path of something else.
    """
    if not _PRODUCT.fullmatch(product):
        raise ValueError(f"{product[:80]!r} is no name of a product")
    return folder / f"{product}.raw"


def same_inputs(folder: Path, inputs: str, *, resumed: bool) -> bool:
    """Whether a job reads what it read when its journaled rows were computed.

    Args:
        folder: The job's spool folder, which remembers it.
        inputs: What tells the job's inputs from others.
        resumed: Whether there are journaled rows.

    Raises:
        ResourceError: ``E_DISK_FULL`` or ``E_SPOOL``.
    """
    path = folder / _INPUTS
    try:
        if resumed and path.exists():  # an older engine made none
            return path.read_text(encoding="utf-8") == inputs
        path.touch(mode=0o600)
        path.write_text(inputs, encoding="utf-8")
    except OSError as error:
        raise _disk_error(path, error) from error
    return True


def check_room(folder: Path, needed: int) -> None:
    """Refuse a job whose rows cannot all be kept, before hours are spent on it.

    Args:
        folder: The job's spool folder, there or not.
        needed: Bytes still to come.

    Raises:
        ResourceError: ``E_DISK_FULL``.
    """
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise ResourceError(
            "E_DISK_FULL",
            f"The rows of this job need {needed:,} bytes in the engine's folder {folder.parent},"
            f" where {free:,} bytes are free. Make room, or ask for fewer outputs or a smaller area.",
        )


class RowSpool:
    """Writer of one job's rows; used by the worker only.

    A restarted job computes its rows again, maybe in other stripes: bytes of a product that
    are already journaled are passed over, so nothing is told twice.

    Args:
        folder: The job's spool folder; made where missing.
        window: The job's window in pixels of the scene.
        next_seq: Number of the next block.
        offsets: Bytes of each product that are journaled already.

    Raises:
        ResourceError: ``E_DISK_FULL``, or ``E_SPOOL`` when there can be no such folder.
    """

    def __init__(self, folder: Path, window: Window, next_seq: int, offsets: Mapping[str, int]) -> None:
        self._folder = folder
        self._window = window
        self._seq = next_seq
        self._offsets = offsets
        self._planes: dict[str, _Plane] = {}
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _disk_error(folder, error) from error

    def append(self, product: str, row: int, values: bytes | memoryview) -> list[Block]:
        """Write rows of a product that follow its last ones.

        Args:
            product: Its name.
            row: First row, in pixels of the scene.
            values: Whole rows of the window, uint8.

        Returns:
            The new blocks, empty when all of it was journaled before.

        Raises:
            ValueError: The rows leave a gap, overlap or are not whole; or there are too many
                products, or one of no possible name.
            ResourceError: ``E_DISK_FULL``, or ``E_SPOOL`` for another failure of the disk, also
                when the file holds less than the journal says.
        """
        _, top, width, height = self._window
        plane = self._plane(product)
        start = (row - top) * width
        stop = start + len(values)
        if start != plane.expected or len(values) % width or stop > width * height:
            raise ValueError(
                f"{product} rows from {row}, {len(values)} bytes, do not follow the rows before them"
            )
        plane.expected = stop
        if stop <= plane.end:
            return []
        view = memoryview(values)[max(plane.end - start, 0) :]
        first = stop - len(view)
        plane.write(view)
        blocks = []
        for offset, window in cut_blocks(self._window, first, stop):
            piece = view[offset - first : offset - first + window[2] * window[3]]
            blocks.append(
                Block(seq=self._seq, product=product, window=window, offset=offset, crc32=zlib.crc32(piece))
            )
            self._seq += 1
        plane.end = stop
        return blocks

    def close(self) -> None:
        """Close the files; they stay for the broker."""
        for plane in self._planes.values():
            plane.file.close()

    def _plane(self, product: str) -> _Plane:
        if product not in self._planes:
            if len(self._planes) >= PRODUCT_LIMIT:
                raise ValueError(f"a job has at most {PRODUCT_LIMIT} products")
            self._planes[product] = _Plane(product_path(self._folder, product), self._offsets.get(product, 0))
        return self._planes[product]


class _Plane:
    """The spool file of one product, and how far it is.

    Attributes:
        end: Bytes that are in the file.
        expected: Bytes this attempt has computed.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.end = offset
        self.expected = 0
        self._path = path
        try:
            self.file = _open(path)
            size = self.file.seek(0, 2)
            if size >= offset:
                self.file.truncate(offset)
                self.file.seek(offset)
        except OSError as error:
            raise _disk_error(path, error) from error
        if size < offset:
            self.file.close()
            raise ResourceError("E_SPOOL", f"The file {path} lost finished rows; run the job again.")

    def write(self, view: memoryview) -> None:
        """Write all of it at the end."""
        try:
            while view:
                view = view[self.file.write(view) :]
        except OSError as error:
            raise _disk_error(self._path, error) from error


def _open(path: Path) -> FileIO:
    # Opened without buffer: what is reported must be visible to the broker.
    file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    path.chmod(0o600)
    return file


def _disk_error(path: Path, error: OSError) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        return ResourceError(
            "E_DISK_FULL",
            f"The disk of the engine's folder is full: finished rows cannot be kept in {path.parent},"
            f" where {free:,} bytes are free. Make room, then run the job again.",
        )
    return ResourceError("E_SPOOL", f"Finished rows cannot be kept in {path}: {error}")


def read_block(folder: Path, block: Block) -> bytes:
    """Bytes of a block from the job's spool folder.

    Raises:
        ResourceError: ``E_SPOOL``: the file is gone or its bytes changed.
    """
    path = product_path(folder, block.product)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(block.offset)
            values = file.read(block.nbytes)
    except OSError as error:
        raise ResourceError("E_SPOOL", f"Finished rows cannot be read from {path}: {error}") from error
    if len(values) != block.nbytes or zlib.crc32(values) != block.crc32:
        raise ResourceError("E_SPOOL", f"Finished rows in {path} are damaged; run the job again.")
    return values


def intact_blocks(folder: Path, blocks: Iterable[Block]) -> int:
    """Number of leading blocks whose bytes are on disk.

    The spool is not synced at every stripe; after a power cut the journal may know more than the disk.
    """
    count = 0
    for block in blocks:
        try:
            read_block(folder, block)
        except ResourceError:
            break
        count += 1
    return count


def spool_bytes(folder: Path) -> int:
    """Bytes of all products in a job's spool folder, 0 where there is none."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0


def remove_spool(folder: Path) -> None:
    """Delete a job's spool folder.

    Raises:
        OSError: Something in it cannot be deleted.
    """
    if folder.exists():
        shutil.rmtree(folder)
