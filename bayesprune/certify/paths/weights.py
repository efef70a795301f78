"""Unstructured magnitude: the smallest weights are set to zero, and the network keeps its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bayesprune.certify.paths.protocol import Candidate
from bayesprune.errors import CertificateError
from bayesprune.rows import Inputs
from bayesprune.structure.copying import copy_of

STEPS, LEAST_LEFT = 50, 0.01
SHARES = tuple(round(1 - LEAST_LEFT ** (step / (STEPS - 1)), 4) for step in range(STEPS))
"""Weights to remove: none first; each candidate keeps nine tenths of the one before; 99 % at last."""


@dataclass(frozen=True)
class Weights:
    r"""Weights of small magnitude are set to zero, over the whole network or the same share of every layer.

    Candidate s has the :math:`\lceil s \cdot m \rceil` of the m weights zero whose :math:`|w|` is smallest;
    ties go by position, so that the candidates are nested. Weights are parameters of two dimensions or more;
    biases and norms stay.

    Args:
        scope: ``"global"`` compares all weights with each other, ``"layer"`` those of each tensor.
        shares: of the weights to remove, rising, in [0, 1).

    Raises:
        CertificateError: another scope, or shares that do not rise.

    Source:
        S. Han, J. Pool, J. Tran & W. Dally (2015), Learning both Weights and Connections, NeurIPS.

    Example:
        >>> network = nn.Linear(4, 1)
        >>> network.weight.data = torch.tensor([[0.1, -3.0, 0.2, 1.0]])
        >>> half = Weights(shares=[0.0, 0.5]).candidates(network, torch.zeros(1, 4))[1].build()
        >>> half.weight.tolist()
        [[0.0, -3.0, 0.0, 1.0]]
    """

    scope: str = "global"
    shares: Sequence[float] = SHARES

    def __post_init__(self) -> None:
        wrong = []
        if self.scope not in ("global", "layer"):
            wrong.append(f"scope={self.scope!r}: it must be 'global' or 'layer'.")
        shares = list(self.shares)
        if not shares or any(not 0.0 <= s < 1.0 for s in shares) or shares != sorted(set(shares)):
            wrong.append(f"shares={shares!r}: they must rise, from 0 to below 1.")
        if wrong:
            raise CertificateError("Weights: " + " ".join(wrong))

    @property
    def name(self) -> str:
        """How the certificate calls it."""
        return f"weights of small magnitude, {'all layers' if self.scope == 'global' else 'layer by layer'}"

    def candidates(self, reference: nn.Module, example: Inputs) -> Sequence[Candidate]:
        """The networks, of the reference's own shape.

        Args:
            reference: left alone.
            example: not looked at.

        Raises:
            CertificateError: the network has no weights, or some that are not finite.
        """
        ranks = _ranks(reference, self.scope)
        return [
            Candidate(
                f"{100 * share:.1f} % of the weights zero",
                partial(_masked, reference, ranks, share),
                {"kind": "weights", "scope": self.scope, "share": float(share)},
            )
            for share in self.shares
        ]


def _ranks(network: nn.Module, scope: str) -> dict[str, Tensor]:
    """Tensor name → the share of weights, in [0, 1), that are smaller: of all, or of its own."""
    weights = {n: p.detach().cpu() for n, p in network.named_parameters() if p.ndim >= 2}
    broken = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
    if broken or not weights:
        raise CertificateError(
            f"The weights of {', '.join(map(repr, broken))} are not all finite: look at the training."
            if broken
            else f"The {type(network).__name__} has no weights of two dimensions or more to set to zero."
        )
    if scope == "layer":
        return {name: _places(w.reshape(-1)).reshape(w.shape) for name, w in weights.items()}
    places = _places(torch.cat([w.reshape(-1).double() for w in weights.values()]))
    parts = places.split([w.numel() for w in weights.values()])
    return {name: part.reshape(w.shape) for part, (name, w) in zip(parts, weights.items(), strict=True)}


def _places(flat: Tensor) -> Tensor:
    """(weights,), float64: place by magnitude / number of weights."""
    places = torch.empty(len(flat), dtype=torch.float64)
    places[flat.abs().argsort(stable=True)] = torch.arange(len(flat), dtype=torch.float64) / len(flat)
    return places


def _masked(reference: nn.Module, ranks: dict[str, Tensor], share: float) -> nn.Module:
    network = copy_of(reference)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in ranks:
                parameter.masked_fill_((ranks[name] < share).to(parameter.device), 0)
    return network
