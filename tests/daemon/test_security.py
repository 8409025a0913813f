"""Strangers stay out, and each of the options that keep them out is needed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from rest_backend.daemon import security
from rest_backend.daemon.security import Authenticator, KeyPair
from rest_backend.errors import InputError, ResourceError

SERVER, CLIENT = KeyPair.new(), KeyPair.new()
STRANGER = "a random key is admitted"


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def attack(context: zmq.Context[zmq.Socket[bytes]]) -> list[str]:
    router = security.bind_router(context, SERVER, send_limit=64)
    address = router.getsockopt_string(zmq.LAST_ENDPOINT)
    assert address.startswith("tcp://127.0.0.1:")
    return security.failed_attacks(address, SERVER, CLIENT)


def without(option: int) -> tuple[tuple[int, bytes | int], ...]:
    kept = tuple(pair for pair in security.FAIL_CLOSED if pair[0] != option)
    assert len(kept) == 1
    return kept


def test_only_the_listed_key_gets_in(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    handler = Authenticator(context, frozenset({CLIENT.public}))
    assert attack(context) == []
    handler.close()


def test_nobody_gets_in_when_the_handler_is_dead(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    handler = Authenticator(context, frozenset({CLIENT.public}))
    handler.close()
    assert not handler.alive
    assert attack(context) == ["the client's own key is refused"]


def test_the_domain_is_needed(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Authenticator(context, frozenset({CLIENT.public}))
    monkeypatch.setattr(security, "FAIL_CLOSED", without(zmq.ZAP_DOMAIN))
    assert attack(context) == [STRANGER]  # although the handler lives
    handler.close()


def test_the_enforcement_is_needed(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Authenticator(context, frozenset({CLIENT.public}))
    handler.close()
    monkeypatch.setattr(security, "FAIL_CLOSED", without(zmq.ZAP_ENFORCE_DOMAIN))
    assert attack(context) == [STRANGER]


@pytest.mark.parametrize("option", [zmq.ZAP_DOMAIN, zmq.ZAP_ENFORCE_DOMAIN])
def test_a_daemon_without_either_refuses_to_start(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch, option: int
) -> None:
    handler = Authenticator(context, frozenset({CLIENT.public}))
    monkeypatch.setattr(security, "FAIL_CLOSED", without(option))
    router = security.bind_router(context, SERVER, send_limit=64)
    with pytest.raises(ResourceError) as refused:
        security.self_attack(router, SERVER, CLIENT)
    assert refused.value.code == "E_SELF_ATTACK"
    handler.close()


def test_a_daemon_whose_handler_admits_everybody_refuses_to_start(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Authenticator, "_reply", lambda self, frames: [b"1.0", frames[1], b"200", b"OK", b"someone", b""]
    )
    handler = Authenticator(context, frozenset({CLIENT.public}))
    router = security.bind_router(context, SERVER, send_limit=64)
    with pytest.raises(ResourceError, match="random key"):
        security.self_attack(router, SERVER, CLIENT)
    handler.close()


def test_limits_are_set(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    router = security.bind_router(context, SERVER, send_limit=64)
    expected = {
        zmq.MAXMSGSIZE: security.FRAME_LIMIT,
        zmq.HANDSHAKE_IVL: 3000,
        zmq.HEARTBEAT_IVL: 2000,
        zmq.RCVHWM: 64,
        zmq.SNDHWM: 64,
        zmq.LINGER: 0,
        zmq.CURVE_SERVER: 1,
        zmq.ZAP_ENFORCE_DOMAIN: 1,
    }
    assert {option: router.getsockopt(option) for option in expected} == expected
    assert router.getsockopt_string(zmq.ZAP_DOMAIN) == "rest"


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    pair = security.load_or_make_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert security.load_or_make_keys(path) == pair
    assert [entry.name for entry in tmp_path.iterdir()] == ["server.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"public":"x","secret":"y"}'])
def test_damaged_keys_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match="damaged"):
        security.load_or_make_keys(path)


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    path.write_text(f'{{"public":"{SERVER.public}","secret":"{CLIENT.secret}"}}')
    path.chmod(0o600)
    with pytest.raises(InputError, match="damaged"):
        security.load_or_make_keys(path)


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    security.load_or_make_keys(path)
    path.chmod(0o640)
    with pytest.raises(InputError) as refused:
        security.load_or_make_keys(path)
    assert refused.value.code == "E_KEYS"
