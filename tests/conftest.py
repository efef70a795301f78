"""What is slow and rarely finds anything runs nightly: ``BAYESPRUNE_NIGHTLY=1 pytest``."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("BAYESPRUNE_NIGHTLY") == "1":
        return
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason="nightly: BAYESPRUNE_NIGHTLY=1"))
