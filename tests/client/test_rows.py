"""Row blocks: checks, bounded unpacking, sequence, credit."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest

from rest_qgis.client import ClientError
from rest_qgis.client.frames import CREDIT_LIMIT
from rest_qgis.client.rows import AUTOMATIC_CREDIT, RowStream, unpack

VALUES = bytes(range(64))


def header(payload: bytes, codec: str = "raw", seq: int = 0, window=(2, 4, 16, 4)) -> dict:
    return {"seq": seq, "window": list(window), "codec": codec, "crc32": zlib.crc32(payload)}


def refused(payload: bytes, **fields: object) -> str:
    with pytest.raises(ClientError) as raised:
        unpack({**header(payload), **fields}, payload)
    return raised.value.code


@pytest.mark.parametrize("codec", ["raw", "zlib"])
def test_rows_arrive_as_they_were(codec):
    payload = zlib.compress(VALUES, 1) if codec == "zlib" else VALUES
    rows = unpack(header(payload, codec, seq=7), payload)
    assert (rows.seq, rows.column, rows.row, rows.width, rows.height) == (7, 2, 4, 16, 4)
    assert rows.values == VALUES


def test_rows_say_of_which_product_they_are():
    assert unpack(header(VALUES), VALUES).product == "classes"  # a daemon that knows no other
    assert unpack({**header(VALUES), "product": "probability-7"}, VALUES).product == "probability-7"


def test_a_wrong_checksum():
    assert refused(VALUES, crc32=1) == "E_CHECKSUM"


@pytest.mark.parametrize("window", [(0, 0, 16, 5), (0, 0, 15, 4), (0, 0, 0, 4), (0, 0, 2**53, 2**53)])
def test_a_window_of_another_size(window):
    assert refused(VALUES, window=list(window)) == "E_SIZE"
    packed = zlib.compress(VALUES)
    assert refused(packed, codec="zlib", window=list(window)) == "E_SIZE"


def test_streams_that_are_none_or_go_on():
    assert refused(b"not zlib", codec="zlib") == "E_CHECKSUM"
    packed = zlib.compress(VALUES)
    assert refused(packed[:-3], codec="zlib") == "E_SIZE"
    assert refused(packed + b"more", codec="zlib") == "E_SIZE"
    assert refused(b"", codec="zlib") == "E_SIZE"


def test_a_bomb_is_not_unpacked():
    bomb = zlib.compress(bytes(256 * 1024 * 1024), 9)
    tracemalloc.start()
    assert refused(bomb, codec="zlib") == "E_SIZE"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


def block(seq: int) -> tuple[dict, bytes]:
    return header(VALUES, seq=seq), VALUES


def test_blocks_are_taken_once_and_in_order():
    stream = RowStream(manual=False)
    stream.attach()
    assert stream.accept(*block(0)).seq == 0
    assert stream.accept(*block(0)) is None
    with pytest.raises(ClientError) as raised:
        stream.accept(*block(2))
    assert raised.value.code == "E_SEQUENCE" and stream.next_seq == 1
    stream.syncing = True  # stragglers of the old attachment
    assert stream.accept(*block(2)) is None
    assert stream.accept(*block(1)).seq == 1
    assert not stream.syncing


def test_a_damaged_block_does_not_count():
    stream = RowStream(manual=False)
    stream.attach()
    with pytest.raises(ClientError):
        stream.accept({**header(VALUES), "crc32": 1}, VALUES)
    assert stream.next_seq == 0


def test_automatic_credit_comes_back_as_blocks_are_consumed():
    stream = RowStream(manual=False)
    assert stream.attach() == AUTOMATIC_CREDIT and stream.due() == 0
    stream.accept(*block(0))
    assert stream.due() == 0
    stream.consumed()
    assert stream.due() == 1 and stream.due() == 0


def test_manual_credit_is_exactly_what_was_granted_and_survives_attaching_anew():
    stream = RowStream(manual=True)
    assert stream.attach() == 0
    stream.grant(100)
    assert stream.due() == CREDIT_LIMIT and stream.due() == 0
    for seq in range(10):
        stream.accept(*block(seq))
        stream.consumed()
    assert stream.due() == 10  # still 32 in flight
    assert stream.attach() == CREDIT_LIMIT  # a new daemon knows of no credit
    for seq in range(10, 100):
        stream.accept(*block(seq))
        stream.due()
    assert stream.attach() == 0 and stream.next_seq == 100
