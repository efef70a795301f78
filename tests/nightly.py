"""Parameters of tests of which a part runs nightly: what differs from network to network is tested on all."""

import pytest


def one_in(step, values):
    """Every ``step``-th of sorted values, and all the others nightly.

    >>> [getattr(value, "values", value) for value in one_in(2, "abc")]
    ['a', ('b',), 'c']
    """
    return [
        value if number % step == 0 else pytest.param(value, marks=pytest.mark.nightly)
        for number, value in enumerate(sorted(values))
    ]
