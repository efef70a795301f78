"""How sparse can a segmentation network be certified to be? A graded loss, 1 - Dice or 1 - IoU of each image.

    python benchmarks/confident_segmentation.py [--seeds 5] [--epochs 25]

The second experiment of Alvarez (2024), Confident magnitude-based neural network pruning, arXiv 2408.04759,
is polyp segmentation; here a small U-Net finds disks among rectangles in noise, on images of 16 x 16 that are
drawn here. 400 images to learn from, 500 that calibrate, 500 that only report. Paths, none of which sees a
calibration image:

- weights of the dense network, smallest first, over all layers, or the same share of each;
- units of the dense network, by the norm of their weights;
- what ``bayesprune.fit`` leaves at the lowest price, then weights;
- refits by price: the dense network, then what a fit of its own leaves at each of rising prices.

No network is fine-tuned after a cut. For every alpha the fixed sequence certifies as ``bp.certify`` does.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from reporting import write_results
from torch import nn

import bayesprune as bp
from bayesprune.certify.losses import OwnLoss
from bayesprune.certify.paths import Networks, Units, Weights, numbers_left, parameters_of
from bayesprune.certify.pvalues import Betting, HoeffdingBentkus
from bayesprune.certify.rules import FixedSequence, MultiStart
from bayesprune.certify.scoring import outputs_of

SIDE, TRAIN, CALIBRATION, TEST = 16, 400, 500, 500
PRICES = (4.0, 36.0, 300.0, 1500.0)
"""Nats a unit of the fits."""
ALPHAS = (0.28, 0.3, 0.33, 0.36, 0.4, 0.45, 0.5)
DELTA = 0.05
SHARES = tuple(round(1 - 0.04 ** (step / 13), 4) for step in range(14))
UNIT_SHARES = tuple(1 - step / 10 for step in range(9))
RECIPE = bp.Recipe(learning_rate=3e-3, compact_learning_rate=3e-3, moves=None, compact_weights="points")


class UNet(nn.Module):
    """Three levels, with what was seen on the way down."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = conv(1, 8), conv(8, 12), conv(12, 16)
        self.up2, self.up1, self.head = conv(28, 12), conv(20, 8), nn.Conv2d(8, 1, 1)
        self.grow = nn.Upsample(scale_factor=2)

    def forward(self, x):  # (B, 1, 16, 16)
        first = F.relu(self.down1(x))
        second = F.relu(self.down2(F.max_pool2d(first, 2)))
        lowest = F.relu(self.bottom(F.max_pool2d(second, 2)))  # (B, 16, 4, 4)
        x = F.relu(self.up2(torch.cat([self.grow(lowest), second], 1)))
        x = F.relu(self.up1(torch.cat([self.grow(x), first], 1)))
        return self.head(x).flatten(1)  # (B, 256), log-odds


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def images(count, generator):
    """(count, 1, 16, 16) images and (count, 256) masks of their disks, at least one in each."""
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")

    def places(least, most):
        return least + (most - least) * torch.rand(count, 1, 1, generator=generator)

    mask, other = torch.zeros(count, SIDE, SIDE, dtype=torch.bool), torch.zeros(count, SIDE, SIDE)
    for number in range(2):
        there = torch.ones(count, 1, 1) if number == 0 else torch.rand(count, 1, 1, generator=generator) < 0.5
        away = (row - places(3, 13)) ** 2 + (column - places(3, 13)) ** 2
        mask |= (away < places(2, 4) ** 2) & (there > 0)
        inside = ((row - places(3, 13)).abs() < places(1, 3)) & (
            (column - places(3, 13)).abs() < places(1, 3)
        )
        other = torch.maximum(other, inside.float())
    x = torch.maximum(mask.float(), 0.9 * other) + 0.4 * torch.randn(count, SIDE, SIDE, generator=generator)
    return x.unsqueeze(1), mask.flatten(1).float()


def dice(outputs, targets):
    """(B,), 1 - Dice of the pixels whose log-odds are above 0."""
    found = (outputs > 0).float()
    return 1 - 2 * (found * targets).sum(1) / (found.sum(1) + targets.sum(1))


def iou(outputs, targets):
    """(B,), 1 - intersection over union."""
    found = (outputs > 0).float()
    both = (found * targets).sum(1)
    return 1 - both / (found.sum(1) + targets.sum(1) - both)


LOSSES = {"1 - Dice": OwnLoss(dice, "1 - Dice"), "1 - IoU": OwnLoss(iou, "1 - IoU")}
TESTS = {"betting": Betting(DELTA), "hoeffding-bentkus": HoeffdingBentkus()}
RULES = {"fixed-sequence": FixedSequence(), "multi-start": MultiStart(3)}


def dense_network(train, epochs, seed):
    torch.manual_seed(seed)
    network, (x, y) = UNet(), train
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=epochs * -(-len(x) // 32))
    for _ in range(epochs):
        for some in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(network(x[some]), y[some]).backward()
            optimiser.step()
            scheduler.step()
    return network.eval()


def fitted(train, price, epochs, seed):
    """What a fit of its own leaves at a price."""
    torch.manual_seed(seed)
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
    gated = bp.gate(UNet(), train[0][:1], prior=prior, likelihood=bp.Bernoulli(rows=TRAIN))
    result = bp.fit(gated, train, epochs=epochs, batch_size=32, recipe=RECIPE, seed=seed, progress=False)
    return bp.prune(result).eval()


def paths_of(dense, fits):
    """name → (reference, path)."""
    return {
        "weights, all layers": (dense, Weights("global", SHARES)),
        "weights, layer by layer": (dense, Weights("layer", SHARES)),
        "units by norm": (dense, Units(shares=UNIT_SHARES)),
        "fit, then weights": (fits[0], Weights("global", SHARES)),
        "refits by price": (dense, Networks([dense, *fits])),
    }


def one_seed(seed, epochs):
    """path → its candidates: parameters left, losses on calibration images, risks on test images."""
    generator = torch.Generator().manual_seed(1000 + seed)
    train, held_out, test = (images(count, generator) for count in (TRAIN, CALIBRATION, TEST))
    dense = dense_network(train, epochs, seed)
    fits = [fitted(train, price, epochs, seed) for price in PRICES]
    found = {}
    for name, (network, path) in paths_of(dense, fits).items():
        table = []
        for candidate in path.candidates(network, held_out[0][:2]):
            pruned = candidate.build()
            outputs, tested = (outputs_of(pruned, rows[0], 500, candidate.name) for rows in (held_out, test))
            table.append(
                {
                    "name": candidate.name,
                    "left": 100 * numbers_left(pruned) / parameters_of(dense),
                    "losses": {
                        n: loss.values(outputs, outputs, held_out[1]).double().numpy()
                        for n, loss in LOSSES.items()
                    },
                    "test": {
                        n: float(loss.values(tested, tested, test[1]).mean()) for n, loss in LOSSES.items()
                    },
                }
            )
        found[name] = table
        print(f"seed {seed}, {name}: {len(table)} candidates", flush=True)
    return found


def certified(table, loss, alpha, p_value, rule):
    """The sparsest certified entry, or None."""
    p = np.array([float(p_value(entry["losses"][loss], alpha)) for entry in table])
    if len(table) < 3:
        rule = FixedSequence()
    passed = rule.certified(p, np.arange(len(table)), DELTA)
    fine = [entry for entry, passes in zip(table, passed, strict=True) if passes]
    return min(fine, key=lambda entry: entry["left"], default=None)


def summarise(by_seed):
    """Means over the seeds that certified something, and how many did not."""
    rows = []
    for name in by_seed[0]:
        for loss in LOSSES:
            for test, p_value in TESTS.items():
                for rule_name, rule in RULES.items():
                    for alpha in ALPHAS:
                        got = [certified(found[name], loss, alpha, p_value, rule) for found in by_seed]
                        some = [entry for entry in got if entry is not None]
                        row = {
                            "path": name,
                            "loss": loss,
                            "p_value": test,
                            "rule": rule_name,
                            "alpha": alpha,
                            "none": len(got) - len(some),
                        }
                        if some:
                            left = [entry["left"] for entry in some]
                            risks = [entry["test"][loss] for entry in some]
                            row["parameters_left_percent"] = statistics.mean(left)
                            row["parameters_left_sd"] = statistics.stdev(left) if len(left) > 1 else 0.0
                            row["test_risk"] = statistics.mean(risks)
                            row["test_risk_above_alpha"] = sum(risk > alpha for risk in risks)
                        rows.append(row)
    return rows


def candidates_of(by_seed):
    """Every candidate of the short paths: what it keeps, and its risks on test images."""
    return [
        {"seed": seed, "path": name, "name": entry["name"], "left": entry["left"], "test": entry["test"]}
        for seed, found in enumerate(by_seed)
        for name in ("refits by price",)
        for entry in found[name]
    ]


def show(rows):
    for loss in LOSSES:
        for test in TESTS:
            print(f"\nParameters left % (test risk %; seeds without), {loss}, {test}, fixed sequence")
            print(f"{'alpha %':<26}" + "".join(f"{100 * alpha:>17.0f}" for alpha in ALPHAS))
            for name in dict.fromkeys(row["path"] for row in rows):
                asked = (name, loss, test, "fixed-sequence")
                mine = [r for r in rows if (r["path"], r["loss"], r["p_value"], r["rule"]) == asked]
                cells = [
                    f"{r['parameters_left_percent']:.1f} ({100 * r['test_risk']:.1f}; {r['none']})"
                    if "test_risk" in r
                    else "none"
                    for r in mine
                ]
                print(f"{name:<26}" + "".join(f"{cell:>17}" for cell in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=25)
    out = Path(__file__).parent / "results" / "confident_segmentation.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    started = time.process_time()
    by_seed = [one_seed(seed, arguments.epochs) for seed in range(arguments.seeds)]
    rows = summarise(by_seed)
    show(rows)
    found = {
        "processor_seconds": round(time.process_time() - started, 1),
        "delta": DELTA,
        "prices": PRICES,
        "refits": candidates_of(by_seed),
        "table": rows,
    }
    write_results(arguments.out, vars(arguments), found)


if __name__ == "__main__":
    main()
