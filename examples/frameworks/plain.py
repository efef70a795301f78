"""Several processes in a loop of one's own: what DistributedDataParallel does, without its wrapper.

    torchrun --nproc-per-node 2 examples/frameworks/plain.py [--epochs 20]

DistributedDataParallel keeps gradients in buckets of the sizes that weights had when it was made, and here
weights lose rows on the way. So the model is given itself, and ``training.step`` averages over processes.
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import bayesprune as bp

BATCH_SIZE = 32  # of each process


def main():
    """Gate, learn together, finish on every process, print on the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)
    dataset = TensorDataset(x, y)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, sampler=sampler)

    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    gated = bp.gate(network, x[:2], prior=bp.Budget(params=0.1), likelihood=bp.Categorical(rows=len(x)))
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=len(loader) * epochs)
    training = bp.Training(gated, optimizer=optimizer, steps=len(loader) * epochs)  # processes have met
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            training.loss(batch).backward()
            training.reduce()  # now, since the norm is to be that of all rows
            nn.utils.clip_grad_norm_(gated.parameters(), 5.0)
            training.step()
            scheduler.step()
    small = training.finish()

    if training.leads:
        quality = bp.evaluate(small, (digits.test.x, digits.test.y), gated.likelihood)
        print(f"{quality.score:.2f} % error with {bp.count(small, x[:1]).parameters:,} parameters")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
