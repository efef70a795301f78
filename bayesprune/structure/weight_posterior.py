"""A plain network whose weights are known up to a spread: what ships where its doubt is to ship too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesprune.errors import SettingsError
from bayesprune.ranges import SEED_RULE, is_seed
from bayesprune.structure.copying import copy_of


@dataclass(frozen=True)
class WeightPosterior:
    r"""A network of plain PyTorch, and the standard deviations of its weights: w ~ N(network's, deviations²).

    Attributes:
        network: with the posterior's means.
        deviations: parameter name → (...), in the parameter's own unit; parameters that are not named are
            points.

    Example:
        >>> posterior = WeightPosterior(nn.Linear(2, 1), {"weight": torch.full((1, 2), 0.1)})
        >>> x = torch.ones(5, 2)
        >>> torch.stack([posterior.sample(seed)(x) for seed in range(20)]).std(0).shape
        torch.Size([5, 1])
    """

    network: nn.Module
    deviations: Mapping[str, Tensor]

    @torch.no_grad()
    def sample(self, seed: int) -> nn.Module:
        """A network of the posterior, as plain as the one of its means.

        Args:
            seed: of the draw.

        Returns:
            A copy with drawn weights, in the mode that ``network`` is in.

        Raises:
            SettingsError: ``seed`` is none.
        """
        if not is_seed(seed):
            raise SettingsError(f"sample: seed={seed!r} {SEED_RULE}.")
        drawn, generator = copy_of(self.network), torch.Generator().manual_seed(seed)
        parameters = dict(drawn.named_parameters())
        for name, deviation in sorted(self.deviations.items()):
            noise = torch.randn(deviation.shape, generator=generator, dtype=torch.double)
            parameters[name].add_(noise.to(deviation) * deviation)
        return drawn
