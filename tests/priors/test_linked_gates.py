"""Linked gates: probabilities and covariances by enumeration, draws by gate after gate, at any links."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from bayesprune.errors import PriorError
from bayesprune.priors import Gates, LinkedGates
from bayesprune.priors.linked_gates import Before
from bayesprune.svi.estimators import all_configurations

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-6
FORMS = [((1,), 0), ((3,), 0), ((1, 2), 0), ((1, 4), 1), ((), 2), ((1, 2, 3, 5), 1)]


def linked(units, lags, rank, seed=0, strength=0.6):
    generator = torch.Generator().manual_seed(seed)
    probs = 0.02 + 0.96 * torch.rand(units, generator=generator)
    coupling = strength * torch.randn(len(lags), units, generator=generator)
    loading = 0.3 * strength * torch.randn(rank, units, generator=generator)
    return LinkedGates(probs, coupling, lags, loading)


def gate_after_gate(gates, uniform, signs):
    """The draw of given random numbers, by a loop over gates."""
    base, c = gates._places()
    value = torch.zeros_like(uniform)
    for i in range(uniform.shape[-1]):
        chance = base[signs, i]
        for number, row in enumerate(gates.before.index):
            if row[i] >= 0:
                chance = chance + c[number, 0, i] * value[:, row[i]]
        value[:, i] = (uniform[:, i] < chance).to(value)
    return value


@pytest.mark.parametrize("lags, rank", FORMS)
@pytest.mark.parametrize("strength", [0.2, 5.0], ids=["weak", "beyond what probabilities allow"])
def test_probabilities_and_covariances_are_exact(lags, rank, strength):
    gates, z = linked(8, lags, rank, strength=strength), all_configurations(8).double()
    p = gates.log_prob(z).exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(p @ z, gates.probs, rtol=0, atol=1e-12)
    covariance = (z * p.unsqueeze(1)).T @ z - torch.outer(gates.probs, gates.probs)
    torch.testing.assert_close(gates.covariance(), covariance, rtol=0, atol=1e-12)
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() > 0.004  # there is something to hold


def test_a_chain_by_hand():
    gates = LinkedGates(torch.tensor([0.5, 0.4, 0.3]), torch.full((1, 3), 0.5), lags=(1,))
    for z in itertools.product((0.0, 1.0), repeat=3):
        second = 0.4 + 0.5 * (z[0] - 0.5)
        third = 0.3 + 0.5 * (z[1] - 0.4)
        by_hand = 0.5 * (second if z[1] else 1 - second) * (third if z[2] else 1 - third)
        assert gates.log_prob(torch.tensor(z)).exp().item() == pytest.approx(by_hand, rel=1e-12)


def test_signs_are_shared_by_all_gates():
    gates = LinkedGates(torch.tensor([0.5, 0.5]), torch.zeros(0, 2), (), torch.tensor([[0.3, -0.4]]))
    by_hand = 0.5 * (0.8 * 0.1) + 0.5 * (0.2 * 0.9)
    assert gates.log_prob(torch.ones(2)).exp().item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("lags, rank", FORMS)
@pytest.mark.parametrize("removed", [False, True])
def test_draws_at_once_are_those_of_gate_after_gate(lags, rank, removed):
    generator = torch.Generator().manual_seed(1)
    whole = linked(40, lags, rank, strength=2.0)
    alive = torch.rand(40, generator=generator) < (0.6 if removed else 1.1)
    before = Before.of(40, lags, alive)
    gates = LinkedGates(whole.probs[alive], whole.raw_coupling[:, alive], before, whole.raw_loading[:, alive])
    uniform = torch.rand(77, int(alive.sum()), generator=generator)
    signs = torch.randint(2**rank, (77,), generator=generator)
    assert torch.equal(gates.draw(uniform, signs), gate_after_gate(gates, uniform, signs))


@pytest.mark.parametrize("lags, rank", [((1,), 0), ((1, 3), 2)])
def test_draws_have_their_probabilities(lags, rank):
    torch.manual_seed(0)
    gates, draws = linked(5, lags, rank), 50_000
    place = (gates.sample((draws,)) @ (2.0 ** torch.arange(5))).long()
    seen = torch.bincount(place, minlength=32).double()
    z = ((torch.arange(32).unsqueeze(1) >> torch.arange(5)) & 1).double()
    expected = draws * gates.log_prob(z).exp()
    assert ((seen - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, df=31)


def test_without_links_they_are_gates_and_expand_as_they_do():
    theirs = Gates(probs=torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
    ours = LinkedGates(theirs.probs, torch.zeros(1, 3), (1,))
    z = ours.sample((7,))
    assert z.shape == (7, 5, 3)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    assert torch.equal(ours.enumerate_support(False), theirs.enumerate_support(False))
    assert ours.expand((2, 5)).sample().shape == (2, 5, 3)


def test_certain_gates_stay_certain_and_say_nothing():
    gates = LinkedGates(torch.tensor([1.0, 0.3, 0.0, 0.6]), torch.full((1, 4), 0.9), (1,))
    z = all_configurations(4).double()
    p = gates.log_prob(z).exp()
    torch.testing.assert_close(p @ z, gates.probs, rtol=0, atol=1e-15)
    assert gates.log_prob(torch.tensor([0.0, 1.0, 0.0, 1.0])) == -torch.inf
    assert gates.log_prob(torch.tensor([1.0, 1.0, 0.0, 1.0])).exp().item() == pytest.approx(0.18)


@pytest.mark.parametrize("lags", [(0,), (2, 1), (1, 1), (1.0,), (1, 2, 3, 4, 5)])
def test_wrong_lags_are_refused(lags):
    with pytest.raises(PriorError, match="at most 4 whole numbers from 1"):
        LinkedGates(torch.full((6,), 0.5), torch.zeros(len(lags), 6), lags)


def test_wrong_shapes_are_refused():
    with pytest.raises(PriorError, match=r"and got \(3,\), \(1, 2\) with 1 lags"):
        LinkedGates(torch.full((3,), 0.5), torch.zeros(1, 2), (1,))
