"""Running a user's network: what it must be, on what, and without a trace of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bayesprune.errors import DataError, UnsupportedNetworkError
from bayesprune.rows.call import Call


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; every module's mode as it was after."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def unmoved(network: nn.Module) -> Iterator[None]:
    """Buffers after are what they were before: of statistics, and of what counts calls in evaluation too."""
    state = [
        (module, leaf, buffer, buffer.clone())
        for module in network.modules()
        for leaf, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, leaf, buffer, value in state:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
                module._buffers[leaf] = buffer


@contextmanager
def drawing_alike() -> Iterator[None]:
    """What is drawn inside is the same every time, on all devices; the generators are left as they were."""
    if torch.accelerator.is_available():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
        return
    with torch.random.fork_rng(devices=[]):  # manual_seed asks every device that there could be, with a stack
        torch.default_generator.manual_seed(0)
        yield


class DrawingAnyOrder(TorchDispatchMode):
    """Inside, what an operation draws depends on it alone, and not on what was drawn before it.

    A class draws for sections that are gone, and drops out zeros; its graph does not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else it is imported

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, from one state of the generators where it draws."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            seed = (
                torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
            )
            seed(0)
        return func(*args, **(kwargs or {}))


def run_as_called(network: nn.Module, inputs: Call) -> None:
    """Run a network as anybody runs it, in both modes: layers of PyTorch look into their parts on some paths.

    Args:
        network: what it raises is raised; modes, buffers and random numbers are afterwards what they were.
        inputs: (rows, ...).
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        with unmoved(network), torch.no_grad(), torch.random.fork_rng():
            for training in (True, False):
                inputs.clone().on(network.train(training))
    finally:
        for module, training in modes:
            module.training = training


def check_plain(network: Any, caller: str) -> None:
    """A network must be a module that runs.

    Args:
        network: what the user gave.
        caller: whom it was given to.

    Raises:
        UnsupportedNetworkError: it is something else, a gated model for one, or TorchScript.
    """
    kind = type(network).__name__
    if not isinstance(network, nn.Module):
        of_fit = " Of a fit's result that is bp.prune(result)." if hasattr(network, "gated") else ""
        raise UnsupportedNetworkError(
            f"The network is a {kind}: {caller} takes a torch.nn.Module with its parameters.{of_fit}"
        )
    if isinstance(network, torch.jit.ScriptModule):
        raise UnsupportedNetworkError(
            f"The network is TorchScript ({kind}), whose code cannot be traced: hand over the module that it "
            "was made from."
        )
    if getattr(network, "is_gated", False):
        raise UnsupportedNetworkError(
            f"The network is a {kind}, whose gates are part of it: {caller} takes a network without. Of a "
            "gated model that is bp.prune(gated)."
        )
    if getattr(network.forward, "__func__", None) is nn.Module.forward:
        raise UnsupportedNetworkError(
            f"The network is a {kind}, which has no forward: {caller} takes a network that runs."
        )


def run_on(network: nn.Module, inputs: Call) -> Any:
    """What a network returns for an example.

    Args:
        network: any module.
        inputs: (rows, ...).

    Raises:
        UnsupportedNetworkError: it does not run on them.
    """
    try:
        return inputs.on(network)
    except DataError as problem:  # a graph's, which names what is wrong
        raise UnsupportedNetworkError(str(problem)) from None
    except (RuntimeError, TypeError, ValueError, IndexError) as problem:
        reason = str(problem).partition("\n")[0].rstrip(".")
        raise UnsupportedNetworkError(
            f"The {type(network).__name__} does not accept the example ({inputs.told()}): {reason}. Give a "
            "batch like those that it is used on, such as x[:2]; several inputs as a tuple, or as a dict."
        ) from problem
