"""StructuredGuide: q(z) q(w | z), for small models whose gates and weights depend on each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from bayesprune.errors import SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.announce import announce_parameters
from bayesprune.likelihoods import Gaussian
from bayesprune.likelihoods.curvature import in_outputs, root_of
from bayesprune.priors.gates import MOST_ENUMERABLE_UNITS
from bayesprune.rows import Inputs
from bayesprune.structure.groups import WHOLE
from bayesprune.svi.guides.autoregressive import AutoregressiveGates
from bayesprune.svi.guides.given import Given
from bayesprune.svi.guides.layer_rows import Layer, LayerRows, layers_of
from bayesprune.svi.guides.pseudo_rows import PseudoRows

MOST_WEIGHTS = 1_000
"""Under one joint Gaussian; and columns of a layer whose rows share one."""
DRAWS = 2_000


class StructuredGuide(nn.Module):
    r"""A guide of a gated model in which weights know which gates are open, and gates of each other.

    .. math:: q(z, w) = q(z)\, q(w \mid z)

    q(z) is autoregressive over all gates (:class:`AutoregressiveGates`, groups in order), q(w | z) Gaussian
    (:class:`PseudoRows`; :class:`LayerRows` where there are many weights). A mean-field q(z) q(w) must give
    one Gaussian to a weight that is N(0, τ²) behind a closed gate and narrow behind an open one; it then
    takes gates for more certain than they are.

    An ordinary Pyro guide of ``gated.model``, with the sites of ``gated.guide``: ``SVI``, ``Trace_ELBO``,
    ``TraceEnum_ELBO(max_plate_nesting=1)`` under ``config_enumerate`` for at most 12 gates a group, and
    ``Predictive`` work on it; :class:`LeaveOneOutELBO` has less variance than ``Trace_ELBO`` for more gates.
    Parameters are its own; the gated model's weights and log-odds are neither read after the start nor moved
    (``bp.svi.settle_`` does that). Cost: a Cholesky factor of all D weights for every configuration of gates,
    or of each layer's columns under ``weights='rows'``.

    Targets are Gaussian: the pseudo-rows are one quadratic form for all configurations. Where a row's
    curvature hangs on its output, and so on the mask (classes, truths, counts), no such form serves them
    all, and inclusion probabilities come out wrong by tenths. There ``bp.posterior.integrate_weights`` has
    a mode and a curvature for each mask.

    Args:
        gated: as ``gate`` made it. Weights' priors are read from it, their ``posterior`` is not.
        gates: ``'autoregressive'`` or ``'independent'``.
        weights: ``'joint'``; ``'rows'``, for more than 1,000 weights: layers are independent given gates, and
            so are the outputs of a layer, which share one precision: exact for a linear layer with one
            noise; or ``'paired'`` for the paired mean-field q(w_i | its gates).

    Raises:
        SettingsError: a likelihood other than ``bp.Gaussian``; units were removed; weights that leave the
            ELBO where a gate is closed (``masked``); noise on units; more than 1,000 weights, or columns of a
            layer under ``'rows'``; or an unknown name.

    Example:
        >>> import torch, bayesprune as bp
        >>> from pyro.infer import Trace_ELBO
        >>> prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.3))
        >>> x, y = torch.randn(50, 3), torch.randn(50)
        >>> network = torch.nn.Sequential(torch.nn.Linear(3, 1))
        >>> gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=50))
        >>> guide = bp.svi.guides.StructuredGuide(gated)
        >>> Trace_ELBO().differentiable_loss(gated.model, guide, x, y).shape
        torch.Size([])
    """

    def __init__(self, gated: GatedModel, gates: str = "autoregressive", weights: str = "joint") -> None:
        super().__init__()
        scales = {n: torch.full_like(p, gated.weights.scale_of(n)) for n, p in gated.weight_tensors().items()}
        self.layers = layers_of(scales)
        _check(gated, self.layers, gates, weights)
        self._gated = [gated]  # in a list: no submodule, whose parameters would be trained
        self.likelihood = gated.likelihood  # its parameters are
        self.default_guide = gated.default_guide
        self.autoregressive = gates == "autoregressive"
        self.log_odds = nn.Parameter(gated.log_odds.detach().clone())
        units = len(self.log_odds)
        self.coupling = nn.Parameter(self.log_odds.new_zeros(units, units), requires_grad=self.autoregressive)
        rows = gated.likelihood.rows
        self.weights: PseudoRows | None = None
        self.by_layer = nn.ModuleList()
        if weights == "rows":
            for layer in self.layers:
                width = [scales[name].reshape(layer.rows, -1)[0] for name in layer.names]
                self.by_layer.append(LayerRows(torch.cat(width), layer.rows, math.sqrt(rows)))
        else:
            prior_scale = torch.cat([scale.flatten() for scale in scales.values()])
            self.weights = PseudoRows(prior_scale, weights == "joint", rows)

    @property
    def gated(self) -> GatedModel:
        """The model that it is a guide of."""
        return self._gated[0]

    # ---- before it learns

    def start_(self, x: Inputs, y: Tensor) -> StructuredGuide:
        """Put the pseudo-rows of layers where the likelihood's curvature is, at the model's own weights.

        With g_no = ∂(vᵀ Λ_n^{1/2} outputs_n)/∂w_o of row n, output row o and random signs v (Hutchinson
        1989), RᵀR is the mean of ∑_n g_no g_noᵀ over o, the Gauss–Newton block of a row, and Rᵀt has the mode
        that a Newton step leads to while all gates are open. For one linear layer under one Gaussian noise
        that is the exact q(w | z) for every z, whatever the signs and the weights.

        Args:
            x: (rows, ...), training inputs, or some of them.
            y: (rows, ...), targets.

        Returns:
            The guide.

        Raises:
            SettingsError: weights are not ``'rows'``.
        """
        if self.weights is not None:
            raise SettingsError(
                "start_ puts the pseudo-rows of layers: StructuredGuide(gated, weights='rows')."
            )
        gated, tensors = self.gated, self.gated.weight_tensors()
        gates = gated.by_group(torch.ones_like(self.log_odds))
        scale = gated.likelihood.rows / len(y)
        values = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
        sums: dict[str, list[Tensor | None]] = {layer.names[0]: [None, None] for layer in self.layers}
        with torch.enable_grad():
            for n in range(len(y)):
                outputs = gated.outputs(x[n : n + 1], gates, values)
                first, second = in_outputs(gated.likelihood, outputs.detach(), y[n : n + 1])
                root = root_of(second)[0]
                signs = torch.randint(0, 2, root.shape[:1]).to(root) * 2 - 1
                for k, direction in enumerate((signs @ root, first.reshape(-1))):
                    found = torch.autograd.grad(
                        outputs.flatten() @ direction.to(outputs), list(values.values()),
                        retain_graph=k == 0, allow_unused=True,
                    )  # fmt: skip
                    slopes = dict(zip(values, found, strict=True))
                    for layer in self.layers:
                        g = self._side_by_side(layer, slopes)
                        more, kept = (g.mT @ g / layer.rows if k == 0 else g), sums[layer.names[0]]
                        before = kept[k]
                        kept[k] = more if before is None else before + more
        for layer, of in zip(self.layers, self.by_layer, strict=True):
            block, slope = sums[layer.names[0]]
            assert isinstance(of, LayerRows) and block is not None and slope is not None
            tau = of.prior_scale
            curvature = scale * tau.unsqueeze(1) * block * tau
            here = self._side_by_side(layer, dict(tensors)).detach() / tau
            of.put_(curvature, here @ curvature - scale * slope * tau)
        return self

    def _side_by_side(self, layer: Layer, tensors: Mapping[str, Tensor | None]) -> Tensor:
        """(rows, columns), a layer's tensors as it has them; zeros where there is none."""
        known, parts = self.gated.weight_tensors(), []
        for name in layer.names:
            tensor = tensors[name]
            parts.append(
                (torch.zeros_like(known[name]) if tensor is None else tensor).reshape(layer.rows, -1)
            )
        return torch.cat(parts, 1)

    # ---- the guide

    def forward(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Sample gates, hyper-sites and weights.

        Args:
            x: ignored; here because Pyro calls model and guide alike.
            y: ignored.

        Returns:
            Site name → value, of gates and weights.
        """
        announce_parameters(self)
        gates: dict[str, Tensor] = {}
        theta = self.gated.by_group(self.inclusion_prob().detach())
        with poutine.trace() as seen:
            # Detached: the hyper-posterior is the best one given θ, so its slope in θ is zero (envelope).
            self.gated.hyper_guides(theta)
            for group in self.gated.groups:
                gates[group.name] = pyro.sample(f"gate/{group.name}", self.gate_dist(group.name, gates))
        frames = seen.trace.nodes[f"gate/{self.gated.groups[0].name}"]["cond_indep_stack"]
        in_plate = any(frame.vectorized for frame in frames)
        point = dist.Delta if in_plate else Given
        if self.weights is None:
            drawn = {
                layer.names: pyro.sample(
                    f"weights/{layer.names[0]}",
                    of(*self.layer_mask(layer, gates)),
                    infer={"is_auxiliary": True},
                )  # (..., rows, columns)
                for layer, of in zip(self.layers, self.by_layer, strict=True)
            }
            found = self._apart(drawn)
        else:
            joint = self.weights(self.weight_mask(gates))
            found = self._split(pyro.sample("weights", joint, infer={"is_auxiliary": True}))  # of (..., D)
        values = {f"gate/{name}": z for name, z in gates.items()}
        for name, tensor in self.gated.weight_tensors().items():
            values[f"weight/{name}"] = pyro.sample(
                f"weight/{name}",
                point(found[name], event_dim=tensor.ndim),  # type: ignore[no-untyped-call]
            )
        return values

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        """Tensor name → (..., its shape), of (..., D)."""
        tensors = self.gated.weight_tensors()
        parts = flat.split([tensor.numel() for tensor in tensors.values()], -1)
        return {
            name: part.reshape(part.shape[:-1] + tensor.shape)
            for (name, tensor), part in zip(tensors.items(), parts, strict=True)
        }

    def _apart(self, drawn: Mapping[tuple[str, ...], Tensor]) -> dict[str, Tensor]:
        """Tensor name → (..., its shape), of names of a layer → (..., rows, columns)."""
        tensors, found = self.gated.weight_tensors(), {}
        for layer in self.layers:
            for name, part in zip(layer.names, drawn[layer.names].split(layer.columns, -1), strict=True):
                found[name] = part.reshape(part.shape[:-2] + tensors[name].shape)
        return found

    def gate_dist(self, group: str, before: Mapping[str, Tensor]) -> AutoregressiveGates:
        """q(gates of a group | gates of the groups before it).

        Args:
            group: its name.
            before: group → (..., size), gates of every earlier group.
        """
        parts = self.gated.slices()
        own = parts[group]
        logits = self.log_odds[own]
        for name, z in before.items():
            if name != group and self.autoregressive:
                logits = logits + z @ self.coupling[own, parts[name]].mT
        return AutoregressiveGates(logits, self.coupling[own, own])

    def weight_mask(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Which weights can have an effect: those all of whose units are open, on either side.

        Args:
            gates: group → (..., size).

        Returns:
            (..., D), over all weight tensors in order, flattened.
        """
        lead = torch.broadcast_shapes(*(z.shape[:-1] for z in gates.values()))
        masks = []
        for name, tensor in self.gated.weight_tensors().items():
            mask = self.log_odds.new_ones(lead + tensor.shape)
            for slot in self.gated.network.slots:
                if slot.tensor == name and (slot.dim >= 0 or slot.dim == WHOLE):
                    ids = slot.unit_ids
                    share = torch.where(ids >= 0, gates[slot.group][..., ids.clamp_min(0)], 1.0)
                    behind = tensor.ndim - 1 - (0 if slot.dim == WHOLE else slot.dim)
                    front = tensor.ndim - 1 - behind
                    shape = share.shape[:-1] + (1,) * front + share.shape[-1:] + (1,) * behind
                    mask = mask * share.reshape(shape)
            masks.append(mask.flatten(len(lead)))
        return torch.cat(masks, -1)

    def layer_mask(self, layer: Layer, gates: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The same of one layer, by rows and by columns: a weight has an effect where both have.

        Args:
            layer: one of ``layers``.
            gates: group → (..., size).

        Returns:
            (..., rows) and (..., columns).
        """
        lead = torch.broadcast_shapes(*(z.shape[:-1] for z in gates.values()))
        rows, columns, tensors = self.log_odds.new_ones((*lead, layer.rows)), [], self.gated.weight_tensors()
        for name in layer.names:
            shape = tensors[name].shape[1:]
            mask = self.log_odds.new_ones(lead + shape)
            for slot in self.gated.network.slots:
                if slot.tensor == name and (slot.dim >= 0 or slot.dim == WHOLE):
                    ids = slot.unit_ids
                    share = torch.where(ids >= 0, gates[slot.group][..., ids.clamp_min(0)], 1.0)
                    if slot.dim == 0 and name == layer.names[0]:
                        rows = rows * share
                    elif slot.dim == WHOLE:
                        mask = mask * share.reshape(share.shape[:-1] + (1,) * len(shape))
                    elif slot.dim > 0:
                        behind = len(shape) - slot.dim
                        front = len(shape) - 1 - behind
                        mask = mask * share.reshape(
                            share.shape[:-1] + (1,) * front + share.shape[-1:] + (1,) * behind
                        )
            columns.append(mask.flatten(len(lead)) if shape else mask.unsqueeze(-1))
        return rows, torch.cat(columns, -1)

    # ---- reading it

    def inclusion_prob(self) -> Tensor:
        """(units of all groups,), the marginals q(z = 1).

        Exact where all gates together can be enumerated, at most 12, or are independent; else the mean of the
        last conditionals over 2,000 draws from a fixed seed.
        """
        if not self.autoregressive:
            return torch.sigmoid(self.log_odds)
        whole = AutoregressiveGates(self.log_odds, self.coupling)
        if len(self.log_odds) <= MOST_ENUMERABLE_UNITS:
            z = whole.enumerate_support()
            return whole.log_prob(z).exp() @ z
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return whole.conditional(whole.sample(torch.Size([DRAWS]))).probs.mean(0)

    def weight_means(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """E[w | z], zero behind closed gates.

        Args:
            gates: group → (size,).

        Returns:
            Tensor name → its shape.
        """
        if self.weights is not None:
            return self._split(self.weights(self.weight_mask(gates)).mean)
        return self._apart(
            {
                layer.names: of(*self.layer_mask(layer, gates)).mean
                for layer, of in zip(self.layers, self.by_layer, strict=True)
            }
        )


def _check(gated: GatedModel, layers: Sequence[Layer], gates: str, kind: str) -> None:
    problems = []
    if not isinstance(gated.likelihood.plain, Gaussian):
        problems.append(
            f"The likelihood is {type(gated.likelihood.plain).__name__}, and one Gaussian form of weights "
            "for all masks is right for bp.Gaussian alone. bp.posterior.integrate_weights(result, rows) "
            "weighs masks under others, each at its own mode (--inference svi_shrink, then bayesprune "
            "diagnose)."
        )
    if not bool(gated.alive.all()):
        problems.append(
            f"{int((~gated.alive).sum())} units were removed: build it from what gate() returned."
        )
    if gated.weights.masked:
        problems.append("NormalWeights(masked=True) takes closed weights out of the ELBO: use masked=False.")
    if gated.unit_noise:
        problems.append(f"unit_noise={gated.unit_noise} has no place in it: gate without.")
    weights, widest = sum(layer.rows * layer.width for layer in layers), max(layers, key=lambda of: of.width)
    if weights > MOST_WEIGHTS and kind != "rows":
        problems.append(
            f"{weights:,} weights are too many for a joint Gaussian: at most {MOST_WEIGHTS:,}. "
            "Take weights='rows', under which the outputs of a layer share a precision, or gated.guide."
        )
    if widest.width > MOST_WEIGHTS and kind == "rows":
        problems.append(
            f"An output of {widest.names[0]} reads {widest.width:,} numbers, too many for one Gaussian: at "
            f"most {MOST_WEIGHTS:,}. Use gated.guide."
        )
    if gates not in ("autoregressive", "independent"):
        problems.append(f"gates={gates!r} must be 'autoregressive' or 'independent'.")
    if kind not in ("joint", "rows", "paired"):
        problems.append(f"weights={kind!r} must be 'joint', 'rows' or 'paired'.")
    if problems:
        raise SettingsError("StructuredGuide cannot be used here:\n  " + "\n  ".join(problems))
