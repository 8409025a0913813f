"""All checks, in the order a person wants to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rest_backend.daemon.home import Home
from rest_backend.doctor.check import Check
from rest_backend.doctor.computer import check_computer, check_devices
from rest_backend.doctor.folders import check_home, check_models
from rest_backend.doctor.self_check import check_engine, check_weights
from rest_backend.doctor.service import check_daemon
from rest_backend.doctor.software import check_software
from rest_backend.errors import RestError

_CHECKS: dict[str, Callable[[Home], Check]] = {
    "software": lambda home: check_software(),
    "computer": lambda home: check_computer(),
    "devices": lambda home: check_devices(),
    "folders": check_home,
    "models": check_models,
    "daemon": check_daemon,
    "weights": lambda home: check_weights(),
    "engine": lambda home: check_engine(),
}


def examine(folder: Path) -> Iterator[Check]:
    """Look at everything; what cannot even be looked at is a problem, and the rest goes on.

    Args:
        folder: The daemon's home; nothing is made in it.

    Yields:
        The findings, each as soon as it is there.
    """
    home = Home(folder.absolute())
    for name, check in _CHECKS.items():
        try:
            yield check(home)
        except RestError as error:
            yield Check(name, "problem", f"{error.code}: {error.message}", {"code": error.code})
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            kind = type(error).__name__
            message = (
                f"This could not be checked: {kind}: {error}. Install rest-backend anew where this stays."
            )
            yield Check(name, "problem", message, {"code": kind})
