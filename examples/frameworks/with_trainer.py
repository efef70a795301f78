"""Hugging Face's Trainer and a TrainerCallback.

    torchrun --nproc-per-node 2 examples/frameworks/with_trainer.py [--epochs 20]

The Trainer hands its model to accelerate, which would wrap it in DistributedDataParallel, whose buckets keep
the sizes that weights had before removals. ``prepare_model`` is told to leave it as it is.
"""

import argparse
import tempfile

import torch
import transformers
from torch import nn
from torch.utils.data import Dataset

import bayesprune as bp

BATCH_SIZE = 32  # of each process


class Digits(Dataset):
    """Rows as the Trainer's collator takes them."""

    def __init__(self, split):
        self.x, self.y = split.x, split.y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        """An image and a class."""
        return {"pixel_values": self.x[row], "labels": self.y[row]}


class Network(nn.Module):
    """Takes its input by the name that it has in a batch."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(784, 100), nn.Linear(100, 10)

    def forward(self, pixel_values):
        """(B, 1, 28, 28) → (B, 10)."""
        return self.head(self.hidden(pixel_values.flatten(1)).relu())


class Pruning(transformers.TrainerCallback):
    """What lies around the steps."""

    def __init__(self, training):
        self.training, self.small = training, None

    def on_pre_optimizer_step(self, *_, **__):
        """Average, and clip by the norm of all rows' gradient; the Trainer would clip before."""
        self.training.reduce()
        torch.nn.utils.clip_grad_norm_(self.training.gated.parameters(), 5.0)

    def on_train_end(self, *_, **__):
        """The small network, on every process."""
        self.small = self.training.finish()


def main():
    """Gate, learn together, print on the first process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs
    settings = transformers.TrainingArguments(  # processes meet here
        tempfile.mkdtemp(), num_train_epochs=epochs, per_device_train_batch_size=BATCH_SIZE,
        max_grad_norm=0, save_strategy="no", report_to="none", logging_strategy="no", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    digits = bp.data.load("digits")
    train = digits.train  # (1437, 1, 28, 28), (1437,)
    example = {"pixel_values": train.x[:2]}
    likelihood = bp.Categorical(rows=len(train))
    gated = bp.gate(Network(), example, prior=bp.Budget(params=0.1), likelihood=likelihood)
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3, weight_decay=0)
    per_epoch = -(-len(train) // (BATCH_SIZE * settings.world_size))
    training = bp.Training(gated.to(settings.device), optimizer=optimizer, steps=per_epoch * epochs)

    class Trainer(transformers.Trainer):
        """Takes its losses from the training."""

        def compute_loss(self, model, inputs, **_):
            return training.loss(inputs)

    pruning = Pruning(training)
    trainer = Trainer(
        gated, settings, train_dataset=Digits(train), optimizers=(optimizer, None), callbacks=[pruning]
    )
    trainer.accelerator.prepare_model = lambda model, **_: model
    trainer.train()

    if trainer.is_world_process_zero():
        quality = bp.evaluate(pruning.small, (digits.test.x, digits.test.y), likelihood)
        parameters = bp.count(pruning.small, train.x[:1]).parameters
        print(f"{quality.score:.2f} % error with {parameters:,} parameters")


if __name__ == "__main__":
    main()
