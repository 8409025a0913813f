"""The daemon: whether it runs, answers, and has workers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psutil

from rest_backend import __version__
from rest_backend.daemon.connection import Connection, read_connection
from rest_backend.daemon.home import Home
from rest_backend.daemon.probe import PATIENCE, ask_status
from rest_backend.doctor.check import Check
from rest_backend.errors import ResourceError

_SAME_START = 2.0  # seconds two clocks may tell a start apart
_STOPPED = Check("daemon", "ok", "It does not run; it starts when it is needed.", {"running": False})


def check_daemon(home: Home) -> Check:
    """Ask the daemon as QGIS would; one that does not run is fine, it starts when it is needed."""
    connection = read_connection(home.connection)
    if connection is None and home.connection.is_file():
        message = f"{home.connection} is damaged. End the daemon if it runs, and delete the file."
        return Check("daemon", "problem", message)
    if connection is None or not psutil.pid_exists(connection.pid):
        return _STOPPED
    try:
        status = ask_status(connection, PATIENCE)
    except ResourceError:
        if _wrote(connection):
            raise
        return _STOPPED
    jobs = Counter(job.state for job in status.jobs)
    facts: dict[str, Any] = {
        "running": True,
        "version": status.version,
        "pid": status.pid,
        "uptime_seconds": round(status.uptime_seconds),
        "jobs": dict(jobs),
        "devices": [
            {"id": device.id, "name": device.name, "worker": device.worker} for device in status.devices
        ],
        "dropped": status.dropped,
    }
    told = ", ".join(f"{count} {state}" for state, count in jobs.items()) or "none"
    message = (
        f"It runs: version {status.version}, process {status.pid}, for {status.uptime_seconds / 60:.0f} min; "
        f"jobs: {told}"
    )
    down = [device.id for device in status.devices if device.worker == "down"]
    if down:
        message = (
            f"{message}. Its worker for {', '.join(down)} does not start; the files in {home.log} say why."
        )
        return Check("daemon", "problem", message, facts)
    if status.version != __version__:
        message = f"{message}. This command is version {__version__}: end the daemon, so that it starts anew."
        return Check("daemon", "warning", message, facts)
    return Check("daemon", "ok", message, facts)


def _wrote(connection: Connection) -> bool:
    """Whether the process of that number is the daemon: numbers are used again."""
    try:
        started = psutil.Process(connection.pid).create_time()
    except psutil.Error:
        return False
    return bool(abs(started - connection.pid_start) < _SAME_START)
