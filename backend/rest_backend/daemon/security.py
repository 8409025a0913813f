"""Who may talk to the daemon: keys, the allow-list, hardened sockets, an attack on ourselves.

CURVE alone fails open: libzmq asks the ZAP handler about a key only when the
socket has a ZAP domain, and lets everybody in when the handler is gone unless
``ZAP_ENFORCE_DOMAIN`` is set. Every bound socket therefore gets both, and before
the daemon says it is ready it attacks its own sockets the way a stranger would.
"""

from __future__ import annotations

import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from rest_backend.daemon.files import write_private
from rest_backend.errors import InputError, ResourceError

ZAP_DOMAIN = b"rest"
# Each is needed, see the module's first lines; tests take one away and see the door open.
FAIL_CLOSED: tuple[tuple[int, bytes | int], ...] = (
    (zmq.ZAP_DOMAIN, ZAP_DOMAIN),
    (zmq.ZAP_ENFORCE_DOMAIN, 1),
)
FRAME_LIMIT = 256 * 1024  # bytes a client may send in one frame; libzmq ends the link beyond
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ATTACK_SECONDS = 5.0


class KeyPair(msgspec.Struct, frozen=True):
    """A CURVE key pair, Z85 text of 40 characters each."""

    public: str
    secret: str

    @staticmethod
    def new() -> KeyPair:
        """A fresh random pair."""
        public, secret = zmq.curve_keypair()
        return KeyPair(public.decode("ascii"), secret.decode("ascii"))


def load_or_make_keys(path: Path) -> KeyPair:
    """The key pair in a file; made on first use, mode 0600.

    Raises:
        InputError: ``E_KEYS``: the file is not a key pair, or others can read it.
    """
    if not path.exists():
        pair = KeyPair.new()
        write_private(path, msgspec.json.encode(pair))
        return pair
    if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(
            "E_KEYS", f"The key file {path} can be read by others; delete it and start the engine again."
        )
    try:
        pair = msgspec.json.decode(path.read_bytes(), type=KeyPair)
        matches = zmq.curve_public(pair.secret.encode("ascii")).decode("ascii") == pair.public
    except (OSError, ValueError, msgspec.MsgspecError, zmq.ZMQError):
        matches = False
    if not matches:
        raise InputError("E_KEYS", f"The key file {path} is damaged; delete it and start the engine again.")
    return pair


class Authenticator:
    """The ZAP handler (RFC 27): a thread that admits the CURVE keys on a list.

    It must run before any socket of the context is bound. If it ever ends, no
    new peer is admitted, because the sockets enforce their ZAP domain.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: frozenset[str]) -> None:
        self._allowed = {z85.decode(key.encode("ascii")) for key in allowed}
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 200)
        self._socket.bind(_ZAP_ADDRESS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether new peers can still be admitted."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread; from now on every new peer is refused."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    frames = self._socket.recv_multipart()
                except zmq.Again:
                    continue
                self._socket.send_multipart(self._reply(frames))
        finally:
            self._socket.close()

    def _reply(self, frames: list[bytes]) -> list[bytes]:
        request = frames[1] if len(frames) > 1 else b""
        admitted = (
            len(frames) == 7
            and frames[0] == b"1.0"
            and frames[2] == ZAP_DOMAIN
            and frames[5] == b"CURVE"
            and frames[6] in self._allowed
        )
        if admitted:
            user = z85.encode(frames[6])
            return [b"1.0", request, b"200", b"OK", user, b""]
        return [b"1.0", request, b"400", b"refused", b"", b""]


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]], server: KeyPair, *, send_limit: int
) -> zmq.Socket[bytes]:
    """A ROUTER on a free port of 127.0.0.1 that admits listed keys only.

    Args:
        context: Context in which an :class:`Authenticator` runs.
        server: The daemon's key pair.
        send_limit: Messages kept for one slow peer (SNDHWM).

    Returns:
        The bound socket; its address is ``getsockopt_string(zmq.LAST_ENDPOINT)``.
    """
    router = context.socket(zmq.ROUTER)
    # Everything before bind: options set later do not count for the bound address.
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.MAXMSGSIZE, FRAME_LIMIT)
    router.setsockopt(zmq.HANDSHAKE_IVL, 3000)
    router.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
    router.setsockopt(zmq.HEARTBEAT_TTL, 6000)
    router.setsockopt(zmq.RCVHWM, 64)
    router.setsockopt(zmq.SNDHWM, send_limit)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_PUBLICKEY, server.public.encode("ascii"))
    router.setsockopt(zmq.CURVE_SECRETKEY, server.secret.encode("ascii"))
    for option, value in FAIL_CLOSED:
        router.setsockopt(option, value)
    router.bind("tcp://127.0.0.1:*")
    return router


class Attack(NamedTuple):
    """One attempt to connect and what must come of it."""

    name: str
    prepare: Callable[[zmq.Socket[bytes]], None]
    admitted: bool


def self_attack(router: zmq.Socket[bytes], server: KeyPair, client: KeyPair) -> None:
    """Connect to our own socket as strangers and as the client; only the client may get in.

    Args:
        router: A socket of :func:`bind_router`.
        server: The daemon's key pair.
        client: The listed client's key pair.

    Raises:
        ResourceError: ``E_SELF_ATTACK``: a stranger got in, the client did not, or
            the options that make the socket fail closed are not set.
    """
    if not router.getsockopt_string(zmq.ZAP_DOMAIN):
        raise ResourceError("E_SELF_ATTACK", "A socket has no ZAP domain: every key would be admitted.")
    if not router.getsockopt(zmq.ZAP_ENFORCE_DOMAIN):
        raise ResourceError(
            "E_SELF_ATTACK", "A socket does not enforce its ZAP domain: without the handler it would be open."
        )
    failed = failed_attacks(router.getsockopt_string(zmq.LAST_ENDPOINT), server, client)
    if failed:
        raise ResourceError("E_SELF_ATTACK", f"The engine's sockets are not safe: {', '.join(failed)}.")


def failed_attacks(address: str, server: KeyPair, client: KeyPair) -> list[str]:
    """Try every attack on an address; names of those that did not end as they must."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        return [
            attack.name
            for attack in _attacks(server, client)
            if _admitted(context, address, attack) != attack.admitted
        ]
    finally:
        context.destroy(linger=0)


def _attacks(server: KeyPair, client: KeyPair) -> tuple[Attack, ...]:
    stranger, impostor = KeyPair.new(), KeyPair.new()

    def curve(own: KeyPair, server_public: str) -> Callable[[zmq.Socket[bytes]], None]:
        def prepare(socket: zmq.Socket[bytes]) -> None:
            socket.setsockopt(zmq.CURVE_PUBLICKEY, own.public.encode("ascii"))
            socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret.encode("ascii"))
            socket.setsockopt(zmq.CURVE_SERVERKEY, server_public.encode("ascii"))

        return prepare

    return (
        Attack("a random key is admitted", curve(stranger, server.public), False),
        Attack("a peer without keys is admitted", lambda socket: None, False),
        Attack("a wrong server key is accepted", curve(client, impostor.public), False),
        Attack("the client's own key is refused", curve(client, server.public), True),
    )


def _admitted(context: zmq.Context[zmq.Socket[bytes]], address: str, attack: Attack) -> bool:
    """Whether the handshake succeeds; silence for 5 s counts as refused."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    attack.prepare(socket)
    refusals = (
        zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
    )
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | refusals)
    socket.connect(address)
    deadline = time.monotonic() + _ATTACK_SECONDS
    try:
        while (left := deadline - time.monotonic()) > 0:
            if not monitor.poll(int(left * 1000) + 1):
                break
            event = recv_monitor_message(monitor)["event"]
            if event & zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return True
            if event & refusals:
                return False
        return False
    finally:
        socket.disable_monitor()
        socket.close(linger=0)
