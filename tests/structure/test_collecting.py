"""Python's collector leaves alone what was there before, and looks at all of it again afterwards."""

import gc
from weakref import ref

from bayesprune.structure.collecting import only_new_garbage


class Circle:
    def __init__(self):
        self.itself = self


def test_what_was_there_before_is_left_alone_and_what_is_new_is_not():
    old = Circle()
    gone = ref(old)
    with only_new_garbage():
        new = Circle()
        also = ref(new)
        del old, new
        gc.collect()
        assert gone() is not None and also() is None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert gone() is None


def test_what_somebody_else_has_frozen_stays_so():
    gc.freeze()
    try:
        with only_new_garbage():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
