"""In which precision a network can be learnt: numbers that would stand still, or overflow, are refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bayesprune.errors import SettingsError, UnsupportedNetworkError
from bayesprune.rows.call import Call
from bayesprune.structure.running import evaluating


def refuse_autocast(caller: str, device: str) -> None:
    """Complain where ``torch.autocast`` is on around a training.

    Until its outermost block ends, autocast keeps the casts of weights that it made, whatever happens to the
    weights: a training inside of it runs on those of its first step for ever.

    Args:
        caller: whose work it is.
        device: type of the device.

    Raises:
        SettingsError: it is on.
    """
    if torch.is_autocast_enabled(device):
        raise SettingsError(
            f"{caller} runs inside of torch.autocast({device!r}), which goes on using the weights of the "
            "first step, since it keeps their casts until its block ends: nothing would be learnt. Call it "
            "outside of the block, bp.fit(…, autocast=torch.bfloat16) has one for every step; or give a "
            "bfloat16 network, network.bfloat16(), and rows of that type."
        )


def refuse_no_grad(caller: str) -> None:
    """Complain where gradients are off around a training.

    Args:
        caller: whose work it is.

    Raises:
        SettingsError: ``torch.no_grad`` or ``torch.inference_mode`` is on.
    """
    if not torch.is_grad_enabled():
        mode = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
        raise SettingsError(
            f"{caller} runs inside of torch.{mode}(), where there are no gradients to learn from: call it "
            "outside of that block or decorated function."
        )


def check_precision(network: nn.Module, example: Call) -> None:
    """A network's numbers must be those of a type that learns, and no part of it under autocast.

    Args:
        network: the user's.
        example: (rows, ...), inputs.

    Raises:
        UnsupportedNetworkError: weights of float16, complex or no memory; or autocast in ``forward``.
    """
    for name, parameter in network.named_parameters():
        if parameter.dtype == torch.float16:
            raise UnsupportedNetworkError(
                f"Parameter {name!r} has type torch.float16, in which gradients vanish and overflow: give "
                "network.float() or network.bfloat16(), and .half() what bp.prune returns."
            )
        if parameter.is_complex():
            raise UnsupportedNetworkError(
                f"Parameter {name!r} has type {parameter.dtype}, and posteriors are of real numbers: give "
                "real and imaginary parts as channels (torch.view_as_real)."
            )
        if parameter.device.type == "meta":
            raise UnsupportedNetworkError(
                f"Parameter {name!r} is on device 'meta', which holds no numbers: load the weights first."
            )
    if _autocasts(network, example):
        raise UnsupportedNetworkError(
            f"The forward of {type(network).__name__} switches torch.autocast on: its casts of weights "
            "outlive the steps of a training. Take it out of forward; for half the memory give "
            "network.bfloat16()."
        )


class _Watch(TorchFunctionMode):
    """Notes whether a function is called while autocast is on."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or torch.is_autocast_enabled(self.device)
        return func(*args, **(kwargs or {}))


def _autocasts(network: nn.Module, example: Call) -> bool:
    with evaluating(network), torch.random.fork_rng(devices=[]), _Watch(example.device.type) as watch:
        try:
            example[:2].clone().on(network)
        except Exception:  # told with its place when the network is traced
            return False
    return bool(watch.seen)
