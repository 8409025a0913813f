"""The connections of a ROUTER socket: how many there are, and which peer's has ended."""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message


class Links:
    """Follows the connections of one socket.

    A ROUTER does not say that a peer left. Its monitor does, but names the connection's
    descriptor; every message carries the same descriptor, so the two together tell who left.

    Args:
        socket: A bound ROUTER.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._router = socket
        self._open: set[int] = set()
        self._peers: dict[int, bytes] = {}
        self._gone: list[bytes] = []
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
        )

    @property
    def any(self) -> bool:
        """Whether anybody is connected; strangers count too, for the 3 s of a handshake."""
        return bool(self._open)

    def note(self, peer: bytes, descriptor: int) -> None:
        """A message of a peer came over the connection of this descriptor."""
        if self._peers.get(descriptor) == peer:
            return
        self._read()  # the number may be that of an earlier connection, whose end is not read yet
        if descriptor in self._open:
            self._peers[descriptor] = peer

    def departed(self) -> list[bytes]:
        """Peers whose connection ended since the last call."""
        self._read()
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """Stop following; the context does not end before."""
        self._router.disable_monitor()
        self.monitor.close(linger=0)

    def _read(self) -> None:
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            descriptor = int(event["value"])
            if event["event"] & zmq.EVENT_ACCEPTED:
                self._open.add(descriptor)
                continue
            self._open.discard(descriptor)
            peer = self._peers.pop(descriptor, None)
            if peer is not None:
                self._gone.append(peer)
