#!/usr/bin/env bash
# A parameter that was given fewer numbers cannot be learnt from while anybody holds a loss of before.
#
# Version: torch 2.13.0, numpy 2.4.6, on a CPU.
# Expected: after `parameter.data = fewer numbers` and `parameter.grad = None`, the next forward pass builds a graph
#     of its own, of the new shape, as it does after any step; the last loss, which a loop's variable still holds,
#     is of the past.
# Seen: the node that adds up a parameter's gradient is made once and reused for as long as any graph holds it. It
#     keeps the shape that the parameter had, and backward() of the new graph raises "invalid gradient". With the
#     old loss let go, all is well; so whether pruning works hangs on a variable's name. Data of another type put
#     in place first, and the right ones after them, make PyTorch let go of the node.
# PYTHON=... names another interpreter. It downloads PyTorch, gigabytes where pip takes a build for CUDA.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import torch
from torch import nn

x = torch.randn(5, 4)


def step(layer):
    loss = layer(x).square().mean()
    loss.backward()
    return loss


def shrink(layer, through=None):
    for parameter in layer.parameters():
        values = parameter.data[:-1].clone()
        parameter.grad = None
        if through is not None:
            parameter.data = torch.empty(0, dtype=through)
        parameter.data = values


def told(layer):
    try:
        step(layer)
    except RuntimeError as problem:
        return "RuntimeError, " + str(problem).partition("an ")[2].partition(" -")[0]
    return f"a gradient of {tuple(layer.weight.grad.shape)}"


print("torch", torch.__version__.partition("+")[0])
layer = nn.Linear(4, 4)
step(layer)
shrink(layer)
print("nobody holds the last loss:", told(layer))
layer = nn.Linear(4, 4)
held = step(layer)
shrink(layer)
print("somebody holds it:", told(layer))
layer.zero_grad()
del held
print("let go:", told(layer))
layer = nn.Linear(4, 4)
held = step(layer)
shrink(layer, through=torch.float64)
print("held, by way of another type:", told(layer))
END

"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" "$folder/look.py" | tee "$folder/seen"

diff "$folder/seen" - <<'END' || { echo "That is no longer what was seen."; exit 1; }
torch 2.13.0
nobody holds the last loss: a gradient of (3, 4)
somebody holds it: RuntimeError, invalid gradient at index 0
let go: a gradient of (3, 4)
held, by way of another type: a gradient of (3, 4)
END
