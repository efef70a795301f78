"""What no operation can follow is found before anything is cut, however few units a group has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesprune as bp

WIDTH = 8


class Mixing(nn.Module):
    """Two gates, each for half of the channels, which are taken for rows in between."""

    def __init__(self, width):
        super().__init__()
        self.stem, self.into = nn.Conv1d(3, width, 1), nn.Conv1d(width, WIDTH, 1)
        self.gates, self.out, self.head = nn.Linear(WIDTH, 2), nn.Conv1d(WIDTH, width, 1), nn.Linear(width, 4)

    def forward(self, x):
        x = self.stem(x)
        y = self.into(x)
        rows, _, length = y.shape
        p = self.gates(y.mean(-1)).sigmoid().view(rows, 2, 1, 1)
        p = p.expand(rows, 2, WIDTH // 2, 2).contiguous().view(rows * WIDTH, -1, 1) * torch.eye(2)
        y = (y.view(rows, WIDTH, -1, 2) @ p.view(rows, WIDTH, 2, 2)).view(rows, WIDTH, length)
        return self.head((x + self.out(y)).mean(-1))


@pytest.mark.parametrize("width", range(4, 15, 2))
def test_a_group_of_two_units_is_tried_too(width):
    """Of random cuts alone, at three of these widths none would have taken one of the two."""
    torch.manual_seed(0)
    analysis = bp.analyse(Mixing(width), torch.randn(2, 3, 6))
    assert any("form no box" in frozen.reason for frozen in analysis.frozen)
    for group in analysis.groups:
        for unit in (0, group.size - 1):
            if group.size > 1:
                assert type(analysis.cut({group.name: torch.arange(group.size) != unit})) is Mixing
