"""MNIST with rows held out for calibration, and LeNets trained on the others by fused Adam."""

import math

import torch
import torch.nn.functional as F
from tqdm import tqdm

import bayesprune as bp
from bayesprune.programs import load_model
from bayesprune.svi.batches import Batches

HELD_OUT = 10_000


def held_out_splits(data_dir=None):
    """50,000 rows to train on, 10,000 of MNIST's training rows that are held out, 10,000 test rows."""
    data = bp.data.load("mnist", data_dir)
    order = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(12345))
    rest, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    train = data.train
    return (
        bp.data.Split(train.x[rest], train.y[rest]),
        bp.data.Split(train.x[held_out], train.y[held_out]),
        data.test,
    )


def dense_network(train, name="lenet_300_100"):
    """The untrained network of a shipped program."""
    return load_model(name).model(train, 10, None).network.plain()


def trained(train, epochs, name="lenet_300_100", peak=1e-3, seed=0):
    """A dense network after some epochs, one cosine from the peak to zero."""
    network = dense_network(train, name).train()
    batches = Batches((train.x, train.y), 128, torch.device("cpu"), seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=peak, fused=True)
    steps, step = epochs * batches.steps, 0
    for epoch in tqdm(range(epochs), desc=f"dense {name}", unit="epoch"):
        for x, y in batches.epoch(epoch):
            for group in optimiser.param_groups:
                group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
    return network.eval()
