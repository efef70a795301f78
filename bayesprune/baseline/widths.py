"""Models without gates, and cuts that leave the same share of every width."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from bayesprune.baseline.plan import Cost, Limit, Plan
from bayesprune.errors import SelectionError, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.build import gate
from bayesprune.priors import BernoulliGates, Flattening, NormalWeights
from bayesprune.selection import Subject
from bayesprune.selection.family import largest
from bayesprune.selection.masks import Masks
from bayesprune.selection.rule import Scored
from bayesprune.structure.copying import copy_of
from bayesprune.structure.groups import WHOLE
from bayesprune.svi.batches import Batches
from bayesprune.svi.checks import check_model


def check_whole(gated: GatedModel) -> None:
    """A comparison begins where the fit began.

    Raises:
        SettingsError: it is no gated model, or units were removed from it.
    """
    check_model(gated)
    if not bool(gated.alive.all()):
        raise SettingsError(
            f"{int((~gated.alive).sum())} units were removed from this model: compare with what gate() "
            "returned, before fit()."
        )


def opened(gated: GatedModel) -> GatedModel:
    """A copy whose gates nobody asks, and whose weights are points."""
    model = copy_of(gated)
    model.weights, model.unit_noise = _points(gated.weights), {}
    model.log_scales = nn.ParameterDict()
    return model


def _points(weights: NormalWeights) -> NormalWeights:
    return replace(weights, posterior="delta", masked=False)


def by_width(gated: GatedModel, plan: Plan, inputs: bool = False) -> GatedModel:
    """The same network with its widths alone as groups: sections stay whole, and inputs unless asked for."""
    batches = Batches(plan.train, plan.batch_size, torch.device("cpu"), plan.seed, form=gated.form)
    x, _ = next(batches.epoch(0))
    prior = BernoulliGates(Flattening(price=1.0))  # never asked
    weights, likelihood = _points(gated.weights), copy_of(gated.likelihood)
    network = gated.network.plain()
    return gate(
        network, x[:1], prior=prior, likelihood=likelihood, weights=weights, layers="none", inputs=inputs
    )


def masks_within(model: GatedModel, rule: Scored, limit: Limit, seed: int) -> Masks:
    """The largest network of a rule's family that is within a limit; of each group the same share."""
    subject = Subject.of(model)
    family = rule.family(subject, "layer", seed)
    size = subject.macs if limit.what == "macs" else subject.parameters
    masks = largest(family, size, limit.most)
    if masks is None:
        raise SelectionError(
            f"Widths cannot be cut evenly to {limit.most:,} {_name(limit.what)}: one unit in every group "
            f"still makes {size(family.at(0)):,}, since inputs and whole sections stay. Compare with a "
            "pruned network that is larger."
        )
    return subject.closed(masks)


def cost_of(model: GatedModel, what: Cost) -> int:
    """What a model's network costs as it is."""
    return model.network.macs() if what == "macs" else model.network.parameter_count()


def _name(what: Cost) -> str:
    return "MACs" if what == "macs" else what


def cut_(model: GatedModel, masks: Masks, optimiser: torch.optim.Optimizer | None = None) -> None:
    """Remove what masks leave out, from the model and from what an optimiser keeps."""
    alive = torch.cat([masks[group.name] for group in model.groups])
    model.remove_(~alive.to(model.log_odds.device), optimiser)


def narrow_(model: GatedModel, masks: Masks) -> None:
    """Cut before anything is learnt: what is left says as much as the whole, at the same variances."""
    before = {name: parameter.shape for name, parameter in model.network.named_parameters()}
    weights = model.network.weight_names()
    read = {(slot.tensor, slot.dim) for slot in model.network.slots if slot.reads and slot.dim != WHOLE}
    cut_(model, masks)
    for name, parameter in model.network.named_parameters():
        for dim, size in enumerate(parameter.shape):
            if name in weights and (name, dim) in read:
                parameter.data.mul_(math.sqrt(before[name][dim] / size))
