"""Watch the gates decide: a fit on scikit-learn's digits, its history as a table, its gates as a plot.

    python examples/posterior_diagnostics.py [--epochs 60] [--out gates.png]

A row of the plot is a unit, a column an epoch, the colour its inclusion probability. Look for three things:
units die during the whole selection and not all at once; few are between 0 and 1 when the gates are decided
(``undecided`` in the table); and what is kept goes on being kept.
"""

import argparse

import torch
from torch import nn

import bayesprune as bp
from bayesprune.posterior.plots import describe_history, plot_gates, save_figure


def main():
    """Fit, print the history, plot the gates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", default="gates.png")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    gated = bp.gate(
        network,
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening({"input": 1.0, "*": 4.0})),
        likelihood=bp.Categorical(rows=len(x)),
    )
    result = bp.fit(gated, (x, y), epochs=arguments.epochs, batch_size=32)

    step = max(1, arguments.epochs // 12)
    print(describe_history(result.history[::step] + result.history[-1:]))
    print(f"{result.rounded} gates were put at the nearer vertex undecided; {result.undecided} are so now.")
    save_figure(plot_gates(result), arguments.out)
    print(f"The plot is in {arguments.out}.")


if __name__ == "__main__":
    main()
