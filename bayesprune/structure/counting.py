"""Counting multiply-accumulates of what runs: PyTorch's own counter, with attention on a CPU added to it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Floating-point operations of softmax(q kᵀ) v, given shapes; the counter itself knows only CUDA's."""
    return int(sdpa_flop_count(query, key, value))


MORE = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def counting() -> FlopCounterMode:
    """A counter of floating-point operations, two to a multiply-accumulate, to be entered as a context.

    Run with gradients enabled: without them PyTorch's encoder layers take a path that is one operation.

    Returns:
        The counter; ``get_total_flops()`` when done.

    Example:
        >>> with counting() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.get_total_flops() // 2
        24
    """
    return FlopCounterMode(display=False, custom_mapping=MORE)
