"""accelerate: it starts processes and deals batches; the optimiser that it wraps is Training's all the same.

    torchrun --nproc-per-node 2 examples/frameworks/with_accelerate.py [--epochs 20]

``accelerator.prepare(model)`` would wrap the model in DistributedDataParallel, whose buckets keep the sizes
that weights had before removals. So optimiser and loader are prepared, and the model is not.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp

BATCH_SIZE = 16  # of each process, twice a step


def main():
    """Gate, learn together, finish on every process, print on the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=2)
    set_seed(0)
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=True)

    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    gated = bp.gate(network, x[:2], prior=bp.Budget(params=0.1), likelihood=bp.Categorical(rows=len(x)))
    gated = gated.to(accelerator.device)
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3, weight_decay=0)
    optimizer, loader = accelerator.prepare(optimizer, loader)
    steps = -(-len(loader) // 2) * epochs  # two batches a step
    training = bp.Training(gated, optimizer=optimizer.optimizer, steps=steps)  # the one that is wrapped
    for _ in range(epochs):
        for batch in loader:
            with accelerator.accumulate(gated), accelerator.autocast():
                loss = training.loss(batch)
            accelerator.backward(loss)  # divides by two
            if accelerator.sync_gradients:
                training.reduce()
                accelerator.clip_grad_norm_(gated.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
    small = training.finish()

    quality = bp.evaluate(small, (digits.test.x, digits.test.y), gated.likelihood)
    accelerator.print(f"{quality.score:.2f} % error with {bp.count(small, x[:1]).parameters:,} parameters")
    accelerator.end_training()


if __name__ == "__main__":
    main()
