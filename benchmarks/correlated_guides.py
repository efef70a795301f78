"""What a guide that holds correlation between gates is worth, and what its step costs.

    python benchmarks/correlated_guides.py [--seeds 3] [--rounds 12]

*exact*: eight gated inputs of pairwise correlation 0.3, weights held fixed, five priors; the fitted posterior
beside all 256 masks. *held-out*: forty inputs whose mask is drawn from a Markov chain, sixty rows; masks by
the default estimator, then the log-likelihood of 500 other rows under the mean over 1,000 masks. *step*: a
layer of 1,000 gates, and LeNet-300-100's 1,184; contenders take turns within one process, and the ratio to
independent gates is that of the same round, by processor time.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from reporting import write_results

import bayesprune as bp
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.estimators import all_configurations

UNITS, ROWS, NOISE = 8, 60, 2.0
NODES, SHARES = map(torch.tensor, np.polynomial.hermite_e.hermegauss(20))


class Density(dist.TorchDistribution):
    """Gates by their log-density, known up to a constant."""

    arg_constraints: ClassVar = {}
    support = dist.constraints.independent(dist.constraints.boolean, 1)

    def __init__(self, units: int, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density = log_density
        super().__init__(torch.Size(), torch.Size([units]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_density(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Density":
        return self


def chain(group: bp.Group) -> bp.priors.LinkedGates:
    alike = torch.full((1, group.size), 0.7)
    return bp.priors.LinkedGates(torch.full((group.size,), 0.3), alike, (1,))


def ising(group: bp.Group) -> Density:
    def log_density(z: Tensor) -> Tensor:
        image = z.unflatten(-1, (2, 4))
        across, down = image[..., 1:] * image[..., :-1], image[..., 1:, :] * image[..., :-1, :]
        return 1.2 * (across.sum((-1, -2)) + down.sum((-1, -2))) - 1.8 * z.sum(-1)

    return Density(group.size, log_density)


def normal_log_odds(group: bp.Group) -> bp.priors.Gates:
    which = pyro.sample("factor", dist.Categorical(SHARES / SHARES.sum()))
    return bp.priors.Gates(logits=(2.0 * NODES[which] - 1.0).expand(group.size))


def stick_breaking(group: bp.Group) -> Density:
    width, cells = 0.1, 60
    steps = torch.arange(cells) - torch.arange(cells)[:, None]
    broken = torch.where(steps >= 0, torch.exp(-3.0 * width * steps), 0.0)
    broken = broken / broken.sum(-1, keepdim=True)
    rate = torch.exp(-width * (torch.arange(cells) + 0.5))

    def log_density(z: Tensor) -> Tensor:
        at, total = torch.eye(cells)[0], torch.zeros(())
        for k in range(z.shape[-1]):
            seen = (at @ broken) * torch.where(z[..., k, None] > 0, rate, 1 - rate)
            total, at = total + seen.sum(-1).log(), seen / seen.sum(-1, keepdim=True)
        return total

    return Density(group.size, log_density)


def about_three(group: bp.Group) -> Density:
    k = torch.arange(group.size + 1.0)
    masks = math.lgamma(group.size + 1) - torch.lgamma(k + 1) - torch.lgamma(group.size - k + 1)
    score = -((k - 3) ** 2) - masks
    return Density(group.size, lambda z: score[z.sum(-1).long()])


PRIORS: dict[str, tuple[Any, bp.Autoregressive]] = {
    "Markov chain": (chain, bp.Autoregressive(lags=(1, 2))),
    "Ising 2 x 4": (ising, bp.Autoregressive(lags=(1, 4))),
    "normal log-odds": (normal_log_odds, bp.Autoregressive(lags=(1, 2), rank=1)),
    "stick-breaking": (stick_breaking, bp.Autoregressive(lags=(1, 2, 3))),
    "about three": (about_three, bp.Autoregressive(lags=(1, 2, 3, 4))),
}


def learnt(
    prior: Any, guide: Any, x: Tensor, y: Tensor, weight: Tensor, recipe: Recipe, steps: int
) -> bp.GatedModel:
    """Gates by the engine's steps; weights stand still."""
    network = nn.Sequential(nn.Linear(x.shape[1], 1, bias=False))
    network[0].weight.data.copy_(weight)
    likelihood = bp.Gaussian(rows=len(x), scale=NOISE, learn_scale=False)
    gated = bp.gate(
        network, x[:1], prior=prior, likelihood=likelihood, initial_inclusion=0.5, guide=guide, inputs=True
    )
    still = torch.optim.SGD(gated.network.parameters(), lr=0.0)
    engine = Engine(gated, recipe, seed=0, optimizer=still)
    state = engine.init()
    for _ in range(steps):
        state, _ = engine.step(state, (x, y))
    return gated


def moments(log_prob: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    p = log_prob.exp()
    mean = p @ z
    covariance = (z * p.unsqueeze(1)).T @ z - torch.outer(mean, mean)
    scale = covariance.diagonal().sqrt()
    return mean, covariance / torch.outer(scale, scale)


def exact(prior: Any, guide: Any, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    factor = torch.linalg.cholesky(0.7 * torch.eye(UNITS) + 0.3)
    x, weight = torch.randn(ROWS, UNITS) @ factor.T, torch.full((UNITS,), 0.4)
    there = chain(bp.Group("input", UNITS)).sample()
    y = x @ (weight * there) + NOISE * torch.randn(ROWS)
    gates = GateSteps(learning_rate=0.05, momentum=0.9, clip=0.25, every=1, bound=12.0)
    gated = learnt(prior, guide, x, y, weight, Recipe(estimator="enumeration", gates=gates), 300)
    z = all_configurations(UNITS).to(x)
    with torch.no_grad():
        nll = gated.likelihood.nll(gated.outputs(x, {"input": z.unsqueeze(1)}), y).sum(-1)
        log_p = (gated.gate_priors().log_prob({"input": z}) - nll).log_softmax(0)
        log_q = gated.gate_guide("input").log_prob(z)
    (mean_p, corr_p), (mean_q, corr_q) = moments(log_p, z), moments(log_q, z)
    return {
        "kl": float((log_q.exp() * (log_q - log_p)).sum()),
        "total_variation": float((log_q.exp() - log_p.exp()).abs().sum() / 2),
        "inclusion_error": float((mean_p - mean_q).abs().mean()),
        "correlation_error": float((corr_p - corr_q).abs().max()),
    }


def held_out(guide: Any, seed: int) -> dict[str, float]:
    """Nats a row of 500 further rows; and nats of twenty of them together, which correlation matters to."""
    torch.manual_seed(seed)
    units = 40
    x, weight = torch.randn(ROWS + 500, units), torch.full((units,), 0.5)
    there = chain(bp.Group("input", units)).sample()
    y = x @ (weight * there) + NOISE * torch.randn(len(x))
    gates = GateSteps(learning_rate=0.03, momentum=0.9, clip=0.2, every=1)
    recipe = Recipe(estimator="second_order", gates=gates)
    gated = learnt(chain, guide, x[:ROWS], y[:ROWS], weight, recipe, 800)
    masks = gated.draw_gates(1000, torch.Generator().manual_seed(seed)).to(x)
    means = (masks * weight) @ x[ROWS:].T  # (draws, 500)
    scores = torch.distributions.Normal(means, NOISE).log_prob(y[ROWS:])
    log_draws = math.log(len(masks))
    together = torch.logsumexp(scores.unflatten(1, (25, 20)).sum(-1), 0) - log_draws
    theta = gated.inclusion_prob().detach()
    return {
        "nats_a_row": float((torch.logsumexp(scores, 0) - log_draws).mean()),
        "nats_of_twenty_rows": float(together.mean()),
        "brier_of_gates": float((theta - there).square().mean()),
    }


def costs(rounds: int, steps: int = 10) -> dict[str, dict[str, float]]:
    def layer() -> nn.Module:
        return nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))

    def lenet() -> nn.Module:
        return nn.Sequential(
            nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
        )

    guides = {
        "independent": None,
        "lags 1": bp.Autoregressive(lags=(1,)),
        "lags 1, 28": bp.Autoregressive(lags=(1, 28)),
        "lags 1, rank 1": bp.Autoregressive(lags=(1,), rank=1),
    }
    found = {}
    for place, network, inputs in (("1,000 gates", layer, False), ("lenet_300_100", lenet, None)):
        contenders = {name: _stepping(network(), guide, inputs) for name, guide in guides.items()}
        times: dict[str, list[float]] = {name: [] for name in guides}
        for number in range(rounds + 1):
            for name, step in contenders.items():
                start = time.process_time()
                for _ in range(steps):
                    step()
                if number:  # the first round warms up
                    times[name].append((time.process_time() - start) / steps)
        alone = times["independent"]
        for name, seconds in times.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, alone, strict=True))
            found[f"{place}, {name}"] = {
                "milliseconds": 1e3 * statistics.median(seconds), "of_independent": ratio,
            }  # fmt: skip
    return found


def _stepping(network: nn.Module, guide: Any, inputs: bool | None) -> Callable[[], None]:
    gated = bp.gate(
        network, torch.zeros(1, 784), prior=chain, likelihood=bp.Categorical(rows=60_000), guide=guide,
        initial_inclusion=0.5, inputs=inputs,
    )  # fmt: skip
    for name in gated.guides:
        links = gated.links_of(name)
        assert links is not None
        links.coupling.data.fill_(0.4)
    still = replace(bp.Recipe(), warmup=0.0, ramp=0.0, decide=1.0, shrink=bp.Shrink(every=10**9))
    training = bp.Training(gated, steps=18_720, recipe=still)
    training.within_fit_()
    gated.train()
    x, y = torch.randn(128, 784), torch.randint(10, (128,))
    return lambda: training.step_on_([(x, y)])


def summary(found: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation over seeds."""
    columns = {key: [each[key] for each in found] for key in found[0]}
    return {k: [statistics.mean(v), statistics.stdev(v) if len(v) > 1 else 0.0] for k, v in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "correlated_guides.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"exact": {}, "held_out": {}, "step": costs(arguments.rounds)}
    for name, row in results["step"].items():
        print(f"{name:32}{row['milliseconds']:8.2f} ms{row['of_independent']:8.2f}", flush=True)
    seeds = range(arguments.seeds)
    for held in (None, bp.Autoregressive(lags=(1,))):
        kind = "linked" if held else "independent"
        row = results["held_out"][kind] = summary([held_out(held, seed) for seed in seeds])
        print(f"held out, {kind:12}", {k: [round(n, 3) for n in v] for k, v in row.items()}, flush=True)
    torch.set_default_dtype(torch.double)
    for name, (prior, guide) in PRIORS.items():
        for held in (None, guide):
            kind = f"{name}, {'linked' if held else 'independent'}"
            row = results["exact"][kind] = summary([exact(prior, held, seed) for seed in seeds])
            print(f"{kind:30}", {k: [round(n, 3) for n in v] for k, v in row.items()}, flush=True)
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
