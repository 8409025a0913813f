"""Networks by name: an encoder of timm or smp under a decoder of smp.

Weights are never downloaded here: a network is made with random weights and filled by
:mod:`rest_backend.models.weights`. Before any memory is taken, it is made once on the meta
device, which knows shapes only; a pair that does not fit together fails there.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rest_backend.errors import InputError
from rest_backend.models.card import Architecture
from rest_backend.models.torchvision_shim import ensure_torchvision

ensure_torchvision()

import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402

DECODERS = (
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet",
    "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt",
)  # fmt: skip
MIX_TRANSFORMERS = tuple(f"mit_b{size}" for size in range(6))  # smp's own; timm has none
PARAMETER_LIMIT = 4_000_000_000

_TIMM = "tu-"
_STRIDE = 32  # of the coarsest features of every encoder below a pyramid decoder
_SET_HERE = frozenset(
    {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "img_size"}
)
# What timm and smp raise when a name, a parameter or a size does not suit them.
_REFUSALS = (
    TypeError, ValueError, RuntimeError, AssertionError,
    KeyError, IndexError, AttributeError, ZeroDivisionError,
)  # fmt: skip


def build_network(
    architecture: Architecture,
    bands: int,
    classes: int,
    height: int | None = None,
    width: int | None = None,
) -> nn.Module:
    """Make a network with random weights.

    Args:
        architecture: Encoder, decoder and parameters by name.
        bands: Input bands.
        classes: Output classes.
        height: Rows of the padded scene in pixels, a multiple of :func:`required_multiple`. Encoders
            whose tables depend on the image size (Swin, ViT ...) are made for this size; the others do
            not look at it. Without it they keep the size they were published for.
        width: Columns of the padded scene; given together with ``height``.

    Returns:
        A module from (batch, bands, height, width) float32 to logits (batch, classes, height, width).

    Raises:
        InputError: ``E_ENCODER_UNKNOWN``, ``E_DECODER_UNKNOWN``, or ``E_ARCHITECTURE``: the pair or its
            parameters do not work; the sentence names decoders that do.
    """
    make = _maker(architecture, bands, classes, height, width)
    _check_on_meta(architecture, make, bands, height, width)
    with _quiet():
        return make(architecture.decoder)


def network_layout(
    architecture: Architecture,
    bands: int,
    classes: int,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, torch.Size]:
    """Names and shapes of a network's tensors, without taking memory for them.

    Args:
        architecture: As for :func:`build_network`, like the other arguments.
        bands: Input bands.
        classes: Output classes.
        height: Rows of the padded scene, or None.
        width: Columns of the padded scene, or None.

    Returns:
        Name and shape of everything in the network's state dict.

    Raises:
        InputError: As :func:`build_network`.
    """
    make = _maker(architecture, bands, classes, height, width)
    network = _check_on_meta(architecture, make, bands, height, width)
    return {name: value.shape for name, value in network.state_dict().items()}


def required_multiple(architecture: Architecture) -> int:
    """Pixels by which height and width of the padded scene must divide.

    Args:
        architecture: Encoder, decoder and parameters by name.

    Returns:
        32; twice the patch size for DPT over a vision transformer, which halves the patch grid once.

    Raises:
        InputError: ``E_ENCODER_UNKNOWN`` or ``E_DECODER_UNKNOWN``.
    """
    _check_names(architecture)
    if architecture.decoder != "dpt" or not architecture.encoder.startswith(_TIMM):
        return _STRIDE
    encoder = _timm_on_meta(architecture.encoder.removeprefix(_TIMM))
    reductions = {int(stage["reduction"]) for stage in getattr(encoder, "feature_info", [])}
    return 2 * reductions.pop() if len(reductions) == 1 else _STRIDE


def minimum_size(architecture: Architecture) -> int:
    """Fewest rows and columns of the padded scene, in pixels.

    Args:
        architecture: Encoder, decoder and parameters by name.

    Returns:
        :func:`required_multiple`, except for PAN: it halves the features at 1/16 three times more.

    Raises:
        InputError: As :func:`required_multiple`.
    """
    multiple = required_multiple(architecture)
    return 128 if architecture.decoder == "pan" else multiple


def depends_on_size(architecture: Architecture) -> bool:
    """Whether :func:`build_network` makes another network for another size of the padded scene.

    Args:
        architecture: Encoder, decoder and parameters by name.

    Raises:
        InputError: As :func:`required_multiple`.
    """
    _check_names(architecture)
    if not architecture.encoder.startswith(_TIMM):
        return False
    encoder = type(_timm_on_meta(architecture.encoder.removeprefix(_TIMM)))
    return "img_size" in inspect.signature(encoder.__init__).parameters


def _check_names(architecture: Architecture) -> None:
    encoder, decoder = architecture.encoder, architecture.decoder
    if encoder.startswith(_TIMM):
        known = timm.is_model(encoder.removeprefix(_TIMM))
    else:
        known = encoder in MIX_TRANSFORMERS
    if not known:
        names = [_TIMM + name for name in timm.list_models()] + list(MIX_TRANSFORMERS)
        wanted = encoder if encoder.startswith((_TIMM, "mit")) else _TIMM + encoder
        close = difflib.get_close_matches(wanted, names, n=4, cutoff=0.5)
        hint = f" Similar ones: {', '.join(close)}." if close else ""
        raise InputError(
            "E_ENCODER_UNKNOWN",
            f"There is no encoder {encoder!r}. Encoders are tu-NAME for a network of timm, or mit_b0 to "
            f"mit_b5.{hint}",
        )
    if decoder not in DECODERS:
        raise InputError(
            "E_DECODER_UNKNOWN", f"There is no decoder {decoder!r}. Decoders are {', '.join(DECODERS)}."
        )
    reserved = sorted(_SET_HERE & architecture.parameters.keys())
    if reserved:
        raise InputError(
            "E_ARCHITECTURE",
            f"The parameter {reserved[0]!r} follows from the rest of the model and cannot be set.",
        )


Maker = Callable[[str], nn.Module]


def _maker(
    architecture: Architecture, bands: int, classes: int, height: int | None, width: int | None
) -> Maker:
    """A function from a decoder's name to the network; parameters are for the named decoder only."""
    _check_names(architecture)
    if (height is None) != (width is None):
        raise ValueError("height and width go together")
    size: dict[str, Any] = {}
    if height is not None and depends_on_size(architecture):
        size = {"img_size": (height, width)}

    def make(decoder: str) -> nn.Module:
        own = architecture.parameters if decoder == architecture.decoder else {}
        network: nn.Module = smp.create_model(
            decoder,
            architecture.encoder,
            encoder_weights=None,
            in_channels=bands,
            classes=classes,
            **own,
            **size,
        )
        return network

    return make


def _check_on_meta(
    architecture: Architecture, make: Maker, bands: int, height: int | None, width: int | None
) -> nn.Module:
    """The network on the meta device, after a forward there.

    Raises:
        InputError: ``E_ARCHITECTURE``.
    """
    try:
        network = _try_on_meta(architecture, make, bands, height, width)
    except _REFUSALS as error:
        working = _working_decoders(architecture, make, bands, height, width)
        hint = f"Decoders that work with it: {', '.join(working)}." if working else "No decoder does."
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(
            "E_ARCHITECTURE",
            f"The decoder {architecture.decoder!r}{_with(architecture)} does not work with the encoder "
            f"{architecture.encoder!r} ({reason}). {hint}",
        ) from error
    parameters = sum(value.numel() for value in network.state_dict().values())
    if parameters > PARAMETER_LIMIT:
        raise InputError(
            "E_ARCHITECTURE",
            f"The network {architecture.encoder}+{architecture.decoder}{_with(architecture)} would have "
            f"{parameters:,} parameters; up to {PARAMETER_LIMIT:,} are taken.",
        )
    return network


def _try_on_meta(
    architecture: Architecture, make: Maker, bands: int, height: int | None, width: int | None
) -> nn.Module:
    with _quiet(), torch.device("meta"), _LinspaceOnCpu():
        network = make(architecture.decoder).eval()
    if height is None or width is None:
        height, width = _probe_size(architecture)
    with _quiet(), torch.no_grad():
        network(torch.zeros(1, bands, height, width, device="meta"))
    return network


def _working_decoders(
    architecture: Architecture, make: Maker, bands: int, height: int | None, width: int | None
) -> list[str]:
    working = []
    for decoder in DECODERS:
        if decoder == architecture.decoder and not architecture.parameters:
            continue
        other = Architecture(encoder=architecture.encoder, decoder=decoder)
        try:
            # PAN and DPT may want other sizes than the scene was padded to.
            sizes = (height, width) if decoder not in ("pan", "dpt") else (None, None)
            _try_on_meta(other, _maker(other, bands, 2, *sizes), bands, *sizes)
        except _REFUSALS:
            continue
        working.append(decoder)
    return working


def _probe_size(architecture: Architecture) -> tuple[int, int]:
    """A size the network must accept: the one its encoder was published for, or a small one."""
    smallest, multiple = minimum_size(architecture), required_multiple(architecture)
    if architecture.encoder.startswith(_TIMM):
        encoder = _timm_on_meta(architecture.encoder.removeprefix(_TIMM))
        if "img_size" in inspect.signature(type(encoder).__init__).parameters:
            published = tuple(encoder.pretrained_cfg["input_size"][-2:])
            if all(length % multiple == 0 for length in published):
                return published
    length = -(-smallest // multiple) * multiple
    return length, length + multiple


def _timm_on_meta(name: str) -> Any:
    with _quiet(), torch.device("meta"), _LinspaceOnCpu():
        return timm.create_model(name, pretrained=False)


def _with(architecture: Architecture) -> str:
    if not architecture.parameters:
        return ""
    return " with " + ", ".join(f"{name}={value}" for name, value in architecture.parameters.items())


class _LinspaceOnCpu(TorchFunctionMode):
    """Drop-path rates are read out of a ``linspace`` one by one, which the meta device cannot do."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.linspace:
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hints of the libraries to their programmers are nothing for a user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
