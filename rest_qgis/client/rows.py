"""Result rows on the client: checking, unpacking, sequence and credit.

The daemon sends finished rows in blocks numbered without a gap, never more than
the client granted. A :class:`RowStream` is one job's side of that: it knows the
next number, accepts exactly that block, and counts what may still be sent.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from .errors import ClientError
from .frames import CREDIT_LIMIT, PAYLOAD_LIMIT

AUTOMATIC_CREDIT = 8  # row blocks in flight when the client grants by itself


@dataclass(frozen=True)
class Rows:
    """One block of finished rows.

    Attributes:
        seq: Number of the block in its job, from 0.
        column: First column, in pixels of the scene.
        row: First row, in pixels of the scene.
        width: Columns.
        height: Rows.
        values: ``width * height`` bytes, row by row, 255 where there is no result.
        product: ``classes``, with class ids from 0 to 254; ``confidence`` or ``probability-ID``
            (ID is a class id), with values from 0 to 254 that stand for 0 to 1.
    """

    seq: int
    column: int
    row: int
    width: int
    height: int
    values: bytes
    product: str = "classes"


def unpack(header: dict[str, Any], payload: bytes) -> Rows:
    """Check and unpack a ``rows`` message.

    Args:
        header: The checked header.
        payload: Bytes as received.

    Returns:
        The rows.

    Raises:
        ClientError: ``E_CHECKSUM``, or ``E_SIZE`` when the payload does not hold
            exactly the window; no more than the window is ever unpacked.
    """
    column, row, width, height = header["window"]
    expected = width * height
    if not 0 < expected <= PAYLOAD_LIMIT:
        raise ClientError("E_SIZE", f"A block of result rows claims {width} x {height} pixels.")
    if zlib.crc32(payload) != header["crc32"]:
        raise ClientError("E_CHECKSUM", "A block of result rows was damaged on its way.")
    values = payload if header["codec"] == "raw" else _inflate(payload, expected)
    if len(values) != expected:
        raise ClientError("E_SIZE", f"A block of {width} x {height} pixels does not hold {expected} bytes.")
    product = header.get("product", "classes")
    return Rows(header["seq"], column, row, width, height, values, product)


class RowStream:
    """Sequence and credit of one job.

    Args:
        manual: Only :meth:`grant` gives credit. Else ``AUTOMATIC_CREDIT`` blocks
            are granted at the start and each one again once it is consumed.

    Attributes:
        next_seq: The block to come next; all before it were delivered.
        syncing: Attached again after a fault: blocks sent before that may still arrive.
    """

    def __init__(self, manual: bool) -> None:
        self.manual = manual
        self.next_seq = 0
        self.syncing = False
        self._allowance = 0 if manual else AUTOMATIC_CREDIT
        self._in_flight = 0

    @property
    def expecting(self) -> bool:
        """Whether the daemon has credit it has not used yet."""
        return self._in_flight > 0

    def attach(self) -> int:
        """Credit to attach with; what an earlier attachment had in flight is void."""
        self._in_flight = min(self._allowance, CREDIT_LIMIT)
        return self._in_flight

    def grant(self, blocks: int) -> None:
        """Allow that many blocks more."""
        self._allowance += blocks

    def due(self) -> int:
        """Credit to send now, 0 for none; it counts as sent."""
        credit = min(self._allowance, CREDIT_LIMIT) - self._in_flight
        self._in_flight += credit
        return credit

    def accept(self, header: dict[str, Any], payload: bytes) -> Rows | None:
        """Take a block.

        Args:
            header: The checked header of a ``rows`` message.
            payload: Its payload.

        Returns:
            The rows; None for a block that was delivered already, or that is a
            straggler of an attachment given up.

        Raises:
            ClientError: ``E_SEQUENCE``, ``E_CHECKSUM`` or ``E_SIZE``; the stream has not moved.
        """
        if header["seq"] < self.next_seq:
            return None
        if header["seq"] > self.next_seq:
            if self.syncing:
                return None
            raise ClientError(
                "E_SEQUENCE", f"Result block {self.next_seq} is missing; block {header['seq']} came instead."
            )
        rows = unpack(header, payload)
        self.next_seq += 1
        self.syncing = False
        self._allowance -= 1
        self._in_flight -= 1
        return rows

    def consumed(self) -> None:
        """The listener is done with a block: grant it again, unless credit is given by hand."""
        if not self.manual:
            self._allowance += 1


def _inflate(payload: bytes, expected: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        values = unpacker.decompress(payload, expected + 1)
    except zlib.error as error:
        raise ClientError("E_CHECKSUM", "A block of result rows cannot be unpacked.") from error
    if not unpacker.eof or unpacker.unused_data:
        raise ClientError("E_SIZE", f"A block of result rows does not end after {expected} bytes.")
    return values
