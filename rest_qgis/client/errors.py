"""The client's one error: a stable code and a sentence for the user."""

from __future__ import annotations


class ClientError(Exception):
    """Something between QGIS and the engine failed, told in a plain sentence.

    Codes of the client itself (a failed job carries the daemon's own code):

    * ``E_ZMQ_MISSING``: QGIS's Python has no pyzmq, or one without CURVE.
    * ``E_ENGINE_MISSING``: no ``rest-backend`` command was found.
    * ``E_ENGINE_START``: the daemon was started and did not come up.
    * ``E_ENGINE_VERSION``: the daemon speaks another protocol.
    * ``E_ENGINE_KEYS``: the daemon refused the keys of the connection file.
    * ``E_ENGINE_SILENT``: the daemon's process is there and does not answer.
    * ``E_ENGINE_LINK``: the link broke again and again.
    * ``E_ENGINE_PROTOCOL``: the daemon sent messages that make no sense.
    * ``E_ENGINE_STOPPED``: the daemon is not running, or was stopped.
    * ``E_CONNECTION_FILE``: the connection file is unsafe or damaged.
    * ``E_REQUEST``: the caller's request cannot be sent.
    * ``E_REPLACED``: a newer question of the same kind took this one's place.
    * ``E_FOLLOWED``: this client follows the job already.
    * ``E_INBOX``: the folder for a job's own files cannot be made.
    * ``E_SEQUENCE``, ``E_CHECKSUM``, ``E_SIZE``: result rows arrived wrong three times.
    * ``E_CLIENT_CLOSED``: the client was closed while the job was running.

    Attributes:
        code: Stable name of the cause.
        message: What is wrong and what to do, in one or two sentences.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
