"""Factors on units, put into the weights that read them: the network then needs no gates, and is the same.

W (z ∘ x) = (W diag z) x: a factor at the input of a reader is a factor on the reader's in-columns. So it is
wherever all that reads a unit are products and convolutions. A norm over units is no such reader, nor is what
has the same weights to make units and to read them: whether it is so is tried, once, on the network itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bayesprune.errors import PriorError
from bayesprune.gated.network import GatedNetwork
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.groups import WHOLE, Group, Slot

CLOSE = 1e-9
"""Of the outputs' size, in double precision."""
POWERS = {"exp_avg": -1, "exp_avg_sq": -2, "max_exp_avg_sq": -2, "momentum_buffer": -1}
"""What an optimiser keeps of gradients → how it goes with a factor on its parameter."""


@torch.no_grad()
def fold_(network: GraphNetwork, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply every reader's in-columns by the factors of the units that they read.

    Args:
        network: changed in place.
        factors: group → (size,), by original unit.

    Returns:
        Tensor name → what it was multiplied by, in a shape that broadcasts against it.
    """
    tensors, done = dict(network.named_parameters()), dict[str, Tensor]()
    for slot in network.slots:
        if slot.reads and slot.dim != WHOLE and slot.group in factors and slot.tensor in tensors:
            weight = tensors[slot.tensor]
            factor = _spread(slot, factors[slot.group], weight)
            weight.mul_(factor)
            before = done.get(slot.tensor)
            done[slot.tensor] = factor if before is None else before * factor
    return done


def _spread(slot: Slot, factors: Tensor, weight: Tensor) -> Tensor:
    ids = slot.unit_ids.to(factors.device)
    column = torch.where(ids >= 0, factors[ids.clamp_min(0)], 1.0).to(weight)
    shape = [1] * weight.ndim
    shape[slot.dim] = len(column)
    return column.reshape(shape)


@torch.no_grad()
def follow_(
    weights: Mapping[str, nn.Parameter],
    done: Mapping[str, Tensor],
    kept: Iterable[MutableMapping[Tensor, Any]],
) -> None:
    """Let what optimisers keep go with the weights: ∂L/∂(wz) = (∂L/∂w)/z.

    Of a weight whose optimiser keeps something that is not known to be a gradient's moment, all is forgotten.

    Args:
        weights: name → parameter.
        done: tensor name → what it was multiplied by.
        kept: of each optimiser, parameter → name → what is kept.
    """
    for name, factor in done.items():
        for states in kept:
            state = states.get(weights[name])
            if not state:
                continue
            whole = [k for k, v in state.items() if isinstance(v, Tensor) and v.numel() > 1]
            if not set(whole) <= set(POWERS):
                del states[weights[name]]
                continue
            for key in whole:
                state[key].mul_(factor.to(state[key]) ** POWERS[key])


def check_folds(gated: GatedNetwork, names: Iterable[str]) -> None:
    """Make sure that factors on these groups can be put into weights, by trying it on a copy.

    Args:
        gated: the model, before anything was removed.
        names: of the groups with continuous gates.

    Raises:
        PriorError: of some group they cannot; it is named.
    """
    names = list(names)
    by_name = {group.name: group for group in gated.groups}
    whole = [name for name in names if by_name[name].optional]
    if whole:
        raise PriorError(
            f"Group {whole[0]!r} is of whole sections, and a continuous gate on a section is no factor on "
            "the weights of one layer: give it Bernoulli gates, bp.priors.PerGroup({'layers': bp.priors."
            "BernoulliGates(…), '*': …}), or leave it out, exclude=['layers']."
        )
    if not names or _folds(gated.network, [by_name[name] for name in names]):
        return
    wrong = [name for name in names if not _folds(gated.network, [by_name[name]])] or names
    raise PriorError(
        f"Units of {', '.join(map(repr, wrong))} are read by what is no product with weights of its own (a "
        "norm over units, a weight that is shared): a factor that stays on them cannot be put into the small "
        "network's weights. Give these groups Bernoulli gates, with bp.priors.PerGroup, or list them in "
        "exclude=."
    )


def _folds(network: GraphNetwork, groups: list[Group]) -> bool:
    """Whether a network under factors computes what one does that has them in its weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        twin = copy_of(network).double().eval()
        device = next(twin.parameters()).device
        factors = {g.name: 0.5 + torch.rand(g.size, dtype=torch.double, device=device) for g in groups}
        x = twin.batch(2)
        torch.manual_seed(0)
        under = _numbers(twin(x, factors))
        fold_(twin, factors)
        torch.manual_seed(0)
        within = _numbers(twin(x))
    pairs = zip(under, within, strict=True)
    close = ((a - b).abs().max() <= CLOSE * (1 + a.abs().max()) for a, b in pairs)
    return all(bool(one) for one in close)


def _numbers(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
