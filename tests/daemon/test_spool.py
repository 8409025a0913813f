"""Row blocks: they cover exactly, fit a payload, and a second attempt adds only what is new."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rest_backend.daemon.spool import Block, RowSpool, cut_blocks, intact_blocks, read_block
from rest_backend.errors import ResourceError


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 60), st.data())
def test_blocks_cover_each_byte_once(width: int, height: int, limit: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, width * height))
    stop = data.draw(st.integers(start, width * height))
    expected = start
    for offset, (column, row, block_width, block_height) in cut_blocks(
        (5, 7, width, height), start, stop, limit
    ):
        assert offset == expected
        assert 0 < block_width * block_height <= limit
        assert block_height == 1 or block_width == width
        assert offset == (row - 7) * width + column - 5
        assert column - 5 + block_width <= width
        expected += block_width * block_height
    assert expected == stop


def test_a_wide_scene_gives_blocks_of_one_payload() -> None:
    width = 3_000_000
    windows = [window for _, window in cut_blocks((0, 0, width, 2), 0, 2 * width)]
    assert {window[2] * window[3] <= 1 << 20 for window in windows} == {True}
    assert windows[0] == (0, 0, 1 << 20, 1)
    assert sum(window[2] for window in windows) == 2 * width


def test_another_stripe_height_adds_no_row_twice(tmp_path: Path) -> None:
    window = (3, 100, 17, 50)
    values = random.Random(0).randbytes(17 * 50)
    folder = tmp_path / "job"
    first = RowSpool(folder, window, 0, {})
    blocks = _append(first, window, values, 8, stop=32)
    first.close()
    second = RowSpool(folder, window, len(blocks), {"classes": 32 * 17})
    blocks += _append(second, window, values, 13)
    second.close()
    assert [block.seq for block in blocks] == list(range(len(blocks)))
    assert [block.offset for block in blocks] == [
        sum(b.nbytes for b in blocks[:i]) for i in range(len(blocks))
    ]
    assert b"".join(read_block(folder, block) for block in blocks) == values
    assert (folder / "classes.raw").read_bytes() == values


def test_bytes_that_were_never_journaled_are_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "job" / "classes.raw"
    spool = RowSpool(path.parent, (0, 0, 4, 4), 0, {})
    spool.append("classes", 0, b"a" * 12)
    spool.close()
    again = RowSpool(path.parent, (0, 0, 4, 4), 1, {"classes": 4})  # the broker heard of one row only
    assert [block.window for block in again.append("classes", 0, b"b" * 16)] == [(0, 1, 4, 3)]
    again.close()
    assert path.read_bytes() == b"a" * 4 + b"b" * 12


@pytest.mark.parametrize(("row", "values"), [(1, b"x" * 4), (0, b"x" * 3), (0, b"x" * 20)])
def test_rows_must_follow_whole(tmp_path: Path, row: int, values: bytes) -> None:
    spool = RowSpool(tmp_path / "job", (0, 0, 4, 4), 0, {})
    with pytest.raises(ValueError, match="rows"):
        spool.append("classes", row, values)
    spool.close()


def test_lost_and_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    path = folder / "classes.raw"
    spool = RowSpool(folder, (0, 0, 4, 4), 0, {})
    blocks = [block for row in range(4) for block in spool.append("classes", row, bytes([row]) * 4)]
    spool.close()
    assert intact_blocks(folder, blocks) == 4
    path.write_bytes(path.read_bytes()[:8] + b"\xff" + path.read_bytes()[9:])
    assert intact_blocks(folder, blocks) == 2
    with pytest.raises(ResourceError, match="damaged"):
        read_block(folder, blocks[2])
    path.write_bytes(b"")
    assert intact_blocks(folder, blocks) == 0
    with pytest.raises(ResourceError, match="lost"):
        RowSpool(folder, (0, 0, 4, 4), 4, {"classes": 16}).append("classes", 0, bytes(16))


def _append(
    spool: RowSpool, window: tuple[int, int, int, int], values: bytes, stripe: int, stop: int = 50
) -> list[Block]:
    blocks = []
    width = window[2]
    for start in range(0, stop, stripe):
        piece = values[start * width : min(start + stripe, stop) * width]
        for block in spool.append("classes", window[1] + start, piece):
            begin = block.offset
            assert block.crc32 == zlib.crc32(values[begin : begin + block.nbytes])
            blocks.append(block)
    return blocks
