"""Lightning Fabric: it starts processes, places and deals batches; Training takes losses and steps.

    python examples/frameworks/with_fabric.py [--epochs 20] [--devices 2]

``fabric.setup`` would wrap the model in DistributedDataParallel, whose buckets keep the sizes that weights
had before removals. So it is not called: the loader is set up, and ``bp.Training`` is given the model itself.
"""

import argparse

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp

BATCH_SIZE = 32  # of each process


def main():
    """Gate, learn together, finish on every process, print on the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--devices", type=int, default=2)
    arguments = parser.parse_args()
    fabric = Fabric(accelerator="auto", devices=arguments.devices, strategy="ddp")
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=True)
    loader = fabric.setup_dataloaders(loader)  # now with a DistributedSampler

    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    gated = bp.gate(network, x[:2], prior=bp.Budget(params=0.1), likelihood=bp.Categorical(rows=len(x)))
    gated = fabric.to_device(gated)
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3, weight_decay=0)
    training = bp.Training(gated, optimizer=optimizer, steps=len(loader) * arguments.epochs)
    for epoch in range(arguments.epochs):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            with fabric.autocast():
                loss = training.loss(batch)
            loss.backward()
            training.step()
    small = training.finish()

    quality = bp.evaluate(small, (digits.test.x, digits.test.y), gated.likelihood)
    fabric.print(f"{quality.score:.2f} % error with {bp.count(small, x[:1]).parameters:,} parameters")


if __name__ == "__main__":
    main()
