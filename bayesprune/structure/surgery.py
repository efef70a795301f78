"""Surgery: remove rows and columns from a network, its optimiser, and whatever has a parameter's shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bayesprune.structure.altered import check_present
from bayesprune.structure.chain import Chain
from bayesprune.structure.groups import VALUES, Keep, close_over, keep_map, relabel
from bayesprune.structure.layers import Select, resize_


def cut_(
    chain: Chain,
    alive: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer | None = None,
    companions: Mapping[str, nn.Parameter] | None = None,
) -> dict[str, Tensor]:
    """Remove from a chain all units that are not alive, in place; parameter objects keep their identity.

    With every removed unit's gate at zero the outputs stay what they were, up to rounding.

    Args:
        chain: the network, changed in place.
        alive: group → (group.size,) bool by original unit id.
        optimiser: its state tensors of a parameter's shape are cut with the parameter.
        companions: tensor name → another parameter of that tensor's shape (a posterior scale), cut alike.

    Returns:
        group → (group.size,) bool, ``alive`` after the units that nobody reads any more have died too.

    Raises:
        UnsupportedNetworkError: a layer has lost a tensor that it had when it was gated.
    """
    check_present(chain, chain.cut_names())
    alive = close_over(chain.slots, dict(alive))
    keep = keep_map(chain.slots, alive)
    tensors: dict[str, Tensor] = {**dict(chain.named_parameters()), **dict(chain.named_buffers())}
    for name in dict.fromkeys(name for name, _ in keep):
        targets = [tensors[name]]
        if companions and name in companions:
            targets.append(companions[name])
        for target in targets:
            _cut_tensor_(target, name, keep, optimiser)
    _renumber_(chain, keep)
    for layer in chain.children():
        resize_(layer)
    chain.slots = relabel(chain.slots, keep)
    chain.columns.clear()
    return alive


def _cut_tensor_(target: Tensor, name: str, keep: Keep, optimiser: torch.optim.Optimizer | None) -> None:
    shape = target.shape
    state = optimiser.state.get(target, {}) if optimiser is not None else {}
    attached = {key: value for key, value in state.items() if torch.is_tensor(value) and value.shape == shape}
    for dim in (d for n, d in keep if n == name and d != VALUES):
        kept = keep[name, dim].nonzero().squeeze(1).to(target.device)
        target.data = target.data.index_select(dim, kept)
        attached = {key: value.index_select(dim, kept) for key, value in attached.items()}
    if attached:
        state.update(attached)
    target.grad = None


def _renumber_(chain: Chain, keep: Keep) -> None:
    """Positions that a ``Select`` reads move down by what was removed in front of them."""
    for name, layer in chain.named_children():
        if isinstance(layer, Select) and (f"{name}.index", VALUES) in keep:
            stays = keep[f"{name}.index", VALUES].to(layer.index.device)
            layer.index = (torch.cumsum(stays, 0) - 1)[layer.index]
            layer.width = int(stays.sum())
