"""torchvision without its compiled part, beside any build of PyTorch.

    pip install --no-deps torchvision==0.28.0     # beside torch 2.13; pillow and numpy are there already

The wheel of a CUDA build cannot load its operators beside a CPU build of PyTorch, and then fails at import:
it describes shapes for operators that nobody has defined. Their schemas are all that is missing, since no
classification network calls one. ``--no-deps`` keeps pip from replacing PyTorch by the build that the wheel
was made for.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
INSTALL = "pip install --no-deps torchvision==0.28.0   # for torch 2.13; the minor numbers go together"

_LIBRARIES: list[torch.library.Library] = []  # schemas live as long as the object that defined them


def torchvision_models() -> ModuleType:
    """``torchvision.models``, whether or not torchvision's compiled operators fit this PyTorch.

    Returns:
        The module.

    Raises:
        SystemExit: where torchvision is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise SystemExit(f"This needs torchvision, which is not installed. Remedy: {INSTALL}")
    try:
        import torchvision.models
    except RuntimeError:  # "operator torchvision::nms does not exist"
        _define_schemas()
        import torchvision.models
    return torchvision.models


def _define_schemas() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    _LIBRARIES.append(library)
    for schema in SCHEMAS:
        library.define(schema)
