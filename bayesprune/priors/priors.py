"""The priors that ship: Bernoulli gates under a hyper-prior, spike-and-slab, and one prior for each group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from bayesprune.errors import PriorError
from bayesprune.priors.gates import Gates
from bayesprune.priors.known_rate import LayerAdaptive
from bayesprune.priors.naming import Table, by_name, tables_of
from bayesprune.priors.protocol import ClosedFormPrior, HyperPrior, closed_form
from bayesprune.priors.weights import NormalWeights
from bayesprune.structure.groups import Group


class BernoulliGates:
    r"""Gates z_i ~ Bern(π_i) whose inclusion probabilities π_i follow a hyper-prior.

    .. math:: p(z, \pi) = p(\pi) \prod_i \pi_i^{z_i} (1 - \pi_i)^{1 - z_i}

    Args:
        hyper: :class:`Flattening`, :class:`Beta`, :class:`Fixed`, :class:`LayerAdaptive`, or anything with
            the same four methods.

    Raises:
        PriorError: something that is no hyper-prior, such as a bare number.

    Example:
        >>> import torch
        >>> from bayesprune.priors import BernoulliGates, Flattening
        >>> from bayesprune.structure.groups import Group
        >>> prior, group = BernoulliGates(Flattening(price=12.0)), Group("fc1", size=3)
        >>> prior(group).event_shape, prior.price(group)
        (torch.Size([3]), 12.0)
    """

    def __init__(self, hyper: HyperPrior) -> None:
        missing = [
            m for m in ("logits", "guide", "penalty", "price") if not callable(getattr(hyper, m, None))
        ]
        if missing:
            raise PriorError(
                f"BernoulliGates needs a hyper-prior, and {hyper!r} has no {', '.join(missing)}: "
                "use Flattening(price=...), Beta(a, b), Fixed(p) or LayerAdaptive()."
            )
        self.hyper = hyper

    def __call__(self, group: Group) -> Gates:
        """Sample the hyper-sites; the gates of the group given them, event shape (group.size,)."""
        return Gates(logits=self.hyper.logits(group))

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample the same hyper-sites from their exact posterior given q(gates) = Bern(inclusion_prob).

        Args:
            group: the group as it was at the start.
            inclusion_prob: (group.size,), probabilities of keeping; 0 for removed units.
        """
        self.hyper.guide(group, inclusion_prob)

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """The prior side of the negative ELBO under that guide, exactly.

        Args:
            group: the group as it was at the start.
            inclusion_prob: (group.size,), probabilities of keeping; 0 for removed units.

        Returns:
            Scalar E_q[log q(gates, hyper) - log p(gates, hyper)], nats, differentiable in ``inclusion_prob``;
            its gradient is finite at 0 and 1 too.
        """
        return self.hyper.penalty(group, inclusion_prob)

    def price(self, group: Group) -> float:
        """What the last unit costs when every other one is kept, in nats."""
        return self.hyper.price(group)

    def tables(self) -> Iterator[Table]:
        """Those of the hyper-prior."""
        yield from tables_of(self.hyper)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hyper!r})"


class SpikeAndSlab(BernoulliGates):
    r"""Units that are there with Gaussian weights, or are not there: spike-and-slab node selection.

    .. math:: z_j \sim \mathrm{Bern}(\lambda), \qquad w_j \mid z_j = 1 \sim \mathcal{N}(0, \sigma_0^2 I),
              \qquad w_j \mid z_j = 0 \sim \delta_0

    After Jantre, Bhattacharya & Maiti (arXiv 2108.11000). The gate side is this prior; the weight side is in
    ``weights``, which ``gate()`` reads: a mean-field Gaussian whose divergence counts only while the gate is
    on.

    With ``relevance=True`` the slab's scale is each weight's own, at the most evidence, and a weight is there
    only while both units are that it joins:

    .. math:: w_{jk} \mid z_j z_k = 1 \sim \mathcal{N}(0, s_{jk}^2), \qquad
              \min_s \mathrm{KL} = \tfrac12 \log(1 + \mu_{jk}^2 / \sigma_{jk}^2)

    (see :class:`NormalWeights`). Under one scale for all, a weight that has learnt nothing pays as much as
    one that has.

    Args:
        slab_scale: standard deviation σ₀ of a weight that is there, > 0; without ``relevance``.
        inclusion: hyper-prior of the inclusion probability λ; :class:`LayerAdaptive` as in the paper by
            default.
        relevance: whether each weight has the scale of the most evidence.

    Raises:
        PriorError: a scale that is not positive, or no hyper-prior.

    Example:
        >>> from bayesprune.priors import SpikeAndSlab
        >>> SpikeAndSlab(slab_scale=1.0).weights
        NormalWeights(scale=1.0, posterior='normal', masked=True, initial_scale=0.0025, relevance=False)
    """

    def __init__(
        self, slab_scale: float = 1.0, inclusion: HyperPrior | None = None, relevance: bool = False
    ) -> None:
        super().__init__(LayerAdaptive() if inclusion is None else inclusion)
        masked: Literal["both"] | bool = "both" if relevance else True
        self.weights = NormalWeights(slab_scale, posterior="normal", masked=masked, relevance=relevance)


def weights_of(prior: Any) -> NormalWeights | None:
    """The prior of the weights that a prior of gates brings along; other ``weights`` are its own affair."""
    weights = getattr(prior, "weights", None)
    return weights if isinstance(weights, NormalWeights) else None


class PerGroup(nn.Module):
    """A prior for each group, by name.

    Args:
        table: priors by group name or glob pattern; an exact name first, then patterns in order.

    Raises:
        PriorError: an empty table; members that disagree on the prior of the weights; or (when used) no prior
            for a group.

    Example:
        >>> from bayesprune.priors import BernoulliGates, Beta, Flattening, PerGroup
        >>> from bayesprune.structure.groups import Group
        >>> prior = PerGroup({"conv*": BernoulliGates(Flattening(60.0)), "*": BernoulliGates(Beta(1.0, 9.0))})
        >>> prior.of(Group("conv2", size=50))
        BernoulliGates(Flattening(price=60.0))
    """

    def __init__(self, table: Mapping[str, Callable[[Group], Any]]) -> None:
        super().__init__()
        if not table:
            raise PriorError("PerGroup needs at least one prior: add a catch-all '*'.")
        self.table = dict(table)
        self.members = nn.ModuleList(p for p in self.table.values() if isinstance(p, nn.Module))
        weights = [weights_of(prior) for prior in self.table.values()]
        if any(other != weights[0] for other in weights):
            raise PriorError(
                "PerGroup has members that disagree on the prior of the weights (SpikeAndSlab has its own): "
                "use SpikeAndSlab with one slab_scale for all, or for none and give gate() weights=..."
            )
        self.weights: NormalWeights | None = weights[0]

    def of(self, group: Group) -> Callable[[Group], Any]:
        """The prior that holds for this group."""
        return by_name(self.table, group.name, "prior")

    def tables(self) -> Iterator[Table]:
        """Its own, and those of its members."""
        yield "PerGroup", self.table
        for prior in self.table.values():
            yield from tables_of(prior)

    def forward(self, group: Group) -> Any:
        """Sample the hyper-sites; the distribution over the gates of the group."""
        return self.of(group)(group)

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample the hyper-sites of the group's prior from their exact posterior."""
        self._closed_form(group).guide(group, inclusion_prob)

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """The prior side of the negative ELBO of the group's prior: scalar, nats."""
        return self._closed_form(group).penalty(group, inclusion_prob)

    def price(self, group: Group) -> float:
        """What the last unit costs under the group's prior, in nats; nan where it does not say."""
        price = getattr(self.of(group), "price", None)
        return float(price(group)) if callable(price) else float("nan")

    def _closed_form(self, group: Group) -> ClosedFormPrior:
        prior = closed_form(self, group)
        if prior is None:
            raise PriorError(
                f"The prior of group '{group.name}', {self.of(group)!r}, has no guide and penalty: "
                "give it both methods, or fit through Pyro's ELBO with a guide for its sites."
            )
        return prior

    def __repr__(self) -> str:
        return f"PerGroup({self.table!r})"
