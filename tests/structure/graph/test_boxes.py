"""What survives of a value, told from memory of any strides."""

import pytest
import torch

from bayesprune.structure.graph.surgery.boxes import box

LINES = torch.tensor([True, False, True])
CORNER = torch.tensor([[True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    ("small", "shape", "expected"),
    [
        (LINES[None, :, None], (2, 3, 4), [[True] * 2, [True, False, True], [True] * 4]),
        (torch.zeros(1, 3, dtype=torch.bool), (2, 3), [[False] * 2, [False] * 3]),
        (CORNER[:, :, None], (2, 3, 5), None),
        (CORNER[:, :1, None], (2, 1, 5), [[True] * 2, [True], [True] * 5]),
    ],
)
def test_a_mask_that_repeats_in_memory_has_the_box_of_its_numbers(small, shape, expected):
    spread = small.expand(shape)
    for mask in (spread, spread.contiguous()):
        found = box(mask)
        assert expected == (None if found is None else [line.tolist() for line in found])
