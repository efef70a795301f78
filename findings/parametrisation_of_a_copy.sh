#!/usr/bin/env bash
# Removing a parametrisation from a deep copy of a layer takes it from the original too, and breaks that.
#
# Version: torch 2.13.0, numpy 2.4.6, on a CPU.
# Expected: copy.deepcopy gives a layer of its own. Weight norm, spectral norm or orthogonality can be folded into
#     the copy's weight, as an export or a pruner does, while the original goes on training under it.
# Seen: a copy shares the class that was made for the original when it was parametrised, and
#     remove_parametrizations deletes the property from that class. The original then has no attribute "weight"
#     any more, in all three, and so has every other copy: an average of weights, the best network so far. Which of
#     them is folded makes no difference. Two layers parametrised one by one do not touch each other.
# PYTHON=... names another interpreter. It downloads PyTorch, gigabytes where pip takes a build for CUDA.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import copy
import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

warnings.simplefilter("ignore")
x = torch.randn(2, 3)


def runs(layer):
    try:
        return "runs" if layer(x).shape == (2, 4) else "?"
    except AttributeError as problem:
        return f"AttributeError, {str(problem).rpartition(' object ')[2]}"


def fold(layer):
    parametrize.remove_parametrizations(layer, "weight")


print("torch", torch.__version__.partition("+")[0])
for kind in (parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal):
    original = kind(nn.Linear(3, 4)).eval()
    folded, average = copy.deepcopy(original), copy.deepcopy(original)
    one_class = type(original) is type(folded)
    fold(folded)
    print(f"{kind.__name__}: one class {one_class}; the folded copy {runs(folded)}")
    print(f"  the original: {runs(original)}")
    print(f"  another copy: {runs(average)}")
    first, second = kind(nn.Linear(3, 4)).eval(), kind(nn.Linear(3, 4)).eval()
    fold(first)
    print(f"  made one by one: {runs(second)}")
END

"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" "$folder/look.py" | tee "$folder/seen"

diff "$folder/seen" - <<'END' || { echo "That is no longer what was seen."; exit 1; }
torch 2.13.0
weight_norm: one class True; the folded copy runs
  the original: AttributeError, has no attribute 'weight'
  another copy: AttributeError, has no attribute 'weight'
  made one by one: runs
spectral_norm: one class True; the folded copy runs
  the original: AttributeError, has no attribute 'weight'
  another copy: AttributeError, has no attribute 'weight'
  made one by one: runs
orthogonal: one class True; the folded copy runs
  the original: AttributeError, has no attribute 'weight'
  another copy: AttributeError, has no attribute 'weight'
  made one by one: runs
END
