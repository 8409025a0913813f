"""Make torchvision importable beside a CPU build of torch.

timm and segmentation_models_pytorch import torchvision. PyPI's torchvision is compiled
for CUDA: beside a CPU-only torch its library does not load, its operators stay unknown,
and ``import torchvision`` ends in ``operator torchvision::nms does not exist``. The two
operators it asks for at import are declared here by schema only; no network of this
project calls them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_DECLARED_AT_IMPORT = ("nms", "qnms")
_declarations: list[torch.library.Library] = []  # an operator lives as long as its Library


def ensure_torchvision() -> ModuleType:
    """Import torchvision; call this before the first import of timm or smp in a process.

    A plain import where torchvision is whole.

    Returns:
        The module ``torchvision``.

    Raises:
        RuntimeError: torchvision does not import for another reason than the missing operators.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if torch.version.cuda is not None or "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left half done
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in _DECLARED_AT_IMPORT:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _declarations.append(library)
    return importlib.import_module("torchvision")
