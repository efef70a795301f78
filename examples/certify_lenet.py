"""Prune LeNet-5 while it learns, then as far again as a certificate allows; write it down, and check it.

    python examples/certify_lenet.py [--data mnist] [--epochs 40] [--alpha 0.02] [--out certified_lenet5]

A tenth of the training rows is never trained on: it shows what each further cut costs. ``--data digits``
runs the same offline; its 143 rows can show no error below 2.9 % here, so that it wants a larger alpha.
"""

import argparse
from pathlib import Path

import torch

import bayesprune as bp
from bayesprune.certify import verify
from bayesprune.programs import load_model


def main():
    """Keep rows apart, fit, certify three paths, write the best one, verify it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--epochs", type=int, default=None, help="by default what the program asks for")
    parser.add_argument("--alpha", type=float, default=0.02, help="the error that is allowed on new rows")
    parser.add_argument("--delta", type=float, default=0.05, help="how often the guarantee may fail")
    parser.add_argument("--out", type=Path, default=Path("certified_lenet5"))
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data = bp.data.load(arguments.data, arguments.data_dir)
    order = torch.randperm(len(data.train))
    kept, rest = order[: len(order) // 10], order[len(order) // 10 :]
    calibration = data.train.x[kept], data.train.y[kept]
    train = bp.data.Split(data.train.x[rest], data.train.y[rest])

    program = load_model("lenet5")
    gated = program.model(train, data.classes, None)
    epochs = arguments.epochs or program.epochs_on(data.name)
    batch_size = program.batch_size_on(data.name)
    fit = bp.fit(gated, (train.x, train.y), epochs=epochs, batch_size=batch_size, recipe=program.recipe)
    small = bp.prune(fit)

    # Who asks three paths, and ships the best, has three chances to be wrong: each gets its share of delta.
    paths = ("magnitude", "magnitude-layers", "units")
    delta = arguments.delta / len(paths)
    found = [
        bp.certify(small, calibration, alpha=arguments.alpha, delta=delta, path=path, trained_on=train.x)
        for path in paths
    ]
    certified = [result for result in found if result]
    if not certified:
        print(found[0])
        return
    best = max(certified, key=lambda result: result.certificate.chosen["sparsity"])
    print(best)
    error = bp.evaluate(best.network, (data.test.x, data.test.y), gated.likelihood).score
    left = best.certificate.chosen["parameters_left"]
    print(f"dense {gated.dense_parameters:,} parameters, certified {left:,}; its test error is {error:.2f} %")

    bp.save(best.network, arguments.out, example=data.test.x[:1])
    best.certificate.write(arguments.out / "certificate.json")
    print(verify(arguments.out / "certificate.json", bp.load(arguments.out), calibration, reference=small))


if __name__ == "__main__":
    main()
