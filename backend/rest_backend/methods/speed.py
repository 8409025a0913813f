"""How fast a network is on a device: measured by a short sweep of it, remembered in this process."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from rest_backend.engine import SceneProgram
from rest_backend.methods.context import captured, padded_size
from rest_backend.models.zoo import InstalledModel

_WIDTHS = (16384, 8192, 4096, 2048, 1024, 512, 256)  # classes: wide stripes leave the processor's cache
_PIXELS = 2**19  # swept, in as many rows as that makes
_RUNS = 2  # the first one warms up

_measured: dict[tuple[str, str, tuple[int, int]], float] = {}


def seconds_per_pixel(
    model: InstalledModel, device: torch.device, width: int, height: int, check: Callable[[], None]
) -> float:
    """Seconds the network takes a pixel on a device.

    Args:
        model: The model.
        device: Device of the sweep.
        width: Columns of what it will be run on, in pixels.
        height: Its rows.
        check: Called between stripes; may raise to stop.

    Raises:
        ResourceError: ``E_MEMORY``: not even this small sweep fits.
    """
    across = next((known for known in _WIDTHS if known <= width), width)
    size = padded_size(model.card, min(_PIXELS // across, height), across)
    key = (model.card.sha256, str(device), size)
    if key not in _measured:
        _measured[key] = _measure(captured(model, *size), len(model.card.bands), size, device, check)
    return _measured[key]


def _measure(
    program: SceneProgram,
    bands: int,
    size: tuple[int, int],
    device: torch.device,
    check: Callable[[], None],
) -> float:
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(1, bands, *size, generator=generator).to(memory_format=torch.channels_last)
    plan = program.plan(device=device)
    seconds = 0.0
    for _ in range(_RUNS):
        began = time.perf_counter()
        program.run(lambda start, stop: scene[:, :, start:stop], _classify, plan, lambda done, of: check())
        seconds = time.perf_counter() - began
    return seconds / (size[0] * size[1])


def _classify(start: int, logits: torch.Tensor) -> None:
    logits.argmax(1).cpu()  # waits for the device
