"""A LightningModule and a callback: the Trainer calls the optimiser, and the optimiser's hooks do the rest.

    python examples/frameworks/with_lightning.py [--epochs 20] [--devices 2]

The strategy leaves DistributedDataParallel out, whose buckets keep the sizes that weights had before
removals. The model is no submodule, so that Lightning's checkpoints do not hold it: keep
``module.pruning.state_dict()``, which goes on in any number of processes.
"""

import argparse

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp

BATCH_SIZE = 32  # of each process


class Together(DDPStrategy):
    """Processes that meet as under DDP; gradients are averaged by ``bp.Training``."""

    def configure_ddp(self):
        """No wrapper."""


class Classifier(L.LightningModule):
    """A network that is pruned while it learns."""

    def __init__(self, gated):
        super().__init__()
        self.gated = [gated]  # in a list, it is no submodule
        self.pruning = self.small = None  # self.training is Lightning's

    def configure_optimizers(self):
        """The optimiser of the weights; the processes have met by now."""
        (gated,) = self.gated
        gated.to(self.device)
        optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3, weight_decay=0)
        steps = self.trainer.estimated_stepping_batches
        self.pruning = bp.Training(gated, optimizer=optimizer, steps=steps)
        return optimizer

    def training_step(self, batch):
        """The loss, with gates drawn."""
        loss = self.pruning.loss(batch)
        self.log("nll", loss, prog_bar=True)
        return loss


class Pruning(L.Callback):
    """What lies around the steps."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        """Average now, so that ``gradient_clip_val`` is of the norm of all rows' gradient."""
        module.pruning.reduce()

    def on_train_end(self, trainer, module):
        """The small network, on every process."""
        module.small = module.pruning.finish()


def main():
    """Gate, learn together, print on the first process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--devices", type=int, default=2)
    arguments = parser.parse_args()
    L.seed_everything(0, verbose=False)
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=True)

    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    gated = bp.gate(network, x[:2], prior=bp.Budget(params=0.1), likelihood=bp.Categorical(rows=len(x)))
    module = Classifier(gated)
    trainer = L.Trainer(
        max_epochs=arguments.epochs, devices=arguments.devices, strategy=Together(), callbacks=[Pruning()],
        gradient_clip_val=5.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)

    if trainer.is_global_zero:
        quality = bp.evaluate(module.small, (digits.test.x, digits.test.y), gated.likelihood)
        print(f"{quality.score:.2f} % error with {bp.count(module.small, x[:1]).parameters:,} parameters")


if __name__ == "__main__":
    main()
