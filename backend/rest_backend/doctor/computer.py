"""The computer: system, processors, memory, compute devices."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any

import psutil

from rest_backend.doctor.check import Check

LITTLE_MEMORY = 1_500_000_000  # bytes; about what torch and the sample scene take


def check_computer() -> Check:
    """Operating system, processors this process may use, memory and how much of it is free."""
    memory = psutil.virtual_memory()
    processors = psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    facts = {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processors": processors,
        "memory_bytes": int(memory.total),
        "available_bytes": int(memory.available),
    }
    message = (
        f"{platform.system()} {platform.release()} on {platform.machine()}, {processors} processors, "
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory available"
    )
    if memory.available < LITTLE_MEMORY:
        message = f"{message}; that is little, close other programs before you run a job."
        return Check("computer", "warning", message, facts)
    return Check("computer", "ok", message, facts)


def check_devices() -> Check:
    """What jobs can run on, as torch sees it."""
    import torch

    cards: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        cards.append({"id": f"cuda:{index}", "name": name, "memory_bytes": total, "free_bytes": free})
    facts: dict[str, Any] = {"cuda": torch.version.cuda, "threads": torch.get_num_threads(), "devices": cards}
    if cards:
        shown = ", ".join(
            f"{card['id']} {card['name']} ({card['free_bytes'] / 1e9:.1f} of "
            f"{card['memory_bytes'] / 1e9:.1f} GB free)"
            for card in cards
        )
        return Check("devices", "ok", f"{shown}; CPU with {facts['threads']} threads", facts)
    message = f"CPU with {facts['threads']} threads; no graphics card is used"
    if shutil.which("nvidia-smi"):
        why = "its driver is too old for it" if torch.version.cuda else "it was built without CUDA"
        message = (
            f"{message}. This computer seems to have an NVIDIA card that torch cannot use: {why}, or the "
            "card is hidden. See “Graphics cards” in the README."
        )
        return Check("devices", "warning", message, facts)
    return Check("devices", "ok", message, facts)
