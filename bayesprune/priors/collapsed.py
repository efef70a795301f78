"""A prior of gates alone, without its hyper-sites: what exact sums over masks, and samplers, need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Categorical, constraints

from bayesprune.priors.gates import configurations
from bayesprune.priors.protocol import closed_form
from bayesprune.structure.groups import Group

_NO_SHAPE = torch.Size()


class Collapsed(nn.Module):
    r"""A prior whose hyper-sites are gone, as its ``penalty`` has it at every mask.

    .. math:: p(z) \propto e^{-\mathrm{penalty}(z)}

    With the rate integrated out under :class:`Beta`, exact under :class:`Fixed`, and at the best prior
    probability under :class:`Flattening`, where units are independent at the log-odds −price: the prior that
    ``fit`` works under. A group whose prior has no penalty keeps its program.

    Args:
        prior: any prior.

    Example:
        >>> from bayesprune.priors import BernoulliGates, Flattening
        >>> prior = Collapsed(BernoulliGates(Flattening(price=2.0)))
        >>> gates = prior(Group("fc1", size=3))
        >>> one, none = gates.log_prob(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        >>> round((one - none).item(), 4)
        -2.0
    """

    def __init__(self, prior: Callable[[Group], Any]) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, group: Group) -> Any:
        """The distribution of the group's gates, of at most 12 where it is a table of masks.

        Raises:
            PriorError: the group has more.
        """
        known = closed_form(self.prior, group)
        if known is None:
            return self.prior(group)
        masks = configurations(group.size, _NO_SHAPE, torch.zeros((), dtype=torch.get_default_dtype()))
        with torch.no_grad():
            nats = torch.stack([known.penalty(group, mask.double()) for mask in masks])
        return TableOfMasks(-nats.to(masks.dtype), group.size)


class TableOfMasks(TorchDistribution):
    """A distribution over the masks of a group, by the log-probability of each.

    Args:
        scores: (2^units,), nats, up to a constant; mask number Σ z_i 2^i.
        units: gates of the group.
    """

    arg_constraints: ClassVar = {}
    support = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(self, scores: Tensor, units: int) -> None:
        self.scores = scores.log_softmax(0)
        super().__init__(_NO_SHAPE, torch.Size([units]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats."""
        places = 2 ** torch.arange(self.event_shape[0], device=value.device)
        return self.scores[(value.long() * places).sum(-1)]

    def sample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws, sample_shape + (units,)."""
        which = Categorical(logits=self.scores).sample(torch.Size(sample_shape))
        return self.enumerate_support()[which]

    def expand(self, batch_shape: Any, _instance: TableOfMasks | None = None) -> Any:
        """The same over a larger batch."""
        if not torch.Size(batch_shape):
            return self
        return super().expand(batch_shape, _instance)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All masks, as those of :class:`Gates`."""
        return configurations(self.event_shape[0], _NO_SHAPE, self.scores, expand)
