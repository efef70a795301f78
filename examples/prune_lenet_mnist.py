"""Prune LeNet-5-Caffe on MNIST by script, step by step, and keep the small network.

    python examples/prune_lenet_mnist.py [--data mnist] [--epochs 30] [--out small_lenet5]

``--data digits`` runs the same offline on scikit-learn's small digits.
"""

import argparse

import torch

import bayesprune as bp
from bayesprune.programs import load_model


def main():
    """Gate, fit, prune, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--epochs", type=int, default=None, help="by default what the program asks for")
    parser.add_argument("--out", default="small_lenet5")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data = bp.data.load(arguments.data, arguments.data_dir)
    program = load_model("lenet5")  # the file models/lenet5.py; write gate(...) yourself for your own network
    gated = program.model(data.train, data.classes, None)
    for group in gated.groups:
        cost = f"{group.parameters:,} parameters and {group.macs:,} MACs a row"
        print(f"{group.name:8} {group.size:4} units, each {cost}")

    result = bp.fit(
        gated,
        (data.train.x, data.train.y),
        epochs=arguments.epochs or program.epochs_on(data.name),
        batch_size=program.batch_size_on(data.name),
        recipe=program.recipe,
    )
    small = bp.prune(result)  # plain nn.Sequential
    before = bp.Cost(gated.dense_parameters, gated.dense_macs)
    after = bp.count(small, data.test.x[:1])
    error = bp.evaluate(small, (data.test.x, data.test.y), bp.Categorical(rows=len(data.train.x))).score
    bp.save(small, arguments.out, example=data.test.x[:1])
    print(small)
    print(f"test error {error:.2f} %")
    print(f"parameters {before.parameters:,} → {after.parameters:,}, MACs {before.macs:,} → {after.macs:,}")
    print(f"saved in {arguments.out}/")


if __name__ == "__main__":
    main()
