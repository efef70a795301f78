"""Programs run in an empty folder, on a few rows."""

import sys
from dataclasses import replace

import pyro
import pytest

import bayesprune as bp
from bayesprune.programs import load_inference, load_model
from tests.programs.small import BATCH_SIZE, EPOCHS, FAST, ROWS


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Programs run in a working folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return tmp_path


@pytest.fixture(scope="session")
def digits():
    return bp.data.load("digits")


@pytest.fixture
def small_run(digits):
    """small_run(name, price) → a program's gated model, its fit under the fast schedule, its test rows."""

    def run(name, price, epochs=EPOCHS):
        program = load_model(name)
        data = program.data() if program.data else digits
        train = bp.data.Split(data.train.x[:ROWS], data.train.y[:ROWS])
        pyro.set_rng_seed(0)
        gated = program.model(train, data.classes, price)
        infer, recipe = load_inference(program.inference).infer, replace(program.recipe, **FAST)
        result = infer(
            gated, train, epochs=epochs, batch_size=BATCH_SIZE, seed=0, recipe=recipe,
            device="cpu", checkpoint=None, resume=False, progress=False,
        )  # fmt: skip
        return gated, result, data.test

    return run
