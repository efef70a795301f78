"""gate(): a network, a prior and a likelihood become a Pyro model and guide over which units exist."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import LikelihoodError, SettingsError
from bayesprune.gated.checks import check_outputs, check_settings, checked_input, read_part_
from bayesprune.gated.held import check_network_held
from bayesprune.gated.links import Guide, guides_of
from bayesprune.gated.model import GatedModel
from bayesprune.gated.network import number_type
from bayesprune.likelihoods import Likelihood
from bayesprune.priors import NormalWeights
from bayesprune.priors.naming import by_name, check_tables
from bayesprune.priors.priors import weights_of
from bayesprune.priors.program import Prior
from bayesprune.priors.protocol import bound
from bayesprune.rows import Call, CallRows, Form, RowForm
from bayesprune.structure import Group
from bayesprune.structure.graph import GraphNetwork, provable_structure
from bayesprune.structure.graph.analysis.sections import Layers
from bayesprune.structure.naming import check_names, check_order

DEFAULT_INCLUSION = 0.9


def gate(
    network: nn.Module,
    example: Any,
    *,
    prior: Prior,
    likelihood: Likelihood,
    weights: NormalWeights | None = None,
    exclude: Iterable[str] = (),
    layers: Layers = "sections",
    inputs: bool | None = None,
    initial_inclusion: float | Mapping[str, float] = DEFAULT_INCLUSION,
    unit_noise: float | Mapping[str, float] = 0.0,
    guide: Guide = None,
) -> GatedModel:
    """Put a Bernoulli gate on every unit of a network that can be removed.

    The gate z_u multiplies unit u at the input of every layer that reads it, so z_u = 0 equals its removal
    exactly.

    Args:
        network: any network that PyTorch can trace; it is copied. What cannot be removed from it stays.
        example: (rows, ...), inputs that the network accepts: a tensor, which is its one argument; a tuple,
            its arguments by position; or a dict (any mapping, a tokenizer's ``BatchEncoding`` for one), its
            arguments by name. Inside of a tuple or dict may be more of them. All tensors have the rows first;
            what is no tensor (None, a boolean, a number, a string) is a constant of the call. Rows that it is
            fitted to must be like it: pairs (inputs, targets) with inputs of this form, or dicts of inputs by
            name and of targets under the name that the likelihood has, ``target="labels"``.
        prior: a Pyro program ``prior(group)`` that returns the distribution of that group's gates, and may
            sample hyper-sites first; an ``nn.Module`` may hold parameters of its own. One that has to see
            the whole network (``Budget``) is bound to it here.
        likelihood: how outputs explain targets; it knows the number of rows of the data set.
        weights: prior and guide of the weights; by default the prior's own ``weights``, else
            ``NormalWeights()``.
        exclude: names or globs of groups to leave whole, such as ``"input"`` or ``"conv*"``; ``"layers"`` for
            all residual sections.
        layers: residual networks have a group ``"layers"`` too, of whole sections that stand beside a
            shortcut: ``"sections"`` gives each a gate, ``"blocks"`` one to all sections of a module (of a
            transformer's block: attention and feed-forward), ``"none"`` gives them none.
        inputs: whether a network's inputs (group ``"input"``: features, channels, or pixels where a flatten
            reads them one by one), and the features that channels are flattened to (a group for each such
            flatten), are units too. None: where the network is a row of plain layers, for there they can be
            left out of a plain ``nn.Sequential``. Any other network would no longer come back as its own
            class without an input, and has none of these groups unless asked to.
        initial_inclusion: q(z = 1) to begin with, one for all groups, or by group name or glob; 0.9 for
            groups not named.
        unit_noise: standard deviation σ of noise while training: every row multiplies a unit by a factor from
            Uniform(1 ± √3 σ). One for all groups, or by group name or glob; groups not named have none.
        guide: ``bp.Autoregressive(lags=(1,))`` where the posterior is to hold correlation between the gates
            of a group; one for all groups, or by group name or glob. Else gates are independent under it.

    Returns:
        The gated model, in train mode.

    Raises:
        UnsupportedNetworkError: a module or operation without a removal rule; it is named. Weights of
            float16, ``torch.autocast`` in ``forward``, or outputs that are not of so many rows.
        DataError: an example that is none.
        NothingToGateError: no unit can be removed.
        PriorError: the prior does not give a distribution over a group's gates, or one of its tables names a
            group that there is not.
        LikelihoodError: the network's outputs do not fit the likelihood, or it has to be told which part of
            them it reads, ``output="logits"``.
        SettingsError: an initial inclusion or a noise out of range, a guide that is none, or one of these for
            a group that there is not.

    Example:
        >>> import bayesprune as bp
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> [(group.name, group.size) for group in gated.groups]
        [('input', 4), ('0', 8)]
    """
    if not isinstance(likelihood, Likelihood):
        raise LikelihoodError(
            f"likelihood={likelihood!r} is not a likelihood: "
            "pass an instance such as bp.Categorical(rows=60_000)."
        )
    names = check_settings(prior=prior, weights=weights, exclude=exclude, layers=layers, inputs=inputs)
    call = checked_input(network, example)
    check_network_held(network, call)
    weights = weights or weights_of(prior) or NormalWeights()
    found = GraphNetwork(provable_structure(network, call, names, layers, inputs))
    read_part_(found, likelihood)
    check_outputs(found, network, call)
    check_tables(prior, found.groups, names)
    weights.check_names([name for name, _ in found.named_parameters()])
    log_odds = _initial_log_odds(found.groups, initial_inclusion, names)
    log_odds = log_odds.to(torch.promote_types(number_type(found), torch.float32))
    noise = _deviations(found.groups, unit_noise, names)
    prior = bound(prior, found, log_odds, likelihood.rows)
    form = _form(found, call, likelihood)
    guides = guides_of(guide, found.groups, names)
    return GatedModel(found, prior, likelihood, weights, log_odds, noise, form, guides).train()


def _form(network: GraphNetwork, example: Call, likelihood: Likelihood) -> Form:
    """What rows must look like: of any size where the graph is free."""
    x = example.alone
    rows = tuple(map(_rows, example.tensors, network.call_form.sizes))
    inputs = rows[0] if isinstance(x, Tensor) else CallRows(network.call_form, rows)
    return Form.of(inputs, likelihood.target)


def _rows(x: Tensor, sizes: tuple[int | None, ...]) -> RowForm:
    return RowForm.of(x, (dim for dim, size in enumerate(sizes, start=1) if size is None))


def _initial_log_odds(
    groups: tuple[Group, ...], inclusion: float | Mapping[str, float], exclude: tuple[str, ...]
) -> Tensor:
    """(units of all groups,), log q(z=1)/q(z=0) to begin with."""
    probs = _by_group("initial_inclusion", groups, inclusion, DEFAULT_INCLUSION, exclude)
    for name, prob in probs.items():
        if not 0.0 < prob < 1.0:
            raise SettingsError(
                f"initial_inclusion of group {name!r} is {prob!r}: it must lie between 0 and 1."
            )
    starts = [math.log(prob / (1 - prob)) for prob in probs.values()]
    return torch.cat([torch.full((g.size,), start) for g, start in zip(groups, starts, strict=True)])


def _deviations(
    groups: tuple[Group, ...], noise: float | Mapping[str, float], exclude: tuple[str, ...]
) -> dict[str, float]:
    """Group → standard deviation of the noise on its units, for the groups that have any."""
    deviations = _by_group("unit_noise", groups, noise, 0.0, exclude)
    for name, deviation in deviations.items():
        if not 0.0 <= deviation < math.inf:
            raise SettingsError(f"unit_noise of group {name!r} is {deviation!r}: it must be 0 or more.")
    return {name: deviation for name, deviation in deviations.items() if deviation}


def _by_group(
    what: str,
    groups: tuple[Group, ...],
    setting: float | Mapping[str, float],
    default: float,
    exclude: tuple[str, ...],
) -> dict[str, float]:
    """Group → number, from one for all or a table by name or glob."""
    table = dict(setting) if isinstance(setting, Mapping) else {"*": setting}
    names = [group.name for group in groups]
    check_names(what, table, names, besides=exclude)
    check_order(what, list(table), names, SettingsError)
    table.setdefault("*", default)
    values = {group.name: by_name(table, group.name, what) for group in groups}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"{what} of group {name!r} is {value!r}: it must be a number.")
    return {name: float(value) for name, value in values.items()}
