"""minibayesprune: the whole idea of bayesprune in one file, on plain PyTorch and Pyro.

    python examples/minibayesprune.py [--epochs 60] [--price 20]

An MLP prunes its inputs and hidden units while it learns. Unit i is multiplied by a gate z_i ~ Bern(π_i),
π_i has Guenter & Sideris's flattening hyper-prior (arXiv 2205.04650), and the posterior is q(z_i = 1) = θ_i:

    −ELBO = N · E_q[mean negative log-likelihood of a row] + Σ_i θ_i · log γ + weights' prior + constant

since min over π of { KL(θ ‖ π) − log p(π | γ) } = θ · log γ + constant: a unit stays if it saves more nats
than its price log γ. Gates go to 0 or 1; units at 0 are removed on the way, and a small network is left.
What the library has beside: any architecture, budgets, other priors, diagnostics, certificates, checkpoints.
"""

import argparse
import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import nn

import bayesprune as bp  # for the digits alone

WEIGHT_SCALE = 0.5  # standard deviation of the weights' prior
BOUND = 8.0  # log-odds of gates stay within ± this
REMOVE_BELOW, LOOK_EVERY = 0.01, 50
WARM_UP, RAMP, DECIDE = 0.02, 0.35, 0.7  # shares of the training


class HardDraw(torch.autograd.Function):
    """Forward z ~ Bernoulli(θ), backward dz/dθ = 1: the straight-through estimator (arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx, theta):
        """z."""
        return torch.bernoulli(theta)

    @staticmethod
    def backward(ctx, slope):
        """As of θ."""
        return slope


class Gates(dist.Bernoulli):
    """A guide's gates: hard draws that pass on slopes, and Bernoullis, so that Pyro knows their KL."""

    has_rsample = True

    def rsample(self, sample_shape=()):
        """Hard draws."""
        return HardDraw.apply(self.probs.expand(self._extended_shape(torch.Size(sample_shape))))


class GatedMLP(nn.Module):
    """Linear layers with ReLUs between; a gate on every input of every layer.

    Args:
        widths: (inputs, hidden, ..., classes).
        price: log γ, nats of the training set's log-likelihood that a unit has to save; or one a layer.
        rows: N, of the training set: evidence is that of all rows, never of a batch.
    """

    def __init__(self, widths, price, rows):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.prices = price if isinstance(price, list | tuple) else [price] * len(self.layers)
        self.theta = nn.ParameterList(torch.full((width,), 0.5) for width in widths[:-1])
        self.velocity = [torch.zeros(width) for width in widths[:-1]]
        self.kept = [torch.arange(width) for width in widths[:-1]]  # original numbers of those that are left
        self.rows = rows

    def forward(self, x, gates=None):
        """(B, inputs that are left) → (B, classes); without gates all are open."""
        for number, layer in enumerate(self.layers):
            x = x if number == 0 else x.relu()
            x = layer(x if gates is None else x * gates[number])  # at the reader: a zero is never seen
        return x

    def model(self, x, y, prior_weight=1.0):
        """The joint density p(y, z, w) as a Pyro program, π at its optimum given θ."""
        gates = []
        for number, (theta, price) in enumerate(zip(self.theta, self.prices, strict=True)):
            gamma = math.exp(price)
            pi = (theta / (gamma - (gamma - 1) * theta)).detach()  # at an optimum: slopes through it are zero
            with poutine.scale(scale=prior_weight):
                density = math.log((gamma - 1) / price) - torch.log1p((gamma - 1) * pi)
                pyro.factor(f"flattening/{number}", density.sum())
            with poutine.scale(scale=prior_weight / len(x)):  # every row draws anew, of one and the same gate
                prior = dist.Bernoulli(pi).expand([len(x), len(pi)]).to_event(2)
                gates.append(pyro.sample(f"gate/{number}", prior))
        for name, weight in self.layers.named_parameters():  # points: scored by their prior, not drawn
            pyro.sample(name, dist.Normal(0.0, WEIGHT_SCALE).expand(weight.shape).to_event(), obs=weight)
        with poutine.scale(scale=self.rows / len(x)):
            pyro.sample("y", dist.Categorical(logits=self(x, gates)).to_event(1), obs=y)

    def guide(self, x, y, prior_weight=1.0):
        """The posterior q(z) = Π Bernoulli(θ_i), drawn for every row."""
        for number, theta in enumerate(self.theta):
            with poutine.scale(scale=prior_weight / len(x)):
                pyro.sample(f"gate/{number}", Gates(theta).expand([len(x), len(theta)]).to_event(2))

    @torch.no_grad()
    def mirror_step_(self, rate, momentum):
        """logit θ ← logit θ − rate · ∂(−ELBO)/∂θ / price: for a Bernoulli that is the natural gradient."""
        for theta, velocity, price in zip(self.theta, self.velocity, self.prices, strict=True):
            velocity.mul_(momentum).add_((1 - momentum) * self.rows * theta.grad)  # nats of all rows
            change = (rate * velocity / price).clamp(-4 * rate, 4 * rate)
            theta.copy_((theta.logit() - change).clamp(-BOUND, BOUND).sigmoid())

    @torch.no_grad()
    def remove_(self, number, keep, optimiser):
        """Leave some inputs of a layer: its columns, the rows that make them, and Adam's moments of both."""

        def cut_(parameter, at):
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in optimiser.state:
                    optimiser.state[parameter][moment] = optimiser.state[parameter][moment][at]
            parameter.grad, parameter.data = None, parameter.data[at]

        keep[self.theta[number].argmax()] = True  # a layer without units is none
        cut_(self.layers[number].weight, (slice(None), keep))
        if number:
            cut_(self.layers[number - 1].weight, keep)
            cut_(self.layers[number - 1].bias, keep)
        self.theta[number].data = self.theta[number].data[keep]
        self.velocity[number], self.kept[number] = self.velocity[number][keep], self.kept[number][keep]
        for layer in self.layers:
            layer.out_features, layer.in_features = layer.weight.shape


def train(gated, x, y, epochs, batch=32, seed=0):
    """Learn weights and gates together on x (N, inputs) and y (N,), and remove what dies.

    Returns:
        ``nn.Sequential`` on the inputs ``gated.kept[0]``, in float32, without a gate.
    """
    torch.manual_seed(seed)
    steps, step, decided = epochs * math.ceil(len(x) / batch), 0, False
    learning_rate, gate_rate, momentum = min(1e-2, 11 / steps), 468 / steps, max(0.0, 1 - 94 / steps)
    optimiser = torch.optim.Adam(gated.layers.parameters(), lr=learning_rate)
    loss = TraceMeanField_ELBO().differentiable_loss
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            if not decided and step >= DECIDE * steps:
                decided = True
                for number in range(len(gated.layers)):
                    gated.remove_(number, gated.theta[number] > 0.5, optimiser)
            inputs = x[rows][:, gated.kept[0]]
            if decided:  # the compact part: what is left learns on, with its prior
                done = (step / steps - DECIDE) / (1 - DECIDE)
                optimiser.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * done))
                squares = sum(weight.square().sum() for weight in gated.layers.parameters())
                nll = nn.functional.cross_entropy(gated(inputs), y[rows])
                objective = nll + squares / (2 * WEIGHT_SCALE**2 * len(x))
            else:
                weight = min(1.0, max(1e-9, (step / steps - WARM_UP) / RAMP))
                objective = loss(gated.model, gated.guide, inputs, y[rows], prior_weight=weight) / len(x)
            objective.backward()
            del objective  # its graph remembers shapes that a removal changes
            optimiser.step()
            if not decided and step >= WARM_UP * steps:
                gated.mirror_step_(gate_rate, momentum)
            gated.zero_grad()
            for number, theta in enumerate(gated.theta if step % LOOK_EVERY == 0 else []):
                gated.remove_(number, theta >= REMOVE_BELOW, optimiser)
            step += 1
    modules = [module for layer in gated.layers for module in (nn.ReLU(), layer)]
    return nn.Sequential(*modules[1:])


def main():
    """Prune 784-100-10 on the digits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--price", type=float, nargs=2, default=(2.0, 20.0), help="inputs', hidden units'")
    arguments = parser.parse_args()
    digits = bp.data.load("digits")
    x, y = digits.train.x.flatten(1), digits.train.y  # (1437, 784), (1437,)
    torch.manual_seed(0)
    gated = GatedMLP((784, 100, 10), arguments.price, rows=len(x))
    small = train(gated, x, y, arguments.epochs)
    guess = small(digits.test.x.flatten(1)[:, gated.kept[0]]).argmax(1)
    error = 100 * (guess != digits.test.y).double().mean()
    print(small)
    left = sum(weight.numel() for weight in small.parameters())
    print(f"{left:,} of 79,510 parameters, test error {error:.2f} %")


if __name__ == "__main__":
    main()
