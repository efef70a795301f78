"""PyTorch's transformer layers as they are written: without shortcuts by value or by mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.modules import transformer


@contextlib.contextmanager
def masks_as_given() -> Iterator[None]:
    """Masks are used as they are handed over, whatever their values.

    ``nn.Transformer`` looks whether a mask is the causal one, which no trace can follow, in order to leave it
    away where a kernel knows it. And in evaluation without gradients its encoder takes a path of its own
    that puts zeros where positions are padded, where all other paths compute something.
    """
    detect, fast = transformer._detect_is_causal_mask, torch.backends.mha.get_fastpath_enabled()
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = detect
        torch.backends.mha.set_fastpath_enabled(fast)
