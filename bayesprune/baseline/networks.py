"""What a pruned network is compared with: dense, small dense, its own shape from scratch, magnitude."""

from __future__ import annotations

from functools import partial

from bayesprune.baseline.loop import learnt
from bayesprune.baseline.plan import Limit, Plan, Rival
from bayesprune.baseline.widths import by_width, check_whole, cost_of, masks_within, narrow_, opened
from bayesprune.errors import SelectionError, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.selection import BayesAcceptance, Magnitude, RandomNodes, Subject
from bayesprune.selection.masks import Masks


def dense(gated: GatedModel, plan: Plan) -> Rival:
    """The whole network, learnt without gates from the weights that it has now.

    Args:
        gated: from ``gate``, before ``fit``; left alone.
        plan: of the fit.

    Raises:
        SettingsError: units were removed from the model.
        DivergedError: the loss is not finite at the end.
        DataError, LikelihoodError: as ``fit``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import bayesprune as bp
        >>> x, y = torch.randn(64, 4), torch.randint(3, (64,))
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> gated = bp.gate(network, x[:2], prior=bp.Budget(macs=0.4), likelihood=bp.Categorical(rows=64))
        >>> plan = bp.baseline.Plan((x, y), epochs=2, batch_size=16)
        >>> whole = bp.baseline.dense(gated, plan)
        >>> narrow = bp.baseline.small_dense(gated, plan, bp.baseline.Limit("macs", most=25))
        >>> (whole.parameters, whole.macs), (narrow.parameters, narrow.macs)
        ((67, 56), (27, 21))
    """
    check_whole(gated)
    return learnt(opened(gated), plan)


def small_dense(fresh: GatedModel, plan: Plan, limit: Limit) -> Rival:
    r"""The same layers, of widths cut to one share of each before anything is learnt.

    Which units stay is drawn at random: before learning they are all alike. What reads n of N units has its
    weights multiplied by :math:`\sqrt{N/n}`, so that what a layer says is as large as in the whole network.

    Args:
        fresh: the model anew, under another seed of its first weights; left alone.
        plan: of the fit.
        limit: what it may cost. The widest network is taken that does not cost more.

    Raises:
        SelectionError: even one unit in each group costs more.
        NothingToGateError: it has no units but its inputs.
        SettingsError, DivergedError, DataError, LikelihoodError: as ``dense``.
    """
    check_whole(fresh)
    model = by_width(fresh, plan)
    narrow_(model, masks_within(model, RandomNodes(), limit, plan.seed))
    return learnt(model, plan)


def magnitude(gated: GatedModel, plan: Plan, limit: Limit, *, cuts: int = 1, inputs: bool = False) -> Rival:
    """The whole network for half of the steps, cut by the norms of its units, and the rest of the steps.

    Args:
        gated: as for ``dense``; left alone.
        plan: of the fit.
        limit: what it may cost after the cut. Of each group the same share stays, and of all such networks
            the largest is taken that does not cost more.
        cuts: evenly over the first half of the steps; costs fall by one and the same factor in each.
        inputs: cut inputs too, by the norms of the weights that read them.

    Raises:
        SelectionError, NothingToGateError, SettingsError, DivergedError, DataError, LikelihoodError: as
            ``small_dense``.
    """
    check_whole(gated)
    if isinstance(cuts, bool) or not isinstance(cuts, int) or cuts < 1:
        raise SettingsError(f"magnitude(cuts={cuts!r}): a whole number of cuts, at least 1.")
    model = by_width(gated, plan, inputs)
    masks_within(model, Magnitude(), limit, plan.seed)  # complains now, not after half of the training
    whole = cost_of(model, limit.what)
    limits = [
        Limit(limit.what, max(limit.most, round(whole * (limit.most / whole) ** (number / cuts))))
        for number in range(1, cuts + 1)
    ]
    return learnt(
        model, plan, [partial(masks_within, model, Magnitude(), each, plan.seed) for each in limits]
    )


def accepted(
    gated: GatedModel,
    plan: Plan,
    rule: BayesAcceptance,
    *,
    proposals: int | None = None,
    inputs: bool = False,
) -> Rival:
    """The whole network, from which a Bayes factor lets units go in the first half of the steps.

    What a proposal takes out is decided with the weights as they are then; what is refused may be proposed
    again, at other weights. After Mathew & Rowe, arXiv 2308.02451 (abstract); see ``BayesAcceptance``.

    Args:
        gated: as for ``dense``; left alone.
        plan: of the fit.
        rule: what is proposed, and what evidence is asked for.
        proposals: evenly over the first half of the steps; by default one after every epoch of it.
        inputs: let inputs go too.

    Returns:
        Of what size the evidence says: there is no limit.

    Raises:
        SelectionError, NothingToGateError, SettingsError, DivergedError, DataError, LikelihoodError: as
            ``small_dense``.
    """
    check_whole(gated)
    if not isinstance(rule, BayesAcceptance):
        raise SettingsError(f"accepted(rule={rule!r}): a bp.selection.BayesAcceptance(rows, targets).")
    count = max(plan.epochs // 2, 1) if proposals is None else proposals
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise SettingsError(f"accepted(proposals={proposals!r}): a whole number, at least 1.")
    model = by_width(gated, plan, inputs)
    seeds = [plan.seed + number * rule.proposals for number in range(count)]
    return learnt(model, plan, [partial(_left, model, rule, seed) for seed in seeds])


def _left(model: GatedModel, rule: BayesAcceptance, seed: int) -> Masks:
    """What one round of proposals leaves of a model as it is now."""
    return rule.masks(Subject.of(model), seed)


def from_scratch(fresh: GatedModel, plan: Plan, masks: Masks) -> Rival:
    """The very shape that a pruned network has, its inputs too, learnt without gates from fresh weights.

    Args:
        fresh: the model anew, under another seed of its first weights; left alone.
        plan: of the fit.
        masks: group → (units,), bool, which the pruned network kept.

    Raises:
        SelectionError: masks of other groups.
        SettingsError, DivergedError, DataError, LikelihoodError: as ``dense``.
    """
    check_whole(fresh)
    wanted = {group.name: group.size for group in fresh.groups}
    given = {name: len(mask) for name, mask in masks.items()}
    if wanted != given:
        raise SelectionError(f"The masks are of {given}, and the network has groups {wanted}.")
    model = opened(fresh)
    narrow_(model, masks)
    return learnt(model, plan)
