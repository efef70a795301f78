"""Python's collector of garbage, while many objects are made and let go."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Inside, the collector looks at what was made inside alone.

    Graphs hold themselves in circles, so that they wait for the collector, which looks at all of PyTorch's
    own objects every time. Where somebody has told it to leave some objects alone, it is not touched.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
