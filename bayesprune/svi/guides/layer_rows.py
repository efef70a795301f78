"""q(w | z) of large models: the outputs of a layer share the posterior that a few learned rows would give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

_NO_SHAPE = torch.Size()
RIDGE = 1e-6


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer, side by side: row o holds all that output o reads, its bias last.

    Attributes:
        names: of the tensors.
        rows: outputs, the size of the tensors' first dimension.
        columns: of each tensor: the numbers of a row.
    """

    names: tuple[str, ...]
    rows: int
    columns: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns of all tensors."""
        return sum(self.columns)


def layers_of(tensors: dict[str, Tensor]) -> list[Layer]:
    """Tensors in layers: those of one module that have as many outputs.

    Args:
        tensors: name → (rows, ...).
    """
    found: dict[tuple[str, int], list[str]] = {}
    for name, tensor in tensors.items():
        found.setdefault((name.rpartition(".")[0], tensor.shape[0] if tensor.ndim else 1), []).append(name)
    return [
        Layer(tuple(names), rows, tuple(tensors[name].numel() // rows for name in names))
        for (_, rows), names in found.items()
    ]


class RowGaussian(TorchDistribution):
    r"""Rows of weights, each Gaussian given which of its columns have an effect; all with one precision.

    The density has no slope in the parameters, of which an ELBO then sees what draws carry: the expected
    slope is zero, and left in it is noise, under which many weights drift away from where they are best (the
    path's gradient; Roeder, Wu & Duvenaud 2017, arXiv 1703.09194).

    .. math:: u_o \mid z \sim \begin{cases} \mathcal{N}(P^{-1} h_o, P^{-1}) & \text{row } o \text{ open} \\
              \mathcal{N}(0, I) & \text{closed} \end{cases}, \qquad w_{oc} = \tau_c u_{oc}

    Args:
        factor: (..., columns, columns), lower triangular U, P = UᵀU.
        information: (..., rows, columns), h.
        open_rows: (..., rows), zeros and ones.
        prior_scale: (columns,), τ.
    """

    arg_constraints: ClassVar = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, factor: Tensor, information: Tensor, open_rows: Tensor, prior_scale: Tensor) -> None:
        self.factor, self.open_rows, self.prior_scale = factor, open_rows.unsqueeze(-1), prior_scale
        # P⁻¹ h by two triangular solves for all rows at once: (..., columns, rows).
        half = torch.linalg.solve_triangular(factor.mT, information.mT, upper=True)
        self.location = torch.linalg.solve_triangular(factor, half, upper=False).mT * self.open_rows
        super().__init__(self.location.shape[:-2], self.location.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., rows, columns)."""
        found: Tensor = self.location * self.prior_scale
        return found

    def expand(self, batch_shape: Any, _instance: Any = None) -> RowGaussian:
        """The same over a larger batch."""
        new = self._get_checked_instance(RowGaussian, _instance)  # type: ignore[no-untyped-call]
        new.factor, new.open_rows, new.prior_scale = self.factor, self.open_rows, self.prior_scale
        new.location = self.location.expand(torch.Size(batch_shape) + self.event_shape)
        super(RowGaussian, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        result: RowGaussian = new
        return result

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws: sample_shape + (..., rows, columns)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.location.dtype, device=self.location.device)
        factor = self.factor.expand(shape[:-2] + self.factor.shape[-2:])
        spread = torch.linalg.solve_triangular(factor, noise.mT, upper=False).mT
        found: Tensor = (self.location + torch.where(self.open_rows > 0, spread, noise)) * self.prior_scale
        return found

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats; with a slope in the value alone, as the class says."""
        location, factor = self.location.detach(), self.factor.detach()
        u = value / self.prior_scale - location
        whitened = torch.where(self.open_rows > 0, u @ factor.mT, u)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) * self.open_rows.sum((-2, -1))
        scales = self.event_shape[0] * self.prior_scale.log().sum()
        constant = self.event_shape.numel() * math.log(2 * math.pi) / 2
        found: Tensor = log_det - whitened.square().sum((-2, -1)) / 2 - scales - constant
        return found


class LayerRows(nn.Module):
    r"""q(w | z) of one layer: a learned quadratic form of its columns that all of its rows share.

    With m(z) ∈ {0, 1}^C telling which columns can have an effect, u = w / τ, R of C rows, and targets t_o:

    .. math:: P = I + \mathrm{diag}(m) R^\top R\, \mathrm{diag}(m), \qquad h_o = m \circ R^\top t_o

    Given inputs, a linear layer's outputs under one Gaussian noise have the same curvature, ∑ x xᵀ / σ², so
    that for a linear model with any number of outputs the family holds the exact q(w | z) for *every* z, as
    :class:`PseudoRows` does, of which this is the factor over outputs; where a network has more layers it is
    an approximation. A draw takes C³ / 3 + 2 C² · rows, where all D = C · rows weights together take D³ / 3.

    Args:
        prior_scale: (columns,), τ.
        rows: outputs.
        unit: √(rows of the data), in which R and t are learned.

    Attributes:
        matrix: (columns, columns), R / unit.
        target: (columns, rows), t / unit.
    """

    prior_scale: Tensor

    def __init__(self, prior_scale: Tensor, rows: int, unit: float) -> None:
        super().__init__()
        self.register_buffer("prior_scale", prior_scale)
        self.unit = unit
        self.matrix = nn.Parameter(torch.diag(torch.full_like(prior_scale, 0.1)))
        self.target = nn.Parameter(prior_scale.new_zeros(len(prior_scale), rows))

    @torch.no_grad()
    def put_(self, curvature: Tensor, information: Tensor) -> None:
        """Put the pseudo-rows where they say what a quadratic form does.

        Args:
            curvature: (columns, columns), RᵀR in units of the prior's standard deviations, positive
                semi-definite.
            information: (rows, columns), Rᵀt likewise.
        """
        curvature, information = curvature.double(), information.double()
        ridge = RIDGE * (curvature.diagonal().mean() + RIDGE)  # for what the rows do not determine
        lower = torch.linalg.cholesky(curvature + ridge * torch.eye(len(curvature)).to(curvature))
        target = torch.linalg.solve_triangular(lower, information.mT, upper=False)
        self.matrix.copy_(lower.mT / self.unit)
        self.target.copy_(target / self.unit)

    def forward(self, open_rows: Tensor, columns: Tensor) -> RowGaussian:
        """The distribution of the layer's weights.

        Args:
            open_rows: (..., rows), which outputs anybody reads.
            columns: (..., columns), m(z).
        """
        reads = self.unit * self.matrix * columns.unsqueeze(-2)  # (..., C, C)
        eye = torch.eye(columns.shape[-1], dtype=columns.dtype, device=columns.device)
        precision = reads.mT @ reads + eye
        # P = UᵀU with U lower triangular: a Cholesky factor, read backwards.
        factor = torch.linalg.cholesky(precision.flip(-2, -1)).flip(-2, -1).mT
        information = (reads.mT @ (self.unit * self.target)).mT  # (..., rows, C)
        return RowGaussian(factor, information, open_rows, self.prior_scale)
