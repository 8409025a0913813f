"""Sockets of the client: one context, a control and a data link, a wake-up.

Everything here belongs to one thread, except :meth:`Transport.wake`. Both links
are DEALER sockets with CURVE. They never reconnect by themselves: a daemon that
was restarted listens elsewhere and has other keys, so its connection file is
read again and a new :class:`Link` made.
"""

from __future__ import annotations

import struct
import threading
from typing import Any

from .connection import Connection
from .errors import ClientError
from .frames import HEADER_LIMIT, PAYLOAD_LIMIT

try:
    import zmq
except ImportError:  # QGIS's Python need not have it; Transport says so in a sentence
    zmq = None  # type: ignore[assignment, unused-ignore]

HEARTBEAT_MS = 2000
HEARTBEAT_TIMEOUT_MS = 6000
_CURVE_OVERHEAD = 256  # bytes; the limit below is of encrypted frames
_MESSAGES_A_TURN = {"control": 32, "data": 4}  # so that rows never delay a cancel
_RECEIVE_LIMIT = 64  # messages waiting in a socket


class Transport:
    """The client's ZeroMQ context and its wake-up.

    Raises:
        ClientError: ``E_ZMQ_MISSING``.
    """

    def __init__(self) -> None:
        if zmq is None or not zmq.has("curve"):
            raise ClientError(
                "E_ZMQ_MISSING",
                "QGIS's Python has no usable pyzmq, which the link to the engine needs. Install the package "
                "pyzmq for it (Debian and Ubuntu: python3-zmq) and start QGIS again.",
            )
        self.context = zmq.Context()
        self._wake_lock = threading.Lock()
        self._woken = self.context.socket(zmq.PAIR)
        self._woken.bind("inproc://wake")
        self._waker = self.context.socket(zmq.PAIR)
        self._waker.connect("inproc://wake")

    def wake(self) -> None:
        """End a :meth:`wait` early; from any thread."""
        with self._wake_lock:
            if not self._waker.closed:
                try:
                    self._waker.send(b"", zmq.DONTWAIT)
                except zmq.Again:
                    return  # it is full of wake-ups

    def wait(self, link: Link | None, seconds: float) -> None:
        """Sleep until a message, a wake-up or the time limit."""
        poller = zmq.Poller()
        poller.register(self._woken, zmq.POLLIN)
        if link is not None:
            for socket in link.sockets:
                poller.register(socket, zmq.POLLIN)
        poller.poll(max(0, int(seconds * 1000)))
        while self._woken.poll(0):
            self._woken.recv()

    def close(self) -> None:
        """Close the context; links must be closed before."""
        with self._wake_lock:
            self._waker.close(0)
        self._woken.close(0)
        self.context.destroy(0)


class Link:
    """Control and data sockets to one run of the daemon.

    Args:
        transport: Whose context to use.
        connection: Endpoints and keys.

    Raises:
        ClientError: ``E_ENGINE_LINK``: the system gives no more sockets.

    Attributes:
        connection: The same.
        sockets: All sockets to wait for.
        refused: The daemon refused our keys.
    """

    def __init__(self, transport: Transport, connection: Connection) -> None:
        self.connection = connection
        self.refused = False
        self._full = False
        self._sockets: dict[str, Any] = {}
        self._monitors: list[Any] = []
        try:
            self._open(transport, "control", connection.control, HEADER_LIMIT)
            self._open(transport, "data", connection.data, PAYLOAD_LIMIT)
        except zmq.ZMQError as error:
            self.close()
            raise ClientError(
                "E_ENGINE_LINK", f"The link to the engine cannot be opened: {error}."
            ) from error
        self.sockets = [*self._sockets.values(), *self._monitors]

    def send(self, channel: str, frames: list[bytes]) -> None:
        """Send a message; a link too full to take it counts as lost."""
        try:
            self._sockets[channel].send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            self._full = True

    def receive(self) -> list[list[bytes]]:
        """Messages that have come, control before data; at most a turn's worth of each."""
        messages = []
        for channel, socket in self._sockets.items():
            for _ in range(_MESSAGES_A_TURN[channel]):
                try:
                    messages.append(socket.recv_multipart(zmq.DONTWAIT))
                except zmq.Again:
                    break
        return messages

    def lost(self) -> bool:
        """Whether a socket's connection ended. What had come before is still to be received."""
        lost = self._full
        for monitor in self._monitors:
            while monitor.poll(0):
                event = struct.unpack("=Hi", monitor.recv_multipart()[0])[0]
                self.refused = self.refused or event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
                lost = True
        return lost

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""
        for socket in self._sockets.values():
            socket.disable_monitor()
            socket.close(0)
        for monitor in self._monitors:
            monitor.close(0)

    def _open(self, transport: Transport, channel: str, endpoint: str, limit: int) -> None:
        socket = self._sockets[channel] = _dealer(transport.context, self.connection, limit)
        events = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        self._monitors.append(socket.get_monitor_socket(events))
        socket.connect(endpoint)


def _dealer(context: Any, connection: Connection, limit: int) -> Any:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, limit + _CURVE_OVERHEAD)
    socket.setsockopt(zmq.RCVHWM, _RECEIVE_LIMIT)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.CURVE_SERVERKEY, connection.server_public.encode("ascii"))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, connection.client_public.encode("ascii"))
    socket.setsockopt(zmq.CURVE_SECRETKEY, connection.client_private.encode("ascii"))
    return socket
