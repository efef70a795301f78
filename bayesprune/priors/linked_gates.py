"""Gates that know of each other, and whose own probabilities are known: the conditional linear family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import pad

from bayesprune.errors import PriorError
from bayesprune.priors.gates import Gates, configurations

MOST_RANK = 6
MARGIN = 0.01
"""How far a conditional probability stays inside of what its gate's own allows, in shares of it."""
MOST_LAGS = 4
LEAST = 1e-6
"""Links that move a probability by less are as good as none: what is divided by is at least this."""
_NO_SHAPE = torch.Size()
Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Before:
    """Which gates each gate looks at: those that stood ``lag`` places before it, of the ones still there.

    Attributes:
        lags: how many places before, ascending.
        index: (lags, units), the place of that gate now, minus one where there is none.
        whole: whether all gates are still there, so that a shift finds them.
    """

    lags: tuple[int, ...]
    index: Tensor
    whole: bool = True

    @cached_property
    def listed(self) -> list[list[int]]:
        """For each gate, the places of those that it looks at."""
        found: list[list[int]] = self.index.T.tolist()
        return found

    @cached_property
    def jumps(self) -> list[Any]:
        """Of a single lag: for each gate the place of the first before it, of the second, of the 4th …; of
        any, where there is none.
        """
        found, jump = [], self.index[0].cpu()
        while bool((jump >= 0).any()):
            found.append(jump.clamp_min(0).numpy())
            jump = torch.where(jump >= 0, jump[jump.clamp_min(0)], -1)
        return found

    @classmethod
    def of(cls, units: int, lags: Sequence[int], alive: Tensor | None = None) -> Before:
        """The gates before each gate of a group.

        Args:
            units: gates of the group.
            lags: how many places before.
            alive: (units,), bool: gates that are there; all by default.
        """
        alive = torch.ones(units, dtype=torch.bool) if alive is None else alive
        places = torch.where(alive, alive.cumsum(0) - 1, -1)
        rows = [pad(places, (lag, 0), value=-1)[:units][alive] for lag in lags]
        index = torch.stack(rows) if rows else places.new_zeros(0, int(alive.sum()))
        return cls(tuple(lags), index, bool(alive.all()))

    def to(self, device: torch.device) -> Before:
        """The same on a device."""
        if self.index.device == device:
            return self
        return Before(self.lags, self.index.to(device), self.whole)

    def look(self, value: Tensor, number: int) -> Tensor:
        """(..., units), for each gate the value of the one before it by one of the lags, zero without one.

        Args:
            value: (..., units).
            number: of the lag.
        """
        if self.whole:
            return pad(value, (self.lags[number], 0))[..., : value.shape[-1]]
        index = self.index[number]
        return value[..., index.clamp_min(0)] * (index >= 0)


class LinkedGates(TorchDistribution):
    r"""Gates whose conditional probabilities are linear in the gates before them, and in a few shared signs.

    .. math:: P(z_i = 1 \mid z_{<i}, s) = \theta_i + \textstyle\sum_l c_{li}\, (z_{i-l} - \theta_{i-l})
              + \sum_r \lambda_{ri}\, s_r, \qquad s_r = \pm 1 \text{ with probability } \tfrac12

    Since it is linear, **every gate's own probability is θ_i exactly**, whatever the links; and so are all
    covariances known in closed form. log q(z) is a product of conditionals, averaged over the 2^rank signs. A
    single lag is a Markov chain, any one that there is. Without links these are
    :class:`~bayesprune.priors.Gates`.

    The conditional linear family of Qaqish, "A family of multivariate binary distributions for simulating
    correlated binary variables with specified marginal means and correlations" (Biometrika 90, 2003); the
    signs, which hold what all units of a group share, are added here. Links of gate i are shrunk by a common
    factor where a conditional probability would otherwise leave [θ_i/100, 1 − (1 − θ_i)/100].

    Draws carry no gradient: Pyro's ELBOs enumerate them, or use their score.

    Args:
        probs: (..., units), θ, probabilities of keeping.
        coupling: (lags, units), c; of no effect where there is no gate before.
        lags: places between a gate and those that it looks at, ``(1,)`` for a chain, ``(1, 28)`` for the left
            and the upper neighbour in rows of 28; or a ``Before``.
        loading: (rank, units), λ; none by default, at most 6 signs.
        validate_args: check arguments and values; by default as torch does.

    Raises:
        PriorError: shapes that do not fit, or lags that are no whole numbers from 1.

    Example:
        >>> import torch
        >>> from bayesprune.priors import LinkedGates
        >>> chain = LinkedGates(torch.full((3,), 0.5), torch.full((1, 3), 0.8), lags=(1,))
        >>> chain.log_prob(torch.tensor([1.0, 1.0, 0.0])).exp().item()  # 0.5 · 0.9 · 0.1
        0.04500...
        >>> chain.covariance()[0]
        tensor([0.2500, 0.2000, 0.1600])
    """

    arg_constraints: ClassVar = {"probs": constraints.independent(constraints.unit_interval, 1)}
    support = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(
        self,
        probs: Tensor,
        coupling: Tensor,
        lags: Sequence[int] | Before,
        loading: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        units = probs.shape[-1:]
        loading = probs.new_zeros((0, *units)) if loading is None else loading
        if not isinstance(lags, Before):
            check_lags(lags)
            lags = Before.of(probs.shape[-1], tuple(lags))
        wanted = torch.Size((len(lags.lags), *units))
        if not units or coupling.shape != wanted or loading.shape[1:] != units or len(loading) > MOST_RANK:
            raise PriorError(
                "LinkedGates needs probs (..., units), coupling (lags, units) and loading (rank, units) of "
                f"at most {MOST_RANK} signs, and got {tuple(probs.shape)}, {tuple(coupling.shape)} with "
                f"{len(lags.lags)} lags, and {tuple(loading.shape)}."
            )
        self.probs, self.before = probs, lags
        self.raw_coupling, self.raw_loading = coupling, loading
        self._known: tuple[Tensor, Tensor] | None = None
        super().__init__(probs.shape[:-1], units, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LinkedGates:
        """The same gates over a larger batch."""
        new = self._get_checked_instance(LinkedGates, _instance)  # type: ignore[no-untyped-call]
        batch_shape = torch.Size(batch_shape)
        new.probs = self.probs.expand(batch_shape + self.event_shape)
        new.before, new.raw_coupling, new.raw_loading = self.before, self.raw_coupling, self.raw_loading
        new._known = None
        super(LinkedGates, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        result: LinkedGates = new
        return result

    def same(self, other: LinkedGates) -> bool:
        """Whether another distribution has the same gates, probabilities and links.

        Args:
            other: that.
        """
        return self.before is other.before and all(
            torch.equal(mine, its)
            for mine, its in (
                (self.probs, other.probs),
                (self.raw_coupling, other.raw_coupling),
                (self.raw_loading, other.raw_loading),
            )
        )

    # ---- the links, as far as probabilities allow them

    @property
    def mean(self) -> Tensor:
        """(..., units), θ."""
        return self.probs

    def links(self) -> tuple[Tensor, Tensor]:
        """(lags, ..., units) coupling and (rank, ..., units) loading, shrunk to what probabilities allow."""
        theta, lead = self.probs, (1,) * len(self.batch_shape)
        there = (self.before.index >= 0).to(theta)
        shape = (*lead, *self.event_shape)
        c = (self.raw_coupling * there).reshape(-1, *shape)
        loading = self.raw_loading.reshape(-1, *shape)
        up = down = loading.abs().sum(0)
        for number in range(len(c)):
            high, low = c[number].clamp_min(0), (-c[number]).clamp_min(0)
            earlier = self.before.look(theta, number)
            up = up + high * (1 - earlier) + low * earlier
            down = down + high * earlier + low * (1 - earlier)
        room = torch.minimum((1 - theta) / up.clamp_min(LEAST), theta / down.clamp_min(LEAST))
        share = ((1 - MARGIN) * room).clamp_max(1.0)
        return c * share, loading * share

    def _places(self) -> tuple[Tensor, Tensor]:
        """(..., 2^rank, units), what conditionals begin with under each sign; (lags, ..., 1, units), c."""
        if self._known is not None:
            return self._known
        c, loading = self.links()
        base = self.probs
        for number in range(len(c)):
            base = base - c[number] * self.before.look(self.probs, number)
        signs = 2 * configurations(len(loading), _NO_SHAPE, self.probs) - 1 if len(loading) else None
        base = base.unsqueeze(-2)
        if signs is not None:
            base = base + torch.einsum("sr,r...u->...su", signs, loading)
        found = base, c.unsqueeze(-2)
        if not any(part.requires_grad for part in (self.probs, self.raw_coupling, self.raw_loading)):
            self._known = found
        return found

    def conditional(self, value: Tensor) -> Gates:
        """Each gate given those before it and each of the signs, as independent gates, (..., 2^rank, units).

        Args:
            value: (..., units), all gates.
        """
        base, c = self._places()
        given, value = base, value.unsqueeze(-2)
        for number in range(len(c)):
            given = given + c[number] * self.before.look(value, number)
        return Gates(probs=given.clamp(0, 1), validate_args=False)

    # ---- a distribution

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        base, c = self._places()
        z = value.unsqueeze(-2)  # (..., 1, units): signs come before units
        sign = 2 * z - 1
        given = base
        for number in range(len(c)):
            given = torch.addcmul(given, c[number], self.before.look(z, number))
        chance = torch.addcmul(1 - z, sign, given)  # of the value that there is
        scores = chance.clamp_min(0).log().sum(-1)
        if scores.shape[-1] == 1:
            return scores.squeeze(-1)
        log_share: Tensor = torch.logsumexp(scores, -1) - len(self.raw_loading) * 0.6931471805599453
        return log_share

    def sample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws without gradient: sample_shape + (..., units)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.probs.dtype, device=self.probs.device)
        signs = torch.randint(2 ** len(self.raw_loading), shape[:-1], device=self.probs.device)
        return self.draw(uniform, signs)

    @torch.no_grad()
    def draw(self, uniform: Tensor, signs: Tensor | None = None) -> Tensor:
        """The draw of given random numbers: gate i opens where its number is below P(z_i = 1 | …).

        Gate after gate, and for all draws at once: a gate's values in all of them are the bits of one whole
        number, and so are those that it would have under each pattern of the gates that it looks at.

        Args:
            uniform: (..., units), from [0, 1).
            signs: (...), which of the 2^rank combinations; needed where there are signs.
        """
        base, c = self._places()
        if base.shape[-2] == 1:
            base = base.squeeze(-2)
        else:
            assert signs is not None
            base = base.expand(*uniform.shape[:-1], *base.shape[-2:])
            base = base.gather(-2, signs[..., None, None].expand(*signs.shape, 1, base.shape[-1])).squeeze(-2)
        c = c.squeeze(-2)
        wanted = uniform - base
        if not len(c):
            return (wanted < 0).to(uniform.dtype)
        units = uniform.shape[-1]
        count = self.batch_shape.numel()
        parts = wanted.reshape(-1, count, units).unbind(1)
        strengths = c.reshape(len(c), count, units).unbind(1)
        drawn = [_bits(w, own, self.before) for w, own in zip(parts, strengths, strict=True)]
        return torch.stack(drawn, 1).view(uniform.shape) if count > 1 else drawn[0].view(uniform.shape)

    def covariance(self) -> Tensor:
        r"""(units, units), covariances of the gates, exactly; for gates without a batch.

        For j < i it is :math:`\sum_l c_{li} \mathrm{Cov}(z_{i-l}, z_j)
        + \sum_r \lambda_{ri} \mathrm{Cov}(s_r, z_j)`.
        """
        with torch.no_grad():
            c, loading = (part.double().cpu() for part in self.links())
            theta, index = self.probs.double().cpu(), self.before.index.cpu()
        units, rank = len(theta), len(loading)
        found = torch.zeros(rank + units, units, dtype=torch.double)  # with the signs in front
        for i in range(units):
            for number in range(len(c)):
                j = int(index[number, i])
                if j >= 0:
                    found[: rank + i, i] += c[number, i] * _row(found, rank, j)[: rank + i]
            found[:rank, i] += loading[:, i]
            found[rank : rank + i, i] += loading[:, i] @ found[:rank, :i]
            found[rank + i, i] = theta[i] * (1 - theta[i])
        whole = found[rank:]
        return (whole + whole.T - torch.diag(whole.diagonal())).to(self.probs.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All configurations, as those of :class:`Gates`; at most 12 units."""
        return configurations(self.event_shape[0], self.batch_shape, self.probs, expand)


def _row(found: Tensor, rank: int, unit: int) -> Tensor:
    """(rank + units,), covariances of a unit with the signs and with all units up to now."""
    beyond = found[rank + unit, unit + 1 :]
    return torch.cat([found[: rank + unit + 1, unit], beyond])


def _bits(wanted: Tensor, c: Tensor, before: Before) -> Tensor:
    """(draws, units): a gate opens where what it wants lies below what the gates before it give.

    With x_1 … x_L the gates that it looks at, it is a polynomial in them over the field of two elements, of
    one term for each set of them: its value under every pattern, each minus those of its subsets.

    Args:
        wanted: (draws, units).
        c: (lags, units).
        before: which gates each looks at.
    """
    draws, units = wanted.shape
    lows = wanted.T.contiguous().cpu().numpy()
    lags, strengths = len(c), c.cpu().numpy()
    terms: list[Any] = []
    for pattern in range(2**lags):
        given = sum((strengths[n] for n in range(lags) if pattern >> n & 1), np.zeros_like(strengths[0]))
        terms.append(np.packbits(lows < given[:, None], axis=1))
    for number in range(lags):
        for pattern in range(2**lags):
            if pattern >> number & 1:
                terms[pattern] = terms[pattern] ^ terms[pattern ^ (1 << number)]
    if lags == 1:
        return _opened(_chain(terms[0], terms[1], before), draws, wanted)
    width = terms[0].shape[1]
    numbers = [_numbers(term.tobytes(), width) for term in terms]
    index = before.listed
    value = [0] * (units + 1)  # the last one is what a gate sees that has none before it
    if lags == 2:
        for i, (alone, one, two, both, (first, second)) in enumerate(zip(*numbers, index, strict=True)):
            x, y = value[first], value[second]
            value[i] = alone ^ one & x ^ two & y ^ both & x & y
    else:
        for i, (*of_gate, places) in enumerate(zip(*numbers, index, strict=True)):
            value[i] = _polynomial(of_gate, [value[place] for place in places])
    raw = b"".join(number.to_bytes(width, "little") for number in value[:units])
    return _opened(np.frombuffer(raw, np.uint8).reshape(units, width), draws, wanted)


def _chain(alone: Bits, linked: Bits, before: Before) -> Bits:
    """(units, bytes), gates of chains: x ↦ alone ⊕ linked · x of the one before, put into one another.

    Such maps compose, so that after the first round each gate is told from the second one before it, then
    from the fourth: as many rounds as there are doublings in the longest chain. The first gate of a chain has
    linked = 0, and so has then whoever would look beyond it.
    """
    units, (lag,) = len(alone), before.lags
    if before.whole:
        step = lag
        while step < units:
            told = linked[step:] & alone[:-step]
            linked[step:] &= linked[:-step].copy()
            alone[step:] ^= told
            step *= 2
        return alone
    for jump in before.jumps:
        alone = alone ^ (linked & alone[jump])
        linked = linked & linked[jump]
    return alone


def _opened(packed: Bits, draws: int, like: Tensor) -> Tensor:
    """(draws, units) of the type of another tensor, from bits (units, bytes)."""
    opened = torch.from_numpy(np.unpackbits(packed, axis=1, count=draws)).to(like.device)
    return opened.T.to(like.dtype, memory_format=torch.contiguous_format)


def _numbers(raw: bytes, width: int) -> list[int]:
    """Whole numbers of so many bytes each."""
    return [int.from_bytes(raw[start : start + width], "little") for start in range(0, len(raw), width)]


def _polynomial(terms: Sequence[int], values: Sequence[int]) -> int:
    """Σ_S terms_S Π_{n in S} values_n, in bits."""
    found = terms[0]
    products = [-1]
    for number, value in enumerate(values):
        products += [product & value for product in products]
        for pattern in range(1 << number, 2 << number):
            found ^= terms[pattern] & products[pattern]
    return found


def check_lags(lags: Any) -> None:
    """Lags are at most four whole numbers from 1, each once, in ascending order.

    Raises:
        PriorError: they are not.
    """
    whole = isinstance(lags, tuple | list) and all(
        isinstance(lag, int) and not isinstance(lag, bool) and lag >= 1 for lag in lags
    )
    if not whole or list(lags) != sorted(set(lags)) or len(lags) > MOST_LAGS:
        raise PriorError(
            f"lags={lags!r} must be at most {MOST_LAGS} whole numbers from 1 in ascending order, such as "
            "(1,) for a chain or (1, 28) for neighbours in rows of 28."
        )
