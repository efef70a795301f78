#!/usr/bin/env bash
# Under Lightning's automatic optimisation an optimiser's pre-step hook sees the gradients of the step before.
#
# Version: torch 2.13.0, lightning 2.6.6, numpy 2.4.6, on a CPU.
# Expected: a hook of Optimizer.register_step_pre_hook runs after backward and before the step, as in a plain loop,
#     so that what it does to gradients (clips them, adds noise or the gradient of a prior) is in the step.
# Seen: Lightning hands the optimiser a closure that takes the loss, sets gradients to zero and differentiates, all
#     within step(). The hook runs before it: there are no gradients in the first step, those of the last step
#     afterwards, and what the hook adds is thrown away. No error and no warning: training goes on without it.
#     A hook that wraps the closure, which it is handed among its arguments and may return changed, does what was
#     meant in both loops.
# PYTHON=... names another interpreter. It downloads PyTorch, gigabytes where pip takes a build for CUDA.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import logging
import warnings

warnings.simplefilter("ignore")
import lightning as L
import torch
from torch import nn

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
ROWS = [torch.tensor([float(n)]) for n in (1, 2, 3)]


def plain_hook(optimizer, args, kwargs, seen):
    weight = optimizer.param_groups[0]["params"][0]
    seen.append(None if weight.grad is None else weight.grad.item())
    if weight.grad is not None:
        weight.grad += 100.0


def wrapping_hook(optimizer, args, kwargs, seen):
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        return plain_hook(optimizer, args, kwargs, seen)

    def first():
        loss = closure()
        plain_hook(optimizer, args, kwargs, seen)
        return loss

    return args[:1], {**kwargs, "closure": first}


class Module(L.LightningModule):
    def __init__(self, hook=None):
        super().__init__()
        self.weight, self.hook, self.seen = nn.Parameter(torch.zeros(1)), hook, []

    def configure_optimizers(self):
        optimizer = torch.optim.SGD([self.weight], lr=1.0)
        optimizer.register_step_pre_hook(lambda *given: self.hook(*given, self.seen))
        return optimizer

    def training_step(self, row):
        return (self.weight * row).sum()  # its gradient is the row


def plain(hook):
    module = Module(hook)
    optimizer = module.configure_optimizers()
    for row in ROWS:
        optimizer.zero_grad()
        module.training_step(row).backward()
        optimizer.step()
    return module


def by_trainer(hook):
    module = Module(hook)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, torch.utils.data.DataLoader(ROWS, batch_size=None))
    return module


print("torch", torch.__version__.partition("+")[0], "lightning", L.__version__)
for loop in (plain, by_trainer):
    for hook in (plain_hook, wrapping_hook):
        module = loop(hook)
        print(f"{loop.__name__}, {hook.__name__}: gradients seen {module.seen}, weight {module.weight.item():g}")
END

"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 lightning==2.6.6 numpy==2.4.6
"$folder/venv/bin/python" "$folder/look.py" 2> "$folder/errors" | tee "$folder/seen" || { cat "$folder/errors"; exit 1; }

diff "$folder/seen" - <<'END' || { echo "That is no longer what was seen."; exit 1; }
torch 2.13.0 lightning 2.6.6
plain, plain_hook: gradients seen [1.0, 2.0, 3.0], weight -306
plain, wrapping_hook: gradients seen [1.0, 2.0, 3.0], weight -306
by_trainer, plain_hook: gradients seen [None, 1.0, 2.0], weight -6
by_trainer, wrapping_hook: gradients seen [1.0, 2.0, 3.0], weight -306
END
