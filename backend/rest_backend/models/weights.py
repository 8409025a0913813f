"""Weights on disk: safetensors files, checked against their card before a value is read.

Nothing here unpickles. A file is read only after its hash is the card's, its header is within
bounds, and every tensor has the name and shape the card's network has.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rest_backend.errors import InputError
from rest_backend.models.network import build_network, depends_on_size, network_layout
from rest_backend.models.zoo import InstalledModel

HEADER_LIMIT = 16 * 1024 * 1024  # bytes; a network of 10,000 tensors needs about 1 MB

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_COUNTER = "num_batches_tracked"  # of a BatchNorm: means something to training only
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct):
    dtype: str
    shape: Annotated[list[_Size], msgspec.Meta(max_length=8)]
    data_offsets: tuple[_Size, _Size]


def load_model(model: InstalledModel, height: int | None = None, width: int | None = None) -> nn.Module:
    """Build the network of a model and fill it with its weights.

    The last network is kept and given again as long as its card and its file are the same: it is
    not the caller's to change.

    Args:
        model: An installed model.
        height: Rows of the padded scene, see :func:`rest_backend.models.network.build_network`.
        width: Columns of the padded scene.

    Returns:
        The network in eval mode, float32, on the CPU, gradients off.

    Raises:
        InputError: ``E_WEIGHTS_MISSING``, ``E_WEIGHTS_HASH`` (not the file the card describes),
            ``E_WEIGHTS_FORMAT`` (not a safetensors file), ``E_WEIGHTS_NAME`` or ``E_WEIGHTS_SHAPE`` (the
            sentence names the tensor), ``E_WEIGHTS_VALUE`` (a tensor holds NaN or infinity), or what
            :func:`rest_backend.models.network.build_network` raises.
    """
    identity = _identity(model)
    if _Kept.network is not None and _Kept.identity == identity and _Kept.size in (None, (height, width)):
        return _Kept.network
    _Kept.network = None  # never two networks at once
    network = _load(model, height, width)
    _Kept.identity, _Kept.network = identity, network
    _Kept.size = (height, width) if depends_on_size(model.card.architecture) else None
    return network


def save_weights(module: nn.Module, path: Path, dtype: torch.dtype = torch.float16) -> str:
    """Write the weights of a network; the file appears complete or not at all.

    Args:
        module: The network.
        path: File to write.
        dtype: Floating point type to store; whole numbers are stored as they are.

    Returns:
        The file's SHA-256 in hexadecimal, for the card.

    Raises:
        InputError: ``E_WEIGHTS_VALUE``: a tensor does not fit ``dtype`` (or holds NaN or infinity).
        OSError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        if name.endswith(_COUNTER):
            continue
        stored = value.detach().cpu()
        if stored.is_floating_point():
            stored = stored.to(dtype)
            _check_finite(name, stored)
        tensors[name] = stored.contiguous().clone()  # clone: tied weights are stored twice
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(descriptor)
    try:
        save_file(tensors, partial)
        with Path(partial).open("rb+") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return digest


class _Kept:
    """The network loaded last, of what, and for which size if it is made for one."""

    identity: ClassVar[tuple[Any, ...]] = ()
    size: ClassVar[tuple[int | None, int | None] | None] = None
    network: ClassVar[nn.Module | None] = None


def _identity(model: InstalledModel) -> tuple[Any, ...]:
    """The card, and which file its weights are.

    Raises:
        InputError: ``E_WEIGHTS_MISSING``.
    """
    try:
        status = model.weights_path.stat()
    except OSError as error:
        raise _unreadable(model.weights_path, error) from error
    file = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return model.card_path.absolute(), model.card, file


def _load(model: InstalledModel, height: int | None, width: int | None) -> nn.Module:
    path, card = model.weights_path, model.card
    _check_hash(path, card.sha256)
    stored = _read_header(path)
    bands, classes = len(card.bands), len(card.classes)
    layout = network_layout(card.architecture, bands, classes, height, width)
    _check_tensors(stored, layout, path, model.id)
    network = build_network(card.architecture, bands, classes, height, width)
    _fill(network, path)
    return network.eval().requires_grad_(False)


def _check_hash(path: Path, wanted: str) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1024 * 1024):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    if digest.hexdigest() != wanted:
        raise InputError(
            "E_WEIGHTS_HASH",
            f"{path} is not the file its card describes (sha256 {digest.hexdigest()[:12]}..., the card says "
            f"{wanted[:12]}...). Fetch card and weights again, together.",
        )


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError("E_WEIGHTS_MISSING", f"The weights {path} cannot be read: {error.strerror or error}.")


def _read_header(path: Path) -> dict[str, _Entry]:
    """Names, types and shapes in a safetensors file: 8 bytes of length, then JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(HEADER_LIMIT, size - 8):
            message = f"{path} is not a safetensors file: its header is cut off or too long."
            raise InputError("E_WEIGHTS_FORMAT", message)
        content = file.read(length)
    try:
        header = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        return {name: msgspec.json.decode(entry, type=_Entry) for name, entry in header.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("E_WEIGHTS_FORMAT", f"{path} is not a safetensors file: {error}.") from error


def _check_tensors(
    stored: dict[str, _Entry], layout: dict[str, torch.Size], path: Path, model_id: str
) -> None:
    for name, shape in layout.items():
        entry = stored.get(name)
        if entry is None:
            if name.endswith(_COUNTER):
                continue
            raise InputError(
                "E_WEIGHTS_NAME",
                f"The weights of {model_id!r} do not fit its card: {path.name} has no tensor {name!r}.",
            )
        if tuple(entry.shape) != tuple(shape):
            raise InputError(
                "E_WEIGHTS_SHAPE",
                f"The weights of {model_id!r} do not fit its card: tensor {name!r} has the shape "
                f"{tuple(entry.shape)}, the network needs {tuple(shape)}.",
            )
        if entry.dtype not in _FLOATS and entry.dtype not in ("I64", "I32", "BOOL"):
            raise InputError("E_WEIGHTS_FORMAT", f"Tensor {name!r} of {path} has the type {entry.dtype}.")
    unknown = sorted(stored.keys() - layout.keys())
    if unknown:
        raise InputError(
            "E_WEIGHTS_NAME",
            f"The weights of {model_id!r} do not fit its card: the network has no tensor {unknown[0]!r}.",
        )


def _fill(network: nn.Module, path: Path) -> None:
    targets = network.state_dict()  # shares memory with the network
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name in file.keys():  # noqa: SIM118 (no mapping)
                value = file.get_tensor(name)
                if value.is_floating_point():
                    _check_finite(name, value)
                targets[name].copy_(value)
    except SafetensorError as error:
        raise InputError("E_WEIGHTS_FORMAT", f"{path} is not a safetensors file: {error}.") from error


def _check_finite(name: str, value: Tensor) -> None:
    if not torch.isfinite(value).all():
        raise InputError(
            "E_WEIGHTS_VALUE",
            f"Tensor {name!r} holds NaN or infinity as {str(value.dtype).removeprefix('torch.')}.",
        )
