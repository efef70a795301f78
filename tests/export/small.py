"""Pruned networks of the zoo of small ones, to be saved."""

import copy
import functools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from bayesprune.export.architecture import digest_of
from bayesprune.export.tensors import digest, tensor_bytes
from bayesprune.structure.graph import analyse
from tests.structure.graph.checks import drawn_alive
from tests.structure.graph.networks import CASES, without_chance_


@functools.cache
def _pruned(name, dtype):
    case = CASES[name]
    analysis = analyse(without_chance_(case.network(dtype)), case.batch(2, dtype))
    return analysis.cut(drawn_alive(analysis, 1)).eval()


def pruned(name, dtype=torch.float32):
    """A smaller network in eval mode, the caller's own."""
    return copy.deepcopy(_pruned(name, dtype))


def dense(name, dtype=torch.float32, seed=5):
    """A new instance of the same class, with other numbers."""
    return without_chance_(CASES[name].network(dtype, seed))


class Heads(nn.Module):
    """Attention whose heads are written down: pruned, it runs as its graph. Trained on (rows, 5, 4)."""

    def __init__(self, heads=3):
        super().__init__()
        self.heads = heads
        self.qkv, self.out, self.head = nn.Linear(4, 36), nn.Linear(12, 4), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).view(x.shape[0], 5, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        return self.head((x + self.out(y.transpose(1, 2).reshape(x.shape[0], 5, 12))).mean(1))


def seal(folder: Path) -> None:
    """Make both files of a saved network name each other's content again, as a tamperer can."""
    path, tensors = folder / "architecture.json", folder / "pruned.safetensors"
    description = json.loads(path.read_text())
    content = tensor_bytes(load_file(tensors), digest_of(description))
    tensors.write_bytes(content)
    path.write_text(json.dumps({**description, "tensors_sha256": digest(content)}))
