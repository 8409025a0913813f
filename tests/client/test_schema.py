"""Strict JSON and the validator: the daemon's own decoder is the measure."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from rest_qgis.client import frames
from rest_qgis.client.schema import (
    SCHEMA_PATH,
    MessageSchema,
    SchemaError,
    UnknownTypeError,
    message_schema,
    parse_json,
)

msgspec = pytest.importorskip("msgspec", reason="the daemon's side is not in QGIS's Python")
hypothesis = pytest.importorskip("hypothesis", reason="not in QGIS's Python")
messages = pytest.importorskip(
    "rest_backend.wire.messages", reason="the daemon's side is not in QGIS's Python"
)

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

DOCUMENT = json.loads(SCHEMA_PATH.read_text())
ANSWERS = {kind.__struct_config__.tag: kind for kind in get_args(messages.Answer)}
decoder = msgspec.json.Decoder(messages.Answer)

MESSAGES: dict[str, dict[str, Any]] = {
    "welcome": {"protocol": 1, "version": "1.0", "boot": "b"},
    "goodbye": {"code": "E", "message": "m", "supported": [1, 2]},
    "error": {"code": "E", "message": "m", "job": "j"},
    "models": {"models": [{"id": "a"}]},
    "daemon_status": {
        "version": "1",
        "boot": "b",
        "pid": 1,
        "uptime_seconds": 0.5,
        "devices": [{"id": "cpu", "name": "CPU", "worker": "idle", "memory_bytes": 1}],
        "jobs": [
            {"type": "job_status", "job": "j", "state": "queued", "scene": "s", "model": "m", "output": "o"},
        ],
    },
    "submitted": {"job": "j", "key": "k", "state": "queued"},
    "job_status": {
        "job": "j",
        "state": "done",
        "scene": "s",
        "model": "m",
        "output": "o",
        "window": [0, 1, 2, 3],
        "key": "k",
        "asked": {"scene": "s", "model": "m", "output": "o", "bands": [4, 3, 2], "context": "nearby"},
    },
    "planned": {"plan": {"fits": True}},
    "deleted": {"job": "j"},
    "progress": {"job": "j", "stage": "sweep", "rows_done": 1, "rows": 2, "eta_seconds": None},
    "done": {"job": "j", "seq": 1, "output": "o", "summary": {"seconds": 1}},
    "failed": {"job": "j", "code": "E", "message": "m"},
    "rows": {"job": "j", "seq": 0, "window": [0, 0, 8, 8], "codec": "zlib", "crc32": 5, "product": "classes"},
}

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-3, max_value=2**53 + 2),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: value != int(value)),
    st.sampled_from(["", "a b", "queued", "sweep", "zlib", "x" * 65, "y" * 257, "z" * 4097, "\u00fc"]),
    st.lists(st.integers(min_value=-1, max_value=9), max_size=5),
    st.just({}),
)


def accepted_here(message: Any) -> bool:
    try:
        message_schema().check_answer(message)
    except SchemaError:
        return False
    return True


def accepted_by_msgspec(message: Any) -> bool:
    try:
        decoder.decode(json.dumps(message).encode())
    except msgspec.MsgspecError:
        return False
    return True


def test_there_is_an_example_of_every_answer():
    assert set(MESSAGES) == set(ANSWERS)
    for kind, fields in MESSAGES.items():
        assert accepted_here({"type": kind, **fields})


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_changed_message_is_accepted_exactly_when_the_daemons_decoder_accepts_it(data):
    kind = data.draw(st.sampled_from(sorted(MESSAGES)))
    message = {"type": kind, **MESSAGES[kind]}
    for _ in range(data.draw(st.integers(min_value=1, max_value=2))):
        fields = [*DOCUMENT["$defs"][ANSWERS[kind].__name__]["properties"], "novel"]
        name = data.draw(st.sampled_from(fields))
        if name in message and data.draw(st.booleans()):
            del message[name]
        else:
            message[name] = data.draw(values)
    assert accepted_here(message) == accepted_by_msgspec(message)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[" * 30_000,
        b'{"a": 1} x',
        b" " * 65_537,
    ],
)
def test_what_is_not_strict_json_is_refused(data):
    with pytest.raises(SchemaError):
        parse_json(data, frames.HEADER_LIMIT)


def test_size_is_looked_at_before_anything_is_parsed():
    with pytest.raises(SchemaError, match="65537 bytes"):
        parse_json(b"[" * 65_537, frames.HEADER_LIMIT)


def test_an_unknown_type_has_an_error_of_its_own():
    with pytest.raises(UnknownTypeError):
        message_schema().check_answer({"type": "weather"})
    for header in ({}, [], {"type": 5}, "done", None):
        with pytest.raises(SchemaError) as raised:
            message_schema().check_answer(header)
        assert not isinstance(raised.value, UnknownTypeError)


def test_requests_are_not_answers():
    with pytest.raises(UnknownTypeError):
        message_schema().check_answer({"type": "shutdown"})
    assert message_schema().check_request({"type": "shutdown"})


def test_a_keyword_the_validator_does_not_know_is_refused():
    definitions = {"A": {"properties": {"b": {"multipleOf": 2}}}}
    with pytest.raises(SchemaError, match="multipleOf"):
        MessageSchema({"requests": {}, "answers": {}, "$defs": definitions})


def test_the_constants_are_those_of_the_protocol():
    assert DOCUMENT["protocol"] == frames.PROTOCOL
    assert DOCUMENT["limits"] == {
        "header_bytes": frames.HEADER_LIMIT,
        "payload_bytes": frames.PAYLOAD_LIMIT,
        "credit": frames.CREDIT_LIMIT,
    }


def test_frames_of_a_request_are_read_by_the_daemons_decoder():
    job = {"scene": "/ü", "model": "m", "output": "/o", "window": [0, 0, 1, 1]}
    magic, header = frames.encode({"type": "submit", "request": "r", "key": "k", "job": job})
    decoded = msgspec.json.decode(header, type=messages.Request)
    assert magic == messages.MAGIC
    assert decoded.job.scene == "/ü" and decoded.job.window == (0, 0, 1, 1)


ROWS = json.dumps({"type": "rows", **MESSAGES["rows"]}).encode()
DONE = json.dumps({"type": "done", **MESSAGES["done"]}).encode()


@pytest.mark.parametrize(
    "received",
    [
        [],
        [b"REST1"],
        [b"REST2", DONE],
        [b"REST1", DONE, b""],
        [b"REST1", DONE, b"x", b"y"],
        [b"REST1", ROWS],
        [b"REST1", ROWS, bytes(frames.PAYLOAD_LIMIT + 1)],
        [b"REST1", DONE + b" " * frames.HEADER_LIMIT],
    ],
)
def test_wrong_frames_are_refused(received):
    with pytest.raises(SchemaError):
        frames.decode(received)


def test_right_frames_are_read():
    assert frames.decode([b"REST1", DONE])[0]["output"] == "o"
    assert frames.decode([b"REST1", ROWS, b"abc"])[1] == b"abc"
