import pytest

from bayesprune.cli.measure import over_seeds

SEEDS = [
    {
        "seed": 0,
        "test_error_percent": 2.0,
        "architecture": [4, 7],
        "groups": ["a", "b"],
        "dense_parameters": 90,
    },
    {
        "seed": 1,
        "test_error_percent": 4.0,
        "architecture": [6, 7],
        "groups": ["a", "b"],
        "dense_parameters": 90,
    },
]


def test_one_seed_is_its_own_mean_without_a_spread() -> None:
    assert over_seeds(SEEDS[:1]) == {key: value for key, value in SEEDS[0].items() if key != "seed"}


def test_means_and_sample_deviations() -> None:
    means = over_seeds(SEEDS)
    assert means["test_error_percent"] == 3.0
    assert means["test_error_percent_std"] == pytest.approx(2**0.5)
    assert means["architecture"] == [5.0, 7]
    assert means["architecture_std"] == [pytest.approx(2**0.5), 0.0]
    assert means["groups"] == ["a", "b"]
    assert means["dense_parameters"] == 90
    assert "dense_parameters_std" not in means
    assert "seed" not in means
