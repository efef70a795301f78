"""Random words and noise factors: uniform, independent, seeded; every random test declares its rate."""

import pytest
import torch
from scipy.stats import chi2, kstest

from bayesprune.svi.bits import random_words, uniform_factors

FALSE_ALARM = 1e-5  # of each randomised test
CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1001])
def test_words_are_sixteen_bits_and_enough(count):
    words = random_words(count, CPU, generator())
    assert words.dtype == torch.int16 and count <= len(words) <= count + 3


def test_every_bit_of_every_word_of_a_draw_is_fair():
    """χ² over the 64 bits of a draw: each has half of 1s, the sign bit too."""
    draws = 50_000
    words = random_words(4 * draws, CPU, generator()).view(draws, 4).to(torch.int64) & 0xFFFF
    ones = torch.stack([(words >> bit) & 1 for bit in range(16)]).double().sum(1)  # (16, 4)
    statistic = ((ones - draws / 2).square() / (draws / 4)).sum().item()
    assert statistic < chi2.isf(FALSE_ALARM, 64)


def test_words_fill_their_range_evenly():
    """χ² over 256 equal parts of −2¹⁵ … 2¹⁵ − 1."""
    words = random_words(400_000, CPU, generator())
    counts = torch.bincount((words.to(torch.int64) + 2**15) // 256, minlength=256).double()
    expected = len(words) / 256
    assert ((counts - expected).square() / expected).sum().item() < chi2.isf(FALSE_ALARM, 255)


def test_the_words_of_a_draw_are_independent():
    """χ² over the 8 × 8 table of the top three bits of neighbours, at distances of 1 to 4 words."""
    words = random_words(200_000, CPU, generator()).to(torch.int64) + 2**15
    cells = words >> 13
    for distance in (1, 2, 3, 4):
        counts = torch.bincount(8 * cells[:-distance] + cells[distance:], minlength=64).double()
        expected = counts.sum() / 64
        statistic = ((counts - expected).square() / expected).sum().item()
        assert statistic < chi2.isf(FALSE_ALARM / 4, 63)


def test_a_seed_gives_the_same_words_and_another_others():
    once, twice, other = (random_words(100, CPU, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, twice) and not torch.equal(once, other)
    before = torch.get_rng_state()
    random_words(100, CPU, generator())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("deviation", [0.05, 0.4, 0.9])
def test_factors_are_uniform_around_one(deviation):
    """Kolmogorov–Smirnov against Uniform(1 ± √3 σ); the grid's step of 2⁻¹⁵ of the width is far below it."""
    factors = uniform_factors((400, 250), deviation, torch.zeros((), dtype=torch.double), generator())
    low, width = 1 - 3**0.5 * deviation, 2 * 3**0.5 * deviation
    assert kstest(factors.flatten().numpy(), "uniform", args=(low, width)).pvalue > FALSE_ALARM
    assert factors.min() > low and factors.max() < low + width


def test_mean_and_deviation_of_the_grid_are_exact(monkeypatch):
    """All 2¹⁶ words once: no randomness is left, and the mean is one, the deviation σ to sixteen bits."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    monkeypatch.setattr("bayesprune.svi.bits.random_words", lambda *_: every)
    factors = uniform_factors((256, 256), 0.3, torch.zeros((), dtype=torch.double))
    assert factors.mean().item() == pytest.approx(1.0, abs=1e-14)
    assert factors.std(correction=0).item() == pytest.approx(0.3, rel=2.0**-32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_have_the_shape_and_type_asked_for(dtype):
    like = torch.zeros((), dtype=dtype)
    factors = uniform_factors((3, 5), 0.2, like, generator())
    assert factors.shape == (3, 5) and factors.dtype == dtype
    assert torch.equal(uniform_factors((3, 5), 0.0, like), torch.ones(3, 5, dtype=dtype))
