"""What Pyro programs are made of: plates, parameters, factors, modules; each works, or gate says why not."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.svi.objective import gate_nats
from tests.gated.own import gate, rows_of

pytestmark = pytest.mark.usefixtures("double_precision")
POSITIVE = dist.constraints.positive


def plated(group):
    with pyro.plate("units", group.size):
        tilt = pyro.sample(f"tilt/{group.name}", dist.Normal(-1.0, 1.0))
    return priors.Gates(logits=tilt)


def stored(group):
    """A rate and a scale that are learnt, and a value that is written down."""
    center = pyro.param("center", torch.tensor(-4.0))
    scale = pyro.param("scale", lambda: torch.tensor(0.5), constraint=POSITIVE)
    log_odds = pyro.deterministic(f"log_odds/{group.name}", center * scale)
    return priors.Gates(logits=log_odds.expand(group.size))


class StoredGuide:
    """A guide in Pyro's idiom: its place and scale are in the store."""

    def __call__(self, group):
        tilt = pyro.sample(f"tilt/{group.name}", dist.Normal(0.0, 1.0))
        return priors.Gates(logits=tilt.expand(group.size))

    def guide(self, group, inclusion_prob):
        loc = pyro.param(f"loc/{group.name}", torch.tensor(3.0))
        scale = pyro.param(f"scale/{group.name}", torch.tensor(0.2), constraint=POSITIVE)
        pyro.sample(f"tilt/{group.name}", dist.Normal(loc, scale))


class Rates(PyroModule):
    """A rate that is a site by being an attribute, and a factor that is a parameter by being one."""

    def __init__(self):
        super().__init__()
        self.rate = PyroSample(dist.Beta(2.0, 3.0))
        self.factor = PyroParam(torch.tensor(0.5), constraint=POSITIVE)
        self.shift = nn.Parameter(torch.tensor(-1.0))

    def forward(self, group):
        return priors.Gates(logits=(torch.logit(self.rate) * self.factor + self.shift).expand(group.size))


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.of_fan_in = nn.Linear(1, 1)

    def forward(self, group):
        log_odds = self.of_fan_in(torch.tensor([float(group.fan_in)]).log1p())
        pyro.factor("hyper", dist.Normal(0.0, 1.0).log_prob(self.of_fan_in.weight).sum())
        return priors.Gates(logits=log_odds.expand(group.size))


PROGRAMS = {
    "plate": plated,
    "param": stored,
    "param in the guide": StoredGuide(),
    "PyroModule": Rates().double(),
    "nn.Module": Module().double(),
    "PerGroup in PerGroup": priors.PerGroup({"*": priors.PerGroup({"input": plated, "*": StoredGuide()})}),
}


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
@pytest.mark.parametrize("prior", PROGRAMS.values(), ids=PROGRAMS)
def test_programs_run_under_pyro_and_are_learnt_by_fit(prior):
    gated = gate(copy.deepcopy(prior))
    x, y = rows_of(gated, 64)
    loss = Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y)
    assert torch.isfinite(loss)
    before = {n: p.detach().clone() for n, p in gated.named_parameters() if not n.startswith("network")}
    result = bp.fit(gated, (x, y), epochs=2, batch_size=16, progress=False)
    after = dict(result.gated.named_parameters())
    still = [n for n, p in before.items() if n != "log_odds" and torch.equal(p, after[n])]
    assert len(before) > 1 and not still
    assert len(pyro.get_param_store()) == 0
    assert copy.deepcopy(result.gated).kept() == result.gated.kept()


def test_a_plates_sites_pay_as_many_as_it_has():
    """Ten Normals N(m, s²) against N(−1, 1), and gates at their log-odds: at s → 0 all is known."""
    gated = gate(plated, initial_inclusion=0.3)
    for name in ("tilt/input", "tilt/0"):
        gated.default_guide.loc[name].data.fill_(0.5)
        gated.default_guide.log_scale[name].data.fill_(-12.0)
    assert gated.default_guide.loc["tilt/input"].shape == (6,)
    divergence = torch.distributions.kl_divergence(
        dist.Normal(0.5, torch.tensor(-12.0).exp()), dist.Normal(-1.0, 1.0)
    )
    of_gate = torch.distributions.kl_divergence(dist.Bernoulli(0.3), dist.Bernoulli(logits=torch.tensor(0.5)))
    torch.manual_seed(0)
    draws = torch.stack([gate_nats(gated, gated.inclusion_prob()).detach() for _ in range(200)])
    # log q of a draw has variance ½ a site
    assert draws.mean().item() == pytest.approx(
        10 * (divergence + of_gate).item(), abs=4.42 * (5 / 200) ** 0.5
    )


def test_sites_in_plates_have_their_shape_in_model_and_guide():
    gated = gate(plated)
    x, y = rows_of(gated)
    guide = poutine.trace(gated.guide).get_trace(x, y)
    model = poutine.trace(poutine.replay(gated.model, trace=guide)).get_trace(x, y)
    for trace in (guide, model):
        fn = trace.nodes["tilt/input"]["fn"]
        assert fn.batch_shape == (6,) and fn.event_shape == ()


def test_stored_parameters_are_the_models_and_start_where_the_program_says():
    gated = gate(stored, initial_inclusion=0.3)
    names = dict(gated.named_parameters())
    center = names["default_guide.stored.unconstrained.center"]
    scale = names["default_guide.stored.unconstrained.scale"]
    assert center.item() == -4.0 and scale.exp().item() == pytest.approx(0.5)
    (slope,) = torch.autograd.grad(gate_nats(gated, gated.inclusion_prob()), center)
    # Σ KL(0.3 ‖ σ(0.5 c)): 10 · 0.5 · (σ(−2) − 0.3)
    assert slope.item() == pytest.approx(5 * (torch.sigmoid(torch.tensor(-2.0)).item() - 0.3))


def test_stored_parameters_reach_their_optimum():
    """Empirical Bayes: the rate is that of the gates, σ(c·s) = 0.3; a guide N(loc, s²) is its posterior."""
    gated = gate(stored, initial_inclusion=0.3)
    parameters = list(gated.default_guide.parameters())
    found = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", max_iter=60)
    probs = gated.inclusion_prob().detach()

    def closure():
        found.zero_grad()
        nats = gate_nats(gated, probs)
        nats.backward()
        return nats

    found.step(closure)
    assert gate_nats(gated, probs).item() == pytest.approx(0.0, abs=1e-6)
    rate = gated.gate_prior(gated.groups[0]).probs
    torch.testing.assert_close(rate.detach(), torch.full((6,), 0.3), atol=1e-3, rtol=0.0)


def test_two_models_share_no_parameter_and_pyros_store_is_left_alone():
    kept = pyro.param("center", torch.tensor(7.0))
    try:
        first, second = gate(stored), gate(stored)
        first.default_guide.stored.unconstrained["center"].data.fill_(1.0)
        assert second.default_guide.stored.unconstrained["center"].item() == -4.0
        gate(Rates()).gate_priors()
        assert set(pyro.get_param_store().keys()) == {"center"} and kept.item() == 7.0
    finally:
        pyro.clear_param_store()


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_stored_parameters_are_saved_and_gone_on_from(tmp_path):
    x, y = rows_of(gate(StoredGuide()), 64)
    whole = bp.fit(gate(StoredGuide()), (x, y), epochs=3, batch_size=16, progress=False)

    class Enough(Exception):
        pass

    def stop(record):
        if record.epoch == 2:
            raise Enough

    settings = {"epochs": 3, "batch_size": 16, "progress": False, "checkpoint": tmp_path}
    with pytest.raises(Enough):
        bp.fit(gate(StoredGuide()), (x, y), **settings, on_epoch=stop)
    resumed = bp.fit(gate(StoredGuide()), (x, y), **settings, resume=True)
    names = [n for n in whole.gated.state_dict() if "stored" in n]
    assert len(names) == 4
    for name in names:
        assert torch.equal(whole.gated.state_dict()[name], resumed.gated.state_dict()[name])
        assert not torch.equal(gate(StoredGuide()).state_dict()[name], resumed.gated.state_dict()[name])


# ---- what is refused

OUTSIDE = nn.Linear(1, 1).double()


def subsampled(group):
    with pyro.plate("units", group.size, subsample_size=2):
        pyro.sample(f"tilt/{group.name}", dist.Normal(0.0, 1.0))
    return priors.Gates(probs=torch.full((group.size,), 0.5))


def moving_support(group):
    top = pyro.sample(f"top/{group.name}", dist.Uniform(0.1, 1.0))
    return priors.Gates(probs=pyro.sample(f"rate/{group.name}", dist.Uniform(0.0, top)).expand(group.size))


def named(name):
    def prior(group):
        return priors.Gates(logits=pyro.sample(name, dist.Normal(0.0, 1.0)).expand(group.size))

    return prior


def twice(group):
    first = pyro.sample(f"tilt/{group.name}", dist.Normal(0.0, 1.0))
    second = pyro.sample(f"tilt/{group.name}", dist.Normal(0.0, 1.0))
    return priors.Gates(logits=(first + second).expand(group.size))


def module_outside(group):
    return priors.Gates(logits=pyro.module("outside", OUTSIDE)(torch.ones(1)).expand(group.size))


def whole_number(group):
    return priors.Gates(logits=pyro.param("center", torch.tensor(3)).expand(group.size))


def without_start(group):
    return priors.Gates(logits=pyro.param("center").expand(group.size))


def beyond(group):
    scale = pyro.param("scale", torch.tensor(-1.0), constraint=POSITIVE)
    return priors.Gates(logits=scale.expand(group.size))


def now_and_then(runs=[]):  # noqa: B006
    def prior(group):
        runs.append(group)
        tilt = torch.zeros(())
        if len(runs) > 4:  # not in the first of the runs that are compared
            tilt = pyro.sample(f"tilt/{group.name}", dist.Normal(0.0, 1.0))
        return priors.Gates(logits=tilt.expand(group.size))

    return prior


def another_shape(runs=[]):  # noqa: B006
    def prior(group):
        runs.append(group)
        places = torch.zeros(1 + (len(runs) > 4))  # from the second of the runs that are compared
        tilt = pyro.sample(f"tilt/{group.name}", dist.Normal(places, 1.0).to_event(1))
        return priors.Gates(logits=tilt.sum().expand(group.size))

    return prior


REFUSED = {
    "a plate of a part": (subsampled, r"Plate 'units' .* takes 2 of its 6 places.*leave subsample_size out"),
    "a support that moves": (moving_support, r"support of hyper-site 'rate/input'.*depends on other sites"),
    "the model's own name": (named("y"), r"names a site 'y', and the model has sites of its own"),
    "the model's own prefix": (named("gate/input"), r"names a site 'gate/input'"),
    "a site twice": (twice, r"samples site 'tilt/input' twice for group 'input'"),
    "a module outside": (module_outside, r"trainable tensors that it does not hold"),
    "a whole number": (whole_number, r"pyro.param\('center'\).*starts from tensor\(3\)"),
    "no start": (without_start, r"pyro.param\('center'\).*starts from None"),
    "outside of its constraint": (beyond, r"pyro.param\('scale'\).*not inside of its constraint"),
    "another shape": (another_shape(), r"'tilt/input' of the prior has another shape in another run"),
    "in some runs": (now_and_then(), r"'tilt/input' of the prior is there in some runs and not in others"),
}


@pytest.mark.parametrize("prior, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_by_gate(prior, message):
    with pytest.raises(PriorError, match=message):
        gate(prior)
    assert len(pyro.get_param_store()) == 0


def test_a_parameter_that_comes_later_is_named():
    late = []

    def prior(group):
        rate = pyro.param("late", torch.tensor(0.0)) if late else torch.zeros(())
        return priors.Gates(logits=rate.expand(group.size))

    gated = gate(prior)
    late.append(True)
    with pytest.raises(
        PriorError, match=r"asks for pyro.param\('late'\).*ask for every parameter in every run"
    ):
        gated.gate_priors()
