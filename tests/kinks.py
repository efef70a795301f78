"""Where a derivative is a convention: at the bound of a clamp, which PyTorch changed between two versions."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOWER = {"clamp": ("min", 1), "clip": ("min", 1), "clamp_min": ("min", 1)}
UPPER = {"clamp": ("max", 2), "clip": ("max", 2), "clamp_max": ("max", 1)}


class OffKinks(TorchFunctionMode):
    """Inside, a clamp of something differentiable that lies exactly at a bound is an error.

    Its derivative there is one up to torch 2.13, and zero from 2.14 on.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        for bounds in (LOWER, UPPER):
            if name in bounds:
                word, place = bounds[name]
                bound = args[place] if len(args) > place else (kwargs or {}).get(word)
                self.check(args[0], bound, name)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def check(x: Tensor, bound: Any, name: str) -> None:
        if bound is not None and x.requires_grad and torch.is_grad_enabled():
            assert not bool((x.detach() == bound).any()), f"{name} of something that lies exactly at {bound}"
