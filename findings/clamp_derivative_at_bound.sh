#!/usr/bin/env bash
# The derivative of a clamp exactly at its bound changed between PyTorch 2.13.0 and 2.14.1.
#
# Versions: torch 2.13.0 and 2.14.1, numpy 2.4.6, on a CPU. (2.6.0 answers as 2.13.0 does, 2.15.0 as 2.14.1.)
# Expected: a release changes no gradient of an operation as old as clamp; clamp(x, 0, 6) and relu6(x), or
#     clamp_min(x, 0) and relu(x), have one derivative; so have clamp with numbers and with tensors as bounds.
# Seen: at its bound the derivative was 1 (2.13.0) and is 0 (2.14.1). With tensors as bounds it was 1 for x and
#     0 for the bound, and is a half for both. fmax of equal numbers follows it (1 and 0; a half each), and so do
#     losses that clamp inside: hinge_embedding_loss and margin_ranking_loss exactly at their margin.
#     relu6, hardtanh, relu, maximum and amax stay as they were: the first three had 0 all along.
#     So a gate clamped to [0, 1] that starts at exactly 1, as masks of pruning often do, learnt to close, and
#     now never moves; written as a hardtanh it never did.
# It downloads PyTorch twice, gigabytes where pip takes a build for CUDA. PYTHON=... names another interpreter.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import torch
import torch.nn.functional as F


def slopes(f, *values):
    inputs = [torch.tensor(value, requires_grad=True) for value in values]
    return [g.tolist() for g in torch.autograd.grad(f(*inputs).sum(), inputs)]


print("torch", torch.__version__.partition("+")[0])
print("clamp(x, 0, 6)       at 0, 6   ", *slopes(lambda x: x.clamp(0, 6), [0.0, 6.0]))
print("clamp_min(x, 0)      at 0      ", *slopes(lambda x: x.clamp_min(0), [0.0]))
print("clamp_max(x, 0)      at 0      ", *slopes(lambda x: x.clamp_max(0), [0.0]))
print("clamp(x, min=b)      at x = b  ", *slopes(lambda x, b: torch.clamp(x, min=b), [0.0], [0.0]))
print("fmax(a, b)           at a = b  ", *slopes(torch.fmax, [1.0], [1.0]))
print("hinge_embedding_loss at 1      ", *slopes(lambda x: F.hinge_embedding_loss(x, torch.tensor([-1.0])), [1.0]))
print("relu6(x)             at 0, 6   ", *slopes(F.relu6, [0.0, 6.0]))
print("hardtanh(x)          at -1, 1  ", *slopes(F.hardtanh, [-1.0, 1.0]))
print("relu(x)              at 0      ", *slopes(F.relu, [0.0]))
print("maximum(a, b)        at a = b  ", *slopes(torch.maximum, [1.0], [1.0]))
print("amax(x)              at a tie  ", *slopes(lambda x: x.amax(0), [1.0, 1.0]))

gate = torch.ones(1, requires_grad=True)  # open; the loss wants it closed
optimiser = torch.optim.SGD([gate], lr=0.1)
for _ in range(20):
    optimiser.zero_grad()
    gate.clamp(0, 1).sum().backward()
    optimiser.step()
print("a gate clamped to [0, 1], after 20 steps from 1: %.1f" % gate.clamp(0, 1).item())
END

for version in 2.13.0 2.14.1; do
  "${PYTHON:-python3.11}" -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip install --quiet "torch==$version" numpy==2.4.6
  "$folder/venv/bin/python" "$folder/look.py" | tee -a "$folder/seen"
  rm -rf "$folder/venv"
done

diff "$folder/seen" - <<'END' || { echo "That is no longer what was seen."; exit 1; }
torch 2.13.0
clamp(x, 0, 6)       at 0, 6    [1.0, 1.0]
clamp_min(x, 0)      at 0       [1.0]
clamp_max(x, 0)      at 0       [1.0]
clamp(x, min=b)      at x = b   [1.0] [0.0]
fmax(a, b)           at a = b   [1.0] [0.0]
hinge_embedding_loss at 1       [-1.0]
relu6(x)             at 0, 6    [0.0, 0.0]
hardtanh(x)          at -1, 1   [0.0, 0.0]
relu(x)              at 0       [0.0]
maximum(a, b)        at a = b   [0.5] [0.5]
amax(x)              at a tie   [0.5, 0.5]
a gate clamped to [0, 1], after 20 steps from 1: 0.0
torch 2.14.1
clamp(x, 0, 6)       at 0, 6    [0.0, 0.0]
clamp_min(x, 0)      at 0       [0.0]
clamp_max(x, 0)      at 0       [0.0]
clamp(x, min=b)      at x = b   [0.5] [0.5]
fmax(a, b)           at a = b   [0.5] [0.5]
hinge_embedding_loss at 1       [0.0]
relu6(x)             at 0, 6    [0.0, 0.0]
hardtanh(x)          at -1, 1   [0.0, 0.0]
relu(x)              at 0       [0.0]
maximum(a, b)        at a = b   [0.5] [0.5]
amax(x)              at a tie   [0.5, 0.5]
a gate clamped to [0, 1], after 20 steps from 1: 1.0
END
