"""Memory of a job: what the process holds beside the engine's tensors, and what that leaves for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rest_backend.engine import PREFERRED_STRIPES, Plan, SceneProgram
from rest_backend.errors import ResourceError
from rest_backend.methods.context import Context, forget_captures
from rest_backend.methods.memory import available_bytes, release_unused, resident_bytes
from rest_backend.methods.network_input import reading_bytes
from rest_backend.methods.products import product_bytes, rows_at_once
from rest_backend.methods.request import Window
from rest_backend.methods.subject import Subject
from rest_backend.rasters.classmap import BLOCK
from rest_backend.rasters.scene import Scene

_KERNEL_BYTES = 90_000_000  # what torch's kernels take besides tensors
_LOOSENESS = 1.1  # of what tensors take: the allocator cannot hand back every gap at once
_UNEVEN_BYTES = 20_000_000  # by which the process itself differs from one start to the next
_SHARE_OF_AVAILABLE = 0.6
_SHARE_OF_CUDA = 0.9  # of the device's free memory


@dataclass(frozen=True)
class Budget:
    """Bytes of this process.

    Attributes:
        limit: Most it may have resident.
        resident: What it has before the sweep, the network included.
        beside: What reading, results and kernels take besides tensors, at most.
        device: Device of the sweep.
    """

    limit: int
    resident: int
    beside: int
    device: torch.device

    def tensor_limit(self) -> int:
        """Bytes the engine's tensors may take on the device; below 0 when not even the rest fits."""
        spare = self.limit - self.resident - self.beside
        if self.device.type != "cuda" or spare < 0:
            return int(spare / _LOOSENESS)
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(free * _SHARE_OF_CUDA)

    def smallest_told(self, program: SceneProgram, spill_folder: Path) -> int:
        """The smallest limit to tell the user: one that works in another process too, in whole 10 MB."""
        smallest = self.process_bytes(program.smallest_memory(self.device, spill_folder))
        return -(-(smallest + _UNEVEN_BYTES) // 10**7) * 10**7

    def process_bytes(self, tensors: int) -> int:
        """Resident bytes of the process when the engine's tensors take so many."""
        held = 0 if self.device.type == "cuda" else math.ceil(tensors * _LOOSENESS)
        return self.resident + self.beside + held


def plan_sweep(program: SceneProgram, budget: Budget, spill_folder: Path) -> Plan:
    """The engine's plan within a budget.

    Args:
        program: The captured network.
        budget: Memory of the process.
        spill_folder: Where stored tensors may go as mapped files.

    Raises:
        ResourceError: ``E_MEMORY``; the sentence names the smallest limit that works.
    """
    tensors = budget.tensor_limit()
    try:
        return program.plan(tensors, budget.device, spill_folder=spill_folder)
    except ResourceError:
        if budget.device.type == "cuda" and tensors >= 0:  # told in terms of the device
            raise
    smallest = budget.smallest_told(program, spill_folder)
    raise ResourceError(
        "E_MEMORY",
        f"The memory limit of {budget.limit / 1e6:.0f} MB is too small for this job: the smallest that works"
        f" is {smallest / 1e6:.0f} MB. Raise it, take a narrower window or area, or a smaller network.",
    )


def make_budget(
    subject: Subject,
    context: Context,
    planes: int,
    device: torch.device,
    limit: int | None,
    spill_folder: Path,
) -> Budget:
    """Budget of a job about to be swept; where memory is short, captures kept of earlier jobs are given up.

    Args:
        subject: What is segmented.
        context: The network captured for it, and what it runs on.
        planes: Products of each pixel.
        device: Device of the sweep.
        limit: Most resident bytes as asked for; None: a share of what is available.
        spill_folder: As for :func:`plan_sweep`.
    """
    budget = _measured_budget(subject, context.window, planes, device, limit)
    if _is_short(budget, context.program, spill_folder) and forget_captures():
        release_unused()
        budget = _measured_budget(subject, context.window, planes, device, limit)
    return budget


def _is_short(budget: Budget, program: SceneProgram, spill_folder: Path) -> bool:
    """Whether the process's limit, not the device's memory, leaves no plan."""
    tensors = budget.tensor_limit()
    if tensors < 0 or budget.device.type == "cuda":
        return tensors < 0
    # Not by the smallest limit: that lays out every stripe height, where the first mostly fits.
    try:
        program.plan(tensors, budget.device, spill_folder=spill_folder)
    except ResourceError:
        return True
    return False


def _measured_budget(
    subject: Subject, read_window: Window, planes: int, device: torch.device, limit: int | None
) -> Budget:
    resident = resident_bytes()
    if limit is None:
        limit = resident + int(available_bytes() * _SHARE_OF_AVAILABLE)
    width, height, grid = subject.window[2], subject.window[3], subject.grid
    classes = len(subject.model.card.classes)
    stripe = max(PREFERRED_STRIPES[device.type])
    finished = min(height, -(-stripe * grid.scene_height // grid.height))  # result rows a stripe brings
    beside = (
        _KERNEL_BYTES
        + min(subject.scene.cache_bytes, _cacheable_bytes(subject.scene, width * height * planes))
        + reading_bytes(subject.source, read_window[2], device)
        + product_bytes(classes, planes, width, finished)
        + subject.mask_bytes(min(finished, rows_at_once(classes, width)))
        + min(height, BLOCK) * width * planes  # rows the writers gather
    )
    return Budget(limit, resident, beside, device)


def _cacheable_bytes(scene: Scene, written: int) -> int:
    """Bytes GDAL's cache can come to hold: the decoded scene, and a result with its copy and overviews."""
    decoded = sum(np.dtype(dtype).itemsize for dtype in scene.dtypes) * scene.width * scene.height
    return decoded + 3 * written
