"""Inclusion probabilities summed over the masks that matter: a mean-field guide repaired."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.gated.dead import median_units
from bayesprune.posterior.diagnose.joint import log_joint, why_not
from bayesprune.posterior.draws import draw, quiet
from bayesprune.posterior.rows import Rows, check_rows
from bayesprune.posterior.value import Posterior
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.svi.result import FitResult
from bayesprune.svi.threads import threads_for, using_threads

TOLERANCE = 1e-3
"""A mask with less of the probability than this is not looked around."""
DRAWN = 200
"""Masks of the guide that the search begins from, at most, beside the hard one."""
SWAPS = 500
"""Exchanges of two units that are tried around one mask, at most."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CorrectedInclusion:
    """Inclusion probabilities of one fit, of its guide and by a sum over masks, given its weights.

    Attributes:
        corrected: group → (units,), P(z = 1) over the masks that were found, units by their number in the
            dense network.
        guide: the same under the guide.
        masks: how many masks were asked.
        best: (units of all groups,), bool: the most probable mask that was found.
        probability: of that mask; an upper bound where some mask was not found.
        complete: whether the search ended because no mask with more than 0.001 of the probability was left
            to look around, and none of its neighbours was left out.
    """

    corrected: dict[str, Array]
    guide: dict[str, Array]
    masks: int
    best: Tensor
    probability: float
    complete: bool

    @property
    def moved(self) -> float:
        """Largest |corrected − guide| of a gate."""
        pairs = ((self.corrected[name], self.guide[name]) for name in self.guide)
        return max((float(np.abs(a - b).max(initial=0.0)) for a, b in pairs), default=0.0)

    def __repr__(self) -> str:
        end = "complete" if self.complete else "NOT complete: give more masks"
        return (
            f"CorrectedInclusion({self.masks} masks, {end}; largest |corrected − guide| {self.moved:.3f}, "
            f"most probable mask {self.probability:.3f})"
        )


def corrected_inclusion(
    result: FitResult | GatedModel,
    rows: Source,
    masks: int = 2000,
    seed: int = 0,
    at: str = "end",
) -> CorrectedInclusion:
    r"""Inclusion probabilities by a sum over the masks that hold the probability, instead of the guide's.

    .. math:: P(z_u = 1 \mid y) \approx \frac{\sum_{z \in S} z_u\, p(y, z)}{\sum_{z \in S} p(y, z)}

    S begins with masks that the guide draws. Then the most probable mask that was not yet looked around is:
    each unit of it flipped, and each open unit exchanged for a closed one of its group. So it grows where the
    probability is, until what is left is negligible. A mean-field guide has one mode, and is too sure of it
    where units can stand for each other; exchanges lead from one such mode to the others. Over all masks the
    sum is exact; no mask outside S can make a probability in it larger.

    Importance weights of the guide's draws aim at the same, but a guide that misses a mode does not draw it,
    and their own diagnostic, k̂, does not always say so (docs, "Diagnostics").

    What is answered is *given the weights of the network*, and given that what was removed is gone.

    Args:
        result: of a fit, or a gated model whose weights are points and whose prior has a closed form.
        rows: the training rows, all of them.
        masks: how many to ask at most, a forward pass each.
        seed: of the draws to begin with.
        at: ``"end"``, or ``"decision"`` for gates as they were before they were decided.

    Returns:
        Both probabilities. Read ``complete`` first.

    Raises:
        PosteriorError: other rows than the model was told of, several fits, a number out of range, weights
            that have a posterior, or a prior without a closed form.

    Example:
        >>> import bayesprune as bp
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(60, 3)
        >>> network = torch.nn.Sequential(torch.nn.Linear(3, 1))
        >>> gated = bp.gate(
        ...     network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)), inputs=True,
        ...     likelihood=bp.Gaussian(rows=60, scale=1.0, learn_scale=False),
        ... )
        >>> found = corrected_inclusion(gated, (x, x[:, :1]))
        >>> found.complete, found.corrected["input"].shape
        (True, (3,))
    """
    if isinstance(result, Sequence):
        raise PosteriorError(
            "corrected_inclusion is of one fit: its answer is given that fit's weights. Call it for each."
        )
    if not is_whole(masks) or masks < 1:
        raise PosteriorError(f"masks={masks!r} must be a whole number, at least 1.")
    check_seed(seed, PosteriorError)
    gated = Posterior.of(result, at=at).fits[0].gated
    problem = why_not(gated)
    if problem:
        raise PosteriorError(f"There are no probabilities of masks alone to sum: {problem}.")
    pair = check_rows(gated, rows)
    if len(pair[0]) != gated.likelihood.rows:
        raise PosteriorError(
            f"corrected_inclusion weighs masks by all {gated.likelihood.rows} training rows, and got "
            f"{len(pair[0])}: give rows=(inputs, targets) that the model was fitted to."
        )
    search = MaskSearch(gated, pair, masks, seed)
    search.run_()
    return search.found()


class MaskSearch:
    """Masks that were asked, and which of them were looked around.

    Args:
        gated: the model.
        rows: all training rows.
        most: masks to ask.
        seed: of the draws to begin with.
    """

    def __init__(self, gated: GatedModel, rows: Rows, most: int, seed: int) -> None:
        self.gated, self.rows, self.most, self.seed = gated, rows, most, seed
        self.living = gated.alive.cpu().nonzero().squeeze(1).tolist()
        self.scores: dict[bytes, float] = {}
        self.masks: list[Tensor] = []
        self.open: list[tuple[float, int]] = []  # heap of (−score, number) that were not looked around
        self.complete, self.skipped = False, False

    def run_(self) -> None:
        """Ask masks until the others cannot matter, or there are enough."""
        with using_threads(threads_for(self.gated.dense_macs, len(self.rows[0]), learns=False)):
            self._run_()

    def log_joint(self) -> tuple[Tensor, Array]:
        """(masks, units of all groups), int8, those that were asked, and (masks,) log p(y, z), nats."""
        return torch.stack(self.masks), np.array([self.scores[_key(mask)] for mask in self.masks])

    def found(self) -> CorrectedInclusion:
        """What has been learnt."""
        masks, logs = self.log_joint()
        share = np.exp(logs - logsumexp(logs))
        mean = torch.from_numpy(share @ masks.numpy().astype(np.float64))
        theta = (self.gated.inclusion_prob().detach() * self.gated.alive).double().cpu()

        def by_group(values: Tensor) -> dict[str, Array]:
            return {name: np.asarray(values[part].numpy()) for name, part in self.gated.slices().items()}

        best = int(share.argmax())
        return CorrectedInclusion(
            by_group(mean), by_group(theta), len(self.masks), self.masks[best].bool(), float(share[best]),
            self.complete,
        )  # fmt: skip

    def _run_(self) -> None:
        with quiet(self.gated):
            torch.manual_seed(self.seed)
            drawn = draw(self.gated, DRAWN).gates
        hard = median_units(self.gated).cpu().to(torch.int8)[None]
        self._ask_(torch.cat([hard, drawn.cpu() * self.gated.alive.cpu().to(torch.int8)]))
        while self.open:
            score, number = heapq.heappop(self.open)
            if -score - self._total() < np.log(TOLERANCE):
                self.complete = not self.skipped
                return
            if len(self.masks) >= self.most:
                return
            self._ask_(self._around(self.masks[number]))
        self.complete = not self.skipped

    def _ask_(self, masks: Tensor) -> None:
        """Ask those of some masks that are new."""
        fresh: dict[bytes, Tensor] = {}
        for mask in masks:
            key = _key(mask)
            if key not in self.scores:
                fresh.setdefault(key, mask)
        left = self.most - len(self.masks)
        self.skipped |= len(fresh) > left
        new = list(fresh.items())[:left]
        if not new:
            return
        scores = log_joint(self.gated, torch.stack([mask for _, mask in new]), self.rows)
        for (key, mask), score in zip(new, scores, strict=True):
            self.scores[key] = float(score)
            heapq.heappush(self.open, (-float(score), len(self.masks)))
            self.masks.append(mask)

    def _around(self, mask: Tensor) -> Tensor:
        """(neighbours, units), one unit flipped, or two of a group exchanged."""
        changes: list[list[int]] = [[unit] for unit in self.living]
        swaps: list[list[int]] = []
        for part in self.gated.slices().values():
            inside = [unit for unit in self.living if part.start <= unit < part.stop]
            shut, opened = [u for u in inside if not mask[u]], [u for u in inside if mask[u]]
            swaps += [[a, b] for a in opened for b in shut]
        self.skipped |= len(swaps) > SWAPS
        changes += swaps[:SWAPS]
        around = mask.repeat(len(changes), 1)
        for row, units in zip(around, changes, strict=True):
            row[units] = 1 - row[units]
        return around

    def _total(self) -> float:
        return float(logsumexp(list(self.scores.values())))


def _key(mask: Tensor) -> bytes:
    return bytes(mask.numpy().tobytes())
