"""Masks that are learnt beside the weights under an L1 penalty: what reaches zero first goes first."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.likelihoods import Likelihood
from bayesprune.priors import NormalWeights
from bayesprune.ranges import check_seed
from bayesprune.rows import Inputs
from bayesprune.selection.edges import EdgeRule
from bayesprune.selection.inclusion import above
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.rows import pairs_of
from bayesprune.selection.rule import Rule, Scope, Scored
from bayesprune.selection.subject import Subject
from bayesprune.selection.taylor import likelihood_of
from bayesprune.structure.copying import copy_of


@dataclass(frozen=True, eq=False)
class _Learnt(Rule):
    """What both rules are told; see ``LearntMasks``."""

    rows: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    penalty: float
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_scale: float | Mapping[str, float] | None = None
    hold_weights: bool = False
    likelihood: Likelihood | None = field(default=None, kw_only=True)
    scope: Scope = field(default="global", init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("penalty", "learning_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise SelectionError(f"{self.name}({name}={value!r}): a number above 0.")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SelectionError(f"{self.name}({name}={value!r}): a whole number, at least 1.")
        if not 0 <= self.momentum < 1:
            raise SelectionError(f"{self.name}(momentum={self.momentum!r}): from 0 to below 1.")

    @abstractmethod
    def begun(self, subject: Subject) -> dict[str, Tensor]:
        """Masks of ones."""

    def learnt(self, subject: Subject, seed: int = 0) -> dict[str, Tensor]:
        """Learn masks and, on a copy, weights.

        Args:
            subject: what is pruned; left alone.
            seed: of the rows' order.

        Returns:
            What ``begun`` named → scores of that shape: the mask, where it is above zero at the end, else
            minus the share of the steps that were left when it reached zero.

        Raises:
            SelectionError: the loss is not finite.
        """
        check_seed(seed, SelectionError)
        likelihood = likelihood_of(subject, self.likelihood, self.name)
        x, y = pairs_of(subject, likelihood, self.rows, self.targets, self.name)
        learning = _Learning(self, subject, likelihood)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.epochs):
            for batch in torch.randperm(len(y), generator=generator).split(self.batch_size):
                learning.step_(x[batch], y[batch])
        return {
            name: torch.where(mask > 0, mask.double(), learning.gone[name] / learning.steps - 1).cpu()
            for name, mask in learning.masks.items()
        }


@dataclass(frozen=True, eq=False)
class LearntMasks(_Learnt, Scored):
    r"""Continuous masks of units, learnt with the weights under an L1 penalty: the order in which they end.

    .. math:: J(m, w) = N L(m, w) + \lambda \sum_u m_u + \sum_w \frac{w^2}{2 s_w^2}, \qquad m \ge 0,

    from m = 1 and the weights as they are, by gradient steps with momentum; a mask at zero stays there, so
    that units go one after the other. Who was last to go comes first, those still there by their mask: the
    masks of any size are those of a learning that was stopped when so few were left. Its own answer: the
    masks that are above zero at the end.

    At fixed weights masks are soft thresholds (but for those that momentum carries to zero on their way).
    With both learnt, the least that masks and weights cost for given products β = m w is
    3/2 (λ² |β|² / s²)^{1/3}, β being of all weights that read a unit: a penalty of the power 2/3, which
    shrinks large products less than L1 does. Without the weights' own part (s infinite) it is zero: masks
    shrink as weights grow, and only an early stop makes a selection of that.

    After Cho, Joshi & Hegde, ESPN: Extremely Sparse Pruned Networks (arXiv 2006.15741), who learn masks of
    single weights so (``LearntEdgeMasks``). From their abstract and public code: masks from one, L1, momentum
    0.9 without weight decay, an end once few enough masks are above 0.01, the largest of which stay; there
    the weights become their products with the masks, and learning goes on. Derived here: units, masks that
    stay at zero, their order, and the closed forms. Only masks are taken from here: what the weights learnt
    beside is not kept, and the pruned network has the weights that it had.

    Attributes:
        rows: (rows, ...), inputs of training rows.
        targets: (rows, ...), as the likelihood takes them.
        penalty: λ, nats for a mask of one; α on a row's mean loss is λ = α N (ESPN: α = 8e-5 for N = 60,000).
        epochs: passes over the rows.
        batch_size: rows of a step.
        learning_rate: of both, on a row's mean of J / N.
        momentum: in [0, 1).
        weight_scale: s, one for all or by parameter name or glob; by default the posterior's, and without a
            posterior infinite, as in ESPN.
        hold_weights: learn the masks alone.
        likelihood: it knows N, the number of training rows; by default the posterior's.
    """

    def begun(self, subject: Subject) -> dict[str, Tensor]:
        """group → (living units,), ones; sections have none."""
        like = next(p for p in subject.network.parameters() if p.is_floating_point())
        units = {g.name: int(subject.alive[g.name].sum()) for g in subject.groups if not g.optional}
        return {name: like.new_ones(count) for name, count in units.items()}

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), masks, and negative numbers of those at zero; sections stay."""
        found: Scores = {}
        for name, own in self.learnt(subject, seed).items():
            alive = subject.alive[name]
            found[name] = torch.full((len(alive),), -1.0, dtype=torch.float64)
            found[name][alive] = own
        return found

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Units whose mask is above zero at the end; the best of every group at least."""
        stays = {g.name: torch.full((g.size,), torch.inf, dtype=torch.float64) for g in subject.groups}
        return above(subject, {**stays, **self.scores(subject, seed)}, 0.0)


@dataclass(frozen=True, eq=False)
class LearntEdgeMasks(_Learnt, EdgeRule):
    """The same for single weights, w m in place of w, as Cho, Joshi & Hegde (arXiv 2006.15741) have it.

    Attributes: as of ``LearntMasks``; λ is for a single weight.
    """

    def begun(self, subject: Subject) -> dict[str, Tensor]:
        """Weight → ones of its shape."""
        return {name: torch.ones_like(weight) for name, weight in subject.weights().items()}

    def edge_scores(self, subject: Subject, seed: int = 0) -> dict[str, Tensor]:
        """Weight → masks, and negative numbers of those at zero."""
        return self.learnt(subject, seed)

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Weights whose mask is above zero at the end."""
        return {name: score > 0 for name, score in self.learnt(subject, seed).items()}


class _Learning:
    """Masks and weights on their way down J.

    Args:
        rule: settings.
        subject: left alone.
        likelihood: of its outputs.
    """

    def __init__(self, rule: _Learnt, subject: Subject, likelihood: Likelihood) -> None:
        self.rule, self.likelihood = rule, likelihood
        self.network = copy_of(subject.network).eval()
        self.masks = rule.begun(subject)
        self.gone = {name: torch.zeros_like(mask, dtype=torch.float64) for name, mask in self.masks.items()}
        named = self.network.named_parameters()
        self.weights = {n: p.detach().clone() for n, p in named if p.is_floating_point()}
        self.decay = self._decays(subject)
        self.velocity = [torch.zeros_like(tensor) for tensor in self._moving()]
        self.steps = 0

    def _moving(self) -> list[Tensor]:
        """Masks, and weights where they are learnt."""
        return [*self.masks.values(), *([] if self.rule.hold_weights else self.weights.values())]

    def _decays(self, subject: Subject) -> dict[str, float]:
        """Weight → 1 / (N s²)."""
        if self.rule.weight_scale is not None:
            prior = NormalWeights(scale=self.rule.weight_scale)
        elif subject.gated is not None:
            prior = subject.gated.weights
        else:
            return {}
        return {n: 1 / (self.likelihood.rows * prior.scale_of(n) ** 2) for n in subject.weights()}

    def step_(self, x: Inputs, y: Tensor) -> None:
        """One step of masks and weights; masks that reach zero stay there."""
        moving, slopes = self._moving(), self._slopes(x, y)
        price, names = self.rule.penalty / self.likelihood.rows, list(self.masks)
        self.steps += 1
        for number, (tensor, slope, velocity) in enumerate(zip(moving, slopes, self.velocity, strict=True)):
            velocity.mul_(self.rule.momentum).add_(slope)
            if number >= len(names):
                tensor.sub_(self.rule.learning_rate * velocity)
                continue
            velocity.add_(price)
            there = tensor > 0
            tensor.sub_(self.rule.learning_rate * velocity).clamp_(min=0).mul_(there)
            self.gone[names[number]][there & (tensor == 0)] = self.steps

    def _slopes(self, x: Inputs, y: Tensor) -> list[Tensor]:
        """Of a row's mean of J / N, without λ, in what moves."""
        moving = self._moving()
        for tensor in moving:
            tensor.requires_grad_(True)
        with torch.enable_grad():
            loss = self._loss(x, y)
            found = torch.autograd.grad(loss, moving, allow_unused=True)
        for tensor in moving:
            tensor.requires_grad_(False)
        if not bool(torch.isfinite(loss)):
            raise SelectionError(
                f"{self.rule.name}: the loss became {float(loss.detach())} by step {self.steps}: lower "
                f"learning_rate={self.rule.learning_rate:g}."
            )
        return [torch.zeros_like(t) if g is None else g for t, g in zip(moving, found, strict=True)]

    def _loss(self, x: Inputs, y: Tensor) -> Tensor:
        """A row's mean of J / N, without λ."""
        edges, device = self.rule.edges, next(iter(self.weights.values())).device
        masked = {n: w * self.masks[n] if edges and n in self.masks else w for n, w in self.weights.items()}
        given = (x.to(device),) if edges else (x.to(device), self.masks)
        outputs = self.likelihood.part(torch.func.functional_call(self.network, masked, given), len(y))
        loss = self.likelihood.nll(outputs, y.to(device)).mean()
        for name, decay in self.decay.items():
            loss = loss + 0.5 * decay * self.weights[name].square().sum()
        return loss
