"""What a run says at its end."""

import importlib.util
from pathlib import Path

import pytest

from bayesprune.cli.measure import over_seeds
from bayesprune.cli.summary import summary

FIGURES = {
    "test_error_percent": 2.0, "dense_parameters": 10_000, "parameters_kept": 100,
    "parameters_kept_percent": 1.0, "dense_macs": 10_000, "macs_kept": 90, "macs_kept_percent": 0.9,
    "groups": ["input", "fc2"], "dense_architecture": [784, 100], "architecture": [783, 80],
    "undecided_gates": 0, "rounded_gates": 88, "seconds": 0.6,
}  # fmt: skip
RUN = {"program": "lenet5", "data": "digits", "epochs": 3}


def _said(*seeds: dict, **settings) -> str:
    figures = [{"seed": number, **FIGURES, **seed} for number, seed in enumerate(seeds)]
    return summary({**RUN, **over_seeds(figures), "seeds": figures}, Path("runs/x"), **settings)


def test_units_of_one_seed_are_whole():
    assert "input 783 of 784, fc2 80 of 100" in _said({})


def test_units_over_seeds_are_means_with_their_spread():
    said = _said({}, {"architecture": [783, 81]}, {"architecture": [783, 81], "rounded_gates": 90})
    assert "input 783 of 784, fc2 80.7 ± 0.6 of 100" in said and "all decided, 88.7 ± 1.2 by rounding" in said


def test_a_spread_around_the_first_seed_is_a_spread():
    said = _said({}, {"architecture": [783, 79]}, {"architecture": [783, 81]})
    assert "fc2 80.0 ± 1.0 of 100" in said


def test_time_is_that_of_learning_and_that_of_the_command():
    assert "Time          0.6 s to learn, 7.5 s in all" in _said({}, seconds=7.5)
    assert "Time          0.6 s to learn a seed, 3.0 min in all" in _said({}, {}, seconds=180)


@pytest.mark.parametrize("absent", [("onnx", "onnxruntime"), ()])
def test_what_shipping_needs_is_said_where_it_is_not_there(monkeypatch, absent):
    found = importlib.util.find_spec

    def find(name: str) -> object:
        return None if name in absent else found(name) or object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    (line,) = [line for line in _said({}).splitlines() if "ship it" in line]
    assert line.endswith("(first: pip install onnx onnxruntime)" if absent else "lenet5.onnx")
