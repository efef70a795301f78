"""Subnormal numbers, which a processor is many times slower at, as zero while a network learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Let numbers closer to zero than 1.2e-38 be zero, on processors that can; afterwards as before.

    What has no gradient any more decays without end: weights of an input that is always zero under their
    prior, moments of a unit that no row opens. float32's smallest normal number is 1.2e-38, far below what
    a sum in a network can notice, and some processors are many times slower at what lies under it.
    """
    already = float(torch.full((), 1e-38, dtype=torch.float32, device="cpu") * 0.01) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)
