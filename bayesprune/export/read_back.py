"""Whether what was written is the network: read back, and compared bit by bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bayesprune.errors import CheckpointError, UnsupportedNetworkError
from bayesprune.rows.call import Call
from bayesprune.rows.nested import taken_apart
from bayesprune.structure.altered import hint
from bayesprune.structure.graph.capture.bind import alike
from bayesprune.structure.graph.capture.experts import experts_routed
from bayesprune.structure.graph.capture.lent import shared_memory_copy
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.plain import place_of
from bayesprune.structure.running import evaluating, run_on, unmoved


def check_same_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], place: str) -> None:
    """A network that was read has every parameter and buffer that it should, and no others, bit by bit.

    Args:
        expected: name → tensor, as `held` gives them.
        found: the same, of what was read.
        place: where it was read, for messages.

    Raises:
        CheckpointError: a tensor is missing, is of another kind, or differs in one bit; it is named.
    """
    for name in dict.fromkeys((*expected, *found)):
        ours, theirs = expected.get(name), found.get(name)
        same = ours is not None and theirs is not None and equal_bits(ours, theirs)
        if not same or _kind(ours) != _kind(theirs):
            raise CheckpointError(
                f"{place}: tensor {name!r} is {_told(ours)}, and was read back as {_told(theirs)}, not equal "
                "bit by bit. Nothing was put in place. Disk or memory may be faulty: try another folder; "
                "where that fails too, please report the network."
            )


def held(network: nn.Module) -> dict[str, Tensor]:
    """Name → parameter or buffer; what has two names is there twice."""
    parameters = network.named_parameters(remove_duplicate=False)
    return dict(parameters) | dict(network.named_buffers(remove_duplicate=False))


def check_same_outputs(network: nn.Module, again: nn.Module, inputs: Call, place: str) -> None:
    """A network that was read computes in evaluation what another one does, bit by bit.

    Random numbers are drawn alike for both. How tensors lie in memory decides how products are rounded: where
    bits differ, the network is run once more over the tensors that were read. Of a network whose own outputs
    differ from one call to the next, no more can be asked than to be equal up to rounding.

    Args:
        network: that was written; modes, statistics and random numbers stay what they were.
        again: that was read; it is moved to the network's device.
        inputs: (rows, ...).
        place: where from, for messages.

    Raises:
        UnsupportedNetworkError: the network does not accept the inputs, or what was read computes something
            else.
    """
    device = place_of(network)[0]
    inputs = inputs.twice() if len(inputs) == 1 else inputs  # statistics need two rows
    inputs = inputs.to(device)
    expected = outputs_of(network, inputs)
    try:
        found = outputs_of(again.to(device), inputs)
    except UnsupportedNetworkError:  # the network itself does run on them
        found = []
    if same_bits(expected, found):
        return
    over_read = _over(network, held(again))
    expected = outputs_of(over_read, inputs)
    if same_bits(expected, found) or (
        alike(expected, found) and not same_bits(expected, outputs_of(over_read, inputs))
    ):
        return
    raise UnsupportedNetworkError(
        f"{place}: the {type(network).__name__} cannot be saved: what was written, read back, computes "
        "something else on the example. Nothing was put in place. Its forward must depend on nothing but its "
        f"inputs, parameters and buffers; keep the network's state_dict beside its class.{hint(network)}"
    )


def outputs_of(network: nn.Module, inputs: Call) -> list[Tensor]:
    """The tensors that a network returns in evaluation; modes, buffers and random numbers stay as they were.

    PyTorch's attention takes the operations that it takes with gradients, of which its graph is: without, it
    has a kernel that rounds otherwise. So do the experts of transformers in their several implementations.

    Args:
        network: any module.
        inputs: (rows, ...).

    Raises:
        UnsupportedNetworkError: it does not accept them.
    """
    with evaluating(network), unmoved(network), torch.random.fork_rng(devices=[]), masks_as_given():
        torch.default_generator.manual_seed(0)
        with experts_routed(network):
            returned = run_on(network, inputs.clone())
    return taken_apart(returned)[0]


def _over(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a network over tensors that have other places in memory, and the same bits."""
    twin = shared_memory_copy(network)
    for name, tensor in held(twin).items():
        tensor.data = tensors[name].data
    return twin


def same_bits(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two lists of tensors are the same, not a number and signs of zero included."""
    return len(first) == len(second) and all(map(equal_bits, first, second))


def equal_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits, wherever they lie.

    Example:
        >>> equal_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
        True
        >>> equal_bits(torch.tensor(0.0), torch.tensor(-0.0))
        False
    """
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(_bytes(first), _bytes(second))


def _bytes(tensor: Tensor) -> Tensor:
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8)


def _kind(tensor: Tensor | None) -> str:
    if not isinstance(tensor, nn.Parameter):
        return "buffer"
    return "parameter" if tensor.requires_grad else "frozen parameter"


def _told(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"a {_kind(tensor)} {tuple(tensor.shape)} of {tensor.dtype}"
