"""LeaveOneOutELBO: Pyro's ELBO for gates too many to enumerate, each draw judged against the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from bayesprune.errors import SettingsError


class LeaveOneOutELBO(ELBO):
    r"""An ELBO over several draws at once, whose score gradient has the other draws as its baseline.

    With f_s = log p(y, z_s, w_s) - log q(z_s, w_s) of draw s, the gradient is that of

    .. math:: \frac1S \sum_s \Big[ f_s + \log q(z_s)\,
              \operatorname{stop}\Big( f_s - \frac{1}{S-1} \sum_{r \neq s} f_r \Big) \Big]

    It is unbiased, for the baseline of a draw does not depend on it (Kool, van Hoof & Welling, "Buy 4
    REINFORCE Samples, Get a Baseline for Free!", 2019). Only sites whose draws carry no gradient are scored.

    Args:
        draws: S, at least 2, in one vectorised call of guide and model.
        max_plate_nesting: plates of the model, 1 for a gated model (its rows).

    Raises:
        SettingsError: fewer than 2 draws.

    Example:
        >>> import torch, pyro, bayesprune as bp
        >>> prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.3))
        >>> x, y = torch.randn(50, 20), torch.randn(50)
        >>> network = torch.nn.Sequential(torch.nn.Linear(20, 1))
        >>> gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=50))
        >>> guide, elbo = bp.svi.guides.StructuredGuide(gated), bp.svi.guides.LeaveOneOutELBO(draws=8)
        >>> svi = pyro.infer.SVI(gated.model, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
        >>> svi.step(x, y) > 0
        True
    """

    def __init__(self, draws: int = 16, max_plate_nesting: int = 1) -> None:
        if draws < 2:
            raise SettingsError(f"LeaveOneOutELBO needs at least 2 draws, and got draws={draws}.")
        settings = {"num_particles": draws, "max_plate_nesting": max_plate_nesting}
        super().__init__(**settings, vectorize_particles=True)  # type: ignore[no-untyped-call]

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the ELBO, nats: scalar, with the gradient above.

        Args:
            model: a Pyro model; every site outside of its own plates.
            guide: its guide.
            args: of both.
            kwargs: of both.
        """
        total, score = self._draw(model, guide, args, kwargs)
        value = total.detach()
        baseline = (value.sum() - value) / (self.num_particles - 1)
        surrogate = score * (value - baseline)
        loss: Tensor = -(total + surrogate - surrogate.detach()).mean()
        return loss

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Minus the ELBO, nats, without gradient."""
        with torch.no_grad():
            return -float(self._draw(model, guide, args, kwargs)[0].mean())

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Minus the ELBO, nats; gradients are added to the parameters. What ``pyro.infer.SVI`` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Traces of model and guide under the same draws, scored. The plate's scale is 1: draws are draws."""
        dim = -1 - self.max_plate_nesting

        def several(program: Any) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                with pyro.plate("draws", self.num_particles, dim=dim):
                    return program(*args, **kwargs)

            return run

        guide_trace = poutine.trace(several(guide)).get_trace(*args, **kwargs)
        replayed = poutine.replay(several(model), trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        return model_trace, guide_trace

    def _draw(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
        """(draws,) log p - log q, and (draws,) log q of the sites without a gradient of their own."""
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        total = score = torch.zeros(())
        for sign, trace in ((1, model_trace), (-1, guide_trace)):
            for name, site in trace.nodes.items():
                if site["type"] == "sample" and name != "draws":
                    nats = self._of_each_draw(site["log_prob"])
                    total = total + sign * nats
                    if sign < 0 and not site["fn"].has_rsample:
                        score = score + nats
        return total, score.expand_as(total)

    def _of_each_draw(self, log_prob: Tensor) -> Tensor | float:
        """(draws,), summed over the model's own plates; plates score the number zero."""
        if not isinstance(log_prob, Tensor) or log_prob.ndim <= self.max_plate_nesting:
            if isinstance(log_prob, Tensor) and bool((log_prob != 0).any()):
                raise SettingsError(f"A site has log-density of shape {tuple(log_prob.shape)}: none a draw.")
            return 0.0
        return log_prob.flatten(log_prob.ndim - self.max_plate_nesting).sum(-1).reshape(self.num_particles)
