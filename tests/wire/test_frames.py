"""Encoding and decoding of frames: round trips, limits, and bytes that mean harm."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    MAGIC,
    PAYLOAD_LIMIT,
    Attach,
    Cancel,
    Credit,
    Done,
    Hello,
    Models,
    Progress,
    Rows,
    SegmentJob,
    Status,
    Submit,
)

REQUESTS = [
    Hello(request="a", protocols=(1, 1), client="c", version="1"),
    Submit(request="b", key="k", job=SegmentJob(scene="/s", model="m", output="/o", window=(1, 2, 3, 4))),
    Status(request="c"),
    Cancel(request="d", job="j"),
    Attach(request="e", job="j", seq=5, credit=32),
    Credit(request="f", job="j", credit=1),
]
KNOWN_CODES = {"E_FRAMES", "E_HEADER_SIZE", "E_PAYLOAD_SIZE", "E_HEADER", "E_UNKNOWN_TYPE", "E_PAYLOAD"}


def rows_of(values: bytes, width: int, height: int) -> tuple[Rows, bytes]:
    codec, payload = frames.pack_rows(values)
    crc32 = frames.checksum(payload)
    return Rows(job="j", seq=0, window=(0, 0, width, height), codec=codec, crc32=crc32), payload


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_requests_round_trip(message: object) -> None:
    assert frames.decode_request(frames.encode(message)) == message


def test_answers_round_trip() -> None:
    progress = Progress(job="j", stage="sweep", rows_done=1, rows=2)
    assert frames.decode_answer(frames.encode(progress)) == (progress, b"")
    rows, payload = rows_of(b"\1" * 600, 30, 20)
    assert rows.codec == "zlib" and len(payload) < 600
    assert frames.decode_answer(frames.encode(rows, payload)) == (rows, payload)
    assert frames.unpack_rows(rows, payload) == b"\1" * 600


def test_noise_travels_raw_and_never_grows() -> None:
    noise = random.Random(0).randbytes(PAYLOAD_LIMIT)
    rows, payload = rows_of(noise, 1024, 1024)
    assert rows.codec == "raw" and payload == noise
    assert frames.unpack_rows(rows, frames.encode(rows, payload)[2]) == noise


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "E_FRAMES"),
        ([MAGIC], "E_FRAMES"),
        ([MAGIC, b"{}", b"", b""], "E_FRAMES"),
        ([MAGIC, b'{"type":"status"}', b"payload"], "E_FRAMES"),
        ([b"REST2", b'{"type":"status"}'], "E_FRAMES"),
        ([MAGIC, b" " * (HEADER_LIMIT + 1)], "E_HEADER_SIZE"),
        ([MAGIC, b"{}"], "E_HEADER"),
        ([MAGIC, b"not json"], "E_HEADER"),
        ([MAGIC, b'{"type":"status","job":"\xff\xfe"}'], "E_HEADER"),
        ([MAGIC, b"[" * HEADER_LIMIT], "E_HEADER"),
        ([MAGIC, b'{"type":"status","job":"../x"}'], "E_HEADER"),
        ([MAGIC, b'{"type":"status","job":"a\\n"}'], "E_HEADER"),
        ([MAGIC, b'{"type":"credit","job":"j","credit":0}'], "E_HEADER"),
        ([MAGIC, b'{"type":"credit","job":"j","credit":33}'], "E_HEADER"),
        ([MAGIC, b'{"type":"credit","job":"j","credit":-1}'], "E_HEADER"),
        ([MAGIC, b'{"type":"attach","job":"j","seq":1e999}'], "E_HEADER"),
        ([MAGIC, b'{"type":"attach","job":"j","seq":9007199254740993}'], "E_HEADER"),
        ([MAGIC, b'{"type":"hello","protocols":[1],"client":"c","version":"1"}'], "E_HEADER"),
        ([MAGIC, b'{"type":"welcome","protocol":1,"version":"1","boot":"b"}'], "E_HEADER"),
        ([MAGIC, b'{"type":"explode"}'], "E_UNKNOWN_TYPE"),
    ],
)
def test_bad_requests_are_refused_by_code(parts: list[bytes], code: str) -> None:
    with pytest.raises(frames.WireError) as refused:
        frames.decode_request(parts)
    assert refused.value.code == code


def test_a_refusal_tells_the_request_it_can_be_answered_to() -> None:
    with pytest.raises(frames.WireError) as refused:
        frames.decode_request([MAGIC, b'{"type":"explode","request":"r7"}'])
    assert refused.value.request == "r7"
    with pytest.raises(frames.WireError) as refused:
        frames.decode_request([MAGIC, b'{"type":"explode","request":"r 7"}'])
    assert refused.value.request == ""


def test_unknown_fields_are_ignored_and_new_ones_have_defaults() -> None:
    assert frames.decode_request([MAGIC, b'{"type":"status","colour":"blue"}']) == Status()


def test_only_rows_carry_a_payload() -> None:
    rows, payload = rows_of(b"\0" * 4, 2, 2)
    for message, attached in ((rows, None), (Status(), b"x")):
        with pytest.raises(frames.WireError, match="payload"):
            frames.encode(message, attached)
    with pytest.raises(frames.WireError, match="payload"):
        frames.decode_answer(frames.encode(rows, payload)[:2])


def test_sizes_are_limited_both_ways() -> None:
    with pytest.raises(frames.WireError) as refused:
        frames.encode(Models(models=[{"id": "x" * HEADER_LIMIT}]))
    assert refused.value.code == "E_HEADER_SIZE"
    rows, payload = rows_of(b"\0" * 4, 2, 2)
    for attempt in (
        lambda: frames.encode(rows, b"\0" * (PAYLOAD_LIMIT + 1)),
        lambda: frames.decode_answer([*frames.encode(rows, payload)[:2], b"\0" * (PAYLOAD_LIMIT + 1)]),
    ):
        with pytest.raises(frames.WireError) as refused:
            attempt()
        assert refused.value.code == "E_PAYLOAD_SIZE"


def test_rows_that_lie_are_refused() -> None:
    rows, payload = rows_of(b"\1" * 600, 30, 20)
    bomb = zlib.compress(b"\0" * 10_000_000)
    cases = [
        (rows, payload[:-1] + b"\0"),  # crc
        (
            Rows(job="j", seq=0, window=(0, 0, 30, 21), codec="zlib", crc32=rows.crc32),
            payload,
        ),  # too few bytes
        (Rows(job="j", seq=0, window=(0, 0, 30, 19), codec="zlib", crc32=rows.crc32), payload),  # too many
        (
            Rows(job="j", seq=0, window=(0, 0, 30, 20), codec="zlib", crc32=zlib.crc32(b"no")),
            b"no",
        ),  # no stream
        (Rows(job="j", seq=0, window=(0, 0, 30, 20), codec="raw", crc32=rows.crc32), payload),
        (Rows(job="j", seq=0, window=(0, 0, 30, 20), codec="zlib", crc32=zlib.crc32(bomb)), bomb),
        (Rows(job="j", seq=0, window=(0, 0, 2**40, 2), codec="zlib", crc32=rows.crc32), payload),
    ]
    for message, bytes_sent in cases:
        with pytest.raises(frames.WireError) as refused:
            frames.unpack_rows(message, bytes_sent)
        assert refused.value.code == "E_PAYLOAD"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200) | st.just(MAGIC), max_size=4))
def test_decoding_is_total(parts: list[bytes]) -> None:
    for decode in (frames.decode_request, frames.decode_answer):
        try:
            decode(parts)
        except frames.WireError as error:
            assert error.code in KNOWN_CODES


def test_20000_mutated_frames_raise_nothing_but_wire_errors() -> None:
    chance = random.Random(1)
    rows, payload = rows_of(b"\1" * 600, 30, 20)
    answers = [
        Done(job="j", seq=1, output="/o", summary={"a": [1, 2]}),
        Progress(job="j", stage="sweep", rows_done=1, rows=2),
    ]
    seeds = [frames.encode(message) for message in [*REQUESTS, *answers]] + [frames.encode(rows, payload)]
    refused = 0
    for _ in range(20_000):
        parts = [_mutate(chance, part) for part in chance.choice(seeds)]
        if chance.random() < 0.05:
            parts.insert(chance.randrange(len(parts) + 1), chance.randbytes(chance.randrange(40)))
        for decode in (frames.decode_request, frames.decode_answer):
            try:
                message = decode(parts)
            except frames.WireError as error:
                assert error.code in KNOWN_CODES
                refused += 1
            else:
                if decode is frames.decode_answer and isinstance(message[0], Rows):
                    try:
                        frames.unpack_rows(*message)
                    except frames.WireError as error:
                        assert error.code == "E_PAYLOAD"
    assert refused > 15_000


def _mutate(chance: random.Random, part: bytes) -> bytes:
    mutated = bytearray(part)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 8))):
        place = chance.randrange(len(mutated) + 1)
        action = chance.randrange(4)
        if action == 0 and mutated:
            mutated[place % len(mutated)] = chance.randrange(256)
        elif action == 1:
            mutated[place:place] = chance.choice(
                (b'"', b"{", b"[", b"9" * 30, b"\xff", b"null", b"-", b"\\u0000")
            )
        elif action == 2:
            del mutated[place : place + chance.randrange(1, 9)]
        else:
            mutated[place:place] = mutated[: chance.randrange(40)]
    return bytes(mutated)
