#!/usr/bin/env bash
# Fused Adam goes on with the moments of rows that are gone, where the other two raise.
#
# Version: torch 2.13.0, numpy 2.4.6, on a CPU.
# Expected: fused=True is the same optimiser as foreach, faster. A parameter that lost rows while its moments did
#     not is told by an error about sizes, as foreach=True and the plain loop tell it.
# Seen: the fused kernel reads as many moments as the parameter has numbers, from the front: rows 2 and 3 of 4, kept,
#     go on with the moments of rows 0 and 1. No error and no warning; the step is another one than that of an
#     optimiser whose moments were cut along. Whoever removes rows has to cut the state, and a test under the
#     default optimiser, which raises, does not show that it was forgotten under the fused one.
# PYTHON=... names another interpreter. It downloads PyTorch, gigabytes where pip takes a build for CUDA.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import torch
from torch import nn

target, keep = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([2, 3])


def trained(cut, **kind):
    weight = nn.Parameter(torch.ones(4))
    adam = torch.optim.Adam([weight], lr=0.1, **kind)

    def step(aim):
        adam.zero_grad()
        (weight - aim).square().sum().backward()
        adam.step()

    for _ in range(3):
        step(target)
    weight.grad, weight.data = None, weight.data[keep].clone()
    if cut:
        state = adam.state[weight]
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name][keep].clone()
    try:
        step(target[keep])
    except RuntimeError as problem:
        return "RuntimeError, " + str(problem).partition(" at ")[0]
    return [round(value, 3) for value in weight.tolist()]


print("torch", torch.__version__.partition("+")[0])
for name, kind in {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
    print(f"{name}: moments cut along {trained(True, **kind)}")
    print(f"  moments as they were: {trained(False, **kind)}")
END

"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" "$folder/look.py" | tee "$folder/seen"

diff "$folder/seen" - <<'END' || { echo "That is no longer what was seen."; exit 1; }
torch 2.13.0
plain: moments cut along [1.396, 1.398]
  moments as they were: RuntimeError, The size of tensor a (4) must match the size of tensor b (2)
foreach: moments cut along [1.396, 1.398]
  moments as they were: RuntimeError, The size of tensor a (4) must match the size of tensor b (2)
fused: moments cut along [1.396, 1.398]
  moments as they were: [1.248, 1.357]
END
