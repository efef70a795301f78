"""A budget instead of prices: what the network may cost in the end, as shares, milliseconds or megabytes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.priors.checks import positive
from bayesprune.priors.cost_gates import KINDS, CostGates
from bayesprune.priors.measured import MEASURED, Measured
from bayesprune.priors.reachable import limit_memory_
from bayesprune.structure import Costed, ExpectedCost, minimal_masks
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.groups import Group
from bayesprune.structure.kinds import Kind, kinds, least_sizes
from bayesprune.structure.naming import check_names
from bayesprune.structure.timing import Timer

FIRST_NATS_PER_ROW = 0.01
"""What the whole budget costs in the first gate step, for each training row: next to nothing."""


@dataclass(frozen=True)
class Budget:
    r"""Gates whose prices are found during the fit, so that the network ends at its budget.

    .. math:: \min_{q} \; -\mathrm{ELBO}(q) \quad \text{such that} \quad
              \mathbb{E}_\theta[\mathrm{cost}_k] \le b_k \cdot \mathrm{dense\ cost}_k

    With λ_k the multiplier of the constraint in nats per share of cost, unit u has the price
    Σ_k λ_k ∂E[cost_k]/∂θ_u / dense cost_k, recomputed as the network shrinks; ``fit`` finds λ by dual ascent,
    while its aim sinks from the cost at the start to the budget. The network stays above its budget until its
    gates are decided; then units go, the least evidence for its cost first, until it is met: below it, and
    within 2 % of it where the sizes of the units allow that (a ``BudgetWarning`` says where they do not).

    **Sizes.** By itself every group ends at the size that its evidence gives it. Two settings hold them to
    sizes that other programs, and the hardware, take:

    * ``multiple_of=m``: rows and columns of layers come in multiples of m. Of a unit that has several of them
      (a head of width 64, say) fewer units make a multiple. A group that is no multiple itself may stay
      whole, and one of fewer than m does. Sections (the group ``"layers"``) have no width.
    * ``uniform=True``: groups of the same role in repeated layers, ``encoder_layer_*_intermediate_dense``,
      end with the same number of units: they are one *kind*. Their names are equal but for the whole numbers
      in them (that of the layer itself counts: ``0`` and ``2`` of a row of layers are two roles), and so are
      their sizes. ``uniform=["*_wi"]`` makes all groups that a pattern names one kind beyond that, as for a
      configuration that has one number for encoder and decoder; several patterns in a tuple are one kind
      together. Groups of several sizes keep the same *share* then: of a BERT of transformers,
      ``uniform=[("*_attention_*", "bert_pooler_dense")]`` lets the stream of 768 channels, and the pooler,
      lose 64 with each of the 12 heads of every layer, for its configuration writes the width of a head as
      one by the other.

    The number of units of a kind is decided by summed evidence: of all choices that meet the budget the one
    with the most, where every group keeps its units with the most, and evidence against a unit counts as
    none; of equals the one that costs more. Up to a thousand choices are all compared; beyond, units go in
    steps, the least evidence for its cost first, and steps are exchanged as long as that gains. Sections are
    decided first, as without these settings. What cannot be met even by the smallest sizes that are allowed
    is refused by ``gate``. Such steps are coarse: a network may end further below its budget than 2 %, which
    the ``BudgetWarning`` says.

    Sizes are held at *every* removal, not only at the last one: dead units of a kind go when, and as far as,
    each of its groups has them to give. So every checkpoint already is a network of such sizes, and a group
    whose units died early cannot force the others of its kind down to its size: what is removed never comes
    back, and the last decision still has the choice. What that costs is time: units that are closed and
    wait are computed.

    **Time and memory.** Two limits are absolute, and measured, for a pass of inference over ``batch`` rows:

    * ``latency_ms=t``: milliseconds of a pass in eval mode without gradients, on the device where ``fit``
      runs, with as many processor threads as PyTorch has when ``gate`` is called. A time is the shortest of
      10 to 100 passes: what else runs there can only make one longer. When the fit begins the operations of
      the dense network are timed one by one. From that table, put to scale by the times of the dense network,
      of the smallest one and of a few in between, prices follow as from multiply-accumulates. When gates are
      decided the network itself is cut and timed, and units go or stay until it is met.
    * ``memory_mb=m``: megabytes (10⁶ bytes) of

      .. math:: \sum_w \mathrm{bytes}(w) + \max_t \sum_{a \in H_t} \mathrm{bytes}(a),

      over all parameters and buffers w and all operations t of the pass: H_t is what is held in memory when t
      ends, the batch itself and all results that are still needed, those that a ``forward`` holds on to
      included; views take none. It is counted while the network runs, exactly and alike on every machine. The
      workspaces of single operations, and what an allocator keeps in reserve, are not in it.

    A network ends below both, and within 5 % of the one that is harder to meet where there are such sizes (a
    ``BudgetWarning`` says where there are none). A clock is not exact: where one thread computes on a CPU it
    is that thread's own, which stands still while other programs run, and what they take of caches and of the
    memory's pace remains. What was measured is part of every checkpoint, so that a training that goes on
    decides by the same table.

    Complexity-aware prices: Guenter & Sideris, arXiv 2411.09127 (abstract). The Lagrangian of
    a budget, its closed-form slopes and the dual ascent are derived here.

    Args:
        macs: share of the dense multiply-accumulates to keep, in (0, 1].
        params: share of the dense parameters to keep, in (0, 1]. Of all limits give one or several: then all
            hold, and the one that is hardest to meet decides.
        uniform: whether groups of a kind end equal; or names and globs of groups, or tuples of them, each of
            which makes what it stands for one kind.
        multiple_of: what sizes are multiples of, at least 1.
        latency_ms: milliseconds of a pass, > 0.
        memory_mb: megabytes of a pass, > 0.
        batch: rows of that pass, at least 1; with ``latency_ms`` and ``memory_mb``, and only with them.
        timer: how time is measured: (network, its input) → milliseconds of a pass, of an operation too; by
            default the shortest of many.

    Raises:
        PriorError: no limit, a share that is no number in (0, 1]; a ``uniform`` or ``multiple_of`` that is
            none; milliseconds or megabytes that are no positive number, or without the rows of a pass; used
            without ``gate()``; or, in ``gate()``, a share below the least that one unit in each
            group, or the least size allowed, needs; a pattern for no group, for one that another pattern
            names too, or for groups that have no share in common but all; megabytes below
            those of the smallest network. Milliseconds below those of the smallest network are refused when
            ``fit`` has measured it.

    Warns:
        BudgetWarning: the dense network takes no more megabytes than are allowed, so that this limit asks for
            nothing; ``fit`` says so of milliseconds.

    Example:
        >>> import torch
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> gated = bp.gate(
        ...     network, torch.zeros(1, 4), prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=100)
        ... )
        >>> gated.gate_prior(gated.groups[1]).event_shape
        torch.Size([8])
    """

    macs: float | None = None
    params: float | None = None
    uniform: bool | Sequence[str | Sequence[str]] = False
    multiple_of: int = 1
    latency_ms: float | None = None
    memory_mb: float | None = None
    batch: int | None = None
    timer: Timer | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind) is not None}
        wrong = [f"{kind}={share!r}" for kind, share in given.items() if not _is_share(share)]
        if wrong or not (given or self._measured()):
            raise PriorError(
                f"A Budget is a share of the dense network's cost, above 0 and at most 1, and got "
                f"{', '.join(wrong) or 'none'}: write for example Budget(macs=0.1), Budget(params=0.05), or "
                "Budget(latency_ms=2.0, batch=64)."
            )
        self._check_measured()
        if not isinstance(self.uniform, bool):
            object.__setattr__(self, "uniform", _patterns(self.uniform))
        if type(self.multiple_of) is not int or self.multiple_of < 1:
            raise PriorError(
                f"multiple_of={self.multiple_of!r} must be a whole number, at least 1: write for example "
                "Budget(macs=0.3, multiple_of=8)."
            )

    def __call__(self, group: Group) -> Any:
        """Complain: a budget speaks of a whole network, and only ``gate()`` can show it one."""
        raise PriorError(
            f"{self!r} was asked for the gates of group {group.name!r} alone, and has to see the whole "
            "network: pass it as it is, bp.gate(network, example, prior=bp.Budget(...), likelihood=...)."
        )

    def _measured(self) -> dict[str, float]:
        """What is measured and has a limit, in its unit."""
        return {kind: getattr(self, kind) for kind in MEASURED if getattr(self, kind) is not None}

    def _check_measured(self) -> None:
        """Refuse limits that are no positive numbers, and a batch that is none, lacks, or is for nothing."""
        given = self._measured()
        wrong = [f"{kind}={value!r}" for kind, value in given.items() if not positive(value)]
        if wrong:
            raise PriorError(
                f"{', '.join(wrong)}: milliseconds and megabytes must be positive numbers. Write for example "
                "Budget(latency_ms=2.0, batch=64), or Budget(memory_mb=20, batch=64)."
            )
        if given and self.batch is None:
            raise PriorError(
                f"{', '.join(given)} is for a pass over a batch, and how many rows that has is missing: "
                "write for example batch=64, or batch=1 for one row at a time."
            )
        if self.batch is not None and not given:
            raise PriorError(
                f"batch={self.batch!r} says for how many rows time and memory have limits, and there is "
                "none: give latency_ms= or memory_mb=, or leave it out."
            )
        if self.batch is not None and (type(self.batch) is not int or self.batch < 1):
            raise PriorError(
                f"batch={self.batch!r} must be a whole number of rows, at least 1: write for example "
                "batch=64."
            )

    def bind(self, network: Costed, inclusion_prob: Mapping[str, Tensor], rows: int) -> CostGates:
        """The prior of one network, with λ at its first value.

        Args:
            network: the dense network.
            inclusion_prob: group → (group.size,), q(z = 1) to begin with.
            rows: training rows.

        Raises:
            PriorError: the budget is below what the smallest network costs; or ``uniform`` names groups that
                there are not, or that cannot be equal.
        """
        shares = [math.nan if getattr(self, k) is None else float(getattr(self, k)) for k in KINDS]
        budget = torch.tensor(shares, dtype=torch.double)
        dense = torch.tensor([network.macs(), network.parameter_count()], dtype=torch.double)
        held = self._kinds(network.groups) if self.uniform or self.multiple_of > 1 else None
        of = () if held is None else kinds(network, held, self.multiple_of)
        check_feasible(network, dense, budget, kinds=of)
        first = (FIRST_NATS_PER_ROW * rows / budget).nan_to_num(0.0)
        if not self._measured():
            return CostGates(network, inclusion_prob, first, budget, kinds=of)
        if not isinstance(network, GraphNetwork):
            raise PriorError(
                f"{self!r} is measured on a network that runs, and got a {type(network).__name__}: pass it "
                "to bp.gate(network, example, prior=bp.Budget(...), likelihood=...)."
            )
        limits = self._measured()
        measured = Measured.of(network, limits, int(self.batch or 0), self.timer)
        first = torch.cat([first, first.new_full((len(limits),), FIRST_NATS_PER_ROW * rows)])
        budget = torch.cat([budget, budget.new_full((len(limits),), math.nan)])
        gates = CostGates(network, inclusion_prob, first, budget, kinds=of, measured=measured)
        if "memory_mb" in limits:
            limit_memory_(gates, network)
        return gates

    def _kinds(self, groups: Sequence[Group]) -> bool | list[list[str]]:
        """What ``kinds`` takes: patterns of names as names of groups that can be equal."""
        if isinstance(self.uniform, bool):
            return self.uniform
        sizes = {group.name: group.size for group in groups if not group.optional}
        asked = [(pattern,) if isinstance(pattern, str) else pattern for pattern in self.uniform]
        check_names("uniform", itertools.chain(*asked), list(sizes), error=PriorError)
        named = [[n for n in sizes if any(fnmatchcase(n, p) for p in of)] for of in asked]
        for of, names in zip(asked, named, strict=True):
            listed = ", ".join(f"{name!r} has {sizes[name]}" for name in names)
            told = ", ".join(map(repr, of))
            if math.gcd(*map(sizes.__getitem__, names)) == 1 and max(map(sizes.__getitem__, names)) > 1:
                raise PriorError(
                    f"uniform: {told} stands for groups of sizes that have no divisor, so that they share "
                    f"none but all: {listed}. Give a pattern for each size."
                )
        for name, count in Counter(itertools.chain(*named)).items():
            if count > 1:
                raise PriorError(
                    f"uniform names {name!r} {count} times: let one of the patterns stand for it."
                )
        return named


def check_feasible(
    network: Costed, dense: Tensor, budget: Tensor, least: int = 1, kinds: Sequence[Kind] = ()
) -> None:
    """Refuse a budget that no network cut from this one can meet.

    Args:
        network: as it is now.
        dense: (2,), MACs and parameters of the dense network.
        budget: (2,), shares of MACs and parameters, NaN where there is none.
        least: units that every group keeps.
        kinds: of groups, whose sizes cannot be any.

    Raises:
        PriorError: the least possible share is larger; it is named.
    """
    floors = least_sizes(kinds, least)
    kept = {name: mask.double() for name, mask in minimal_masks(network, floors or least).items()}
    smallest = ExpectedCost(network)(kept)
    possible = (torch.stack([smallest.macs, smallest.parameters]) / dense.cpu()).tolist()
    wrong = [
        f"{kind}={asked:g} (at least {_round_up(share):g})"
        for kind, asked, share in zip(KINDS, budget.tolist(), possible, strict=True)
        if share > asked
    ]
    if wrong:
        units = "one unit" if least == 1 else f"{least} units"
        groups = ", ".join(repr(group.name) for group in network.groups)
        if kinds:
            units, groups = "the fewest units allowed", ", ".join(f"{n!r} ({k})" for n, k in floors.items())
        raise PriorError(
            f"Budget {', '.join(wrong)} cannot be met: with {units} left in each of the groups {groups} this "
            "network still costs the share in brackets. Ask for no less, or take fewer groups out with "
            f"exclude={', or lower multiple_of=' * any(kind.step > 1 for kind in kinds)}."
        )


def _patterns(uniform: object) -> tuple[str | tuple[str, ...], ...]:
    """Names and globs of groups, and tuples of them."""
    given = (uniform,) if isinstance(uniform, str) else uniform
    kinds = [*given] if isinstance(given, Iterable) else [None]
    found = tuple(kind if isinstance(kind, str) else _names(kind) for kind in kinds)
    if not all(found):
        raise PriorError(
            f"uniform={uniform!r} must be True, False, or names and globs of groups: write for example "
            'Budget(macs=0.3, uniform=["*_intermediate_dense"]).'
        )
    return found


def _names(kind: object) -> tuple[str, ...]:
    """Names and globs that are one kind together; none where they are no such thing."""
    names = tuple(kind) if isinstance(kind, Iterable) else ()
    return names if all(isinstance(name, str) for name in names) else ()


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _round_up(share: float) -> float:
    """To three digits, upwards: what the message names must itself be possible."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return math.ceil(share / unit) * unit
