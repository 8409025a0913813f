"""Compute devices of this computer, by the names users give them."""

from __future__ import annotations

import torch

from rest_backend.errors import InputError


def device_names() -> list[str]:
    """Devices work can run on, best first: ``cuda:0`` ..., or ``cpu`` alone."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]


def choose_device(name: str) -> torch.device:
    """Device for a name.

    Args:
        name: ``auto``, ``cpu`` or ``cuda:N``.

    Raises:
        InputError: ``E_DEVICE`` when this computer has no such device.
    """
    if name == "auto":
        name = device_names()[0]
    if name != "cpu" and name not in device_names():
        raise InputError(
            "E_DEVICE",
            f"This computer has no device {name!r}; it has {', '.join({*device_names(), 'cpu'})}.",
        )
    device = torch.device(name)
    if device.type == "cuda":  # the whole forward in full precision is what the result equals
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return device


def describe_device(device: torch.device) -> str:
    """Name of the device for people."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "CPU"
