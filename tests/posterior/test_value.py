"""The posterior as a value: its draws' densities are Pyro's, its groups complete, its files readable."""

import sys
import types

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro import poutine
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError, PosteriorError
from bayesprune.posterior import join, read, to_arviz, write
from bayesprune.posterior.arviz import pareto_k, unwrap, wrap
from bayesprune.priors import Gates

OLD = hasattr(arviz, "psislw")  # the series 0.x
OF_0 = pytest.mark.skipif(not OLD, reason="of ArviZ 0.x, and 1.x is installed")
ROWS = 40
X = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def own_rate(group):
    """A plain program, which broadcasting over draws would break: 5 draws would pass as 5 units."""
    rate = pyro.sample(f"rate/{group.name}", dist.Beta(1.0, 2.0))
    return Gates(probs=rate.expand(group.size))


class Hierarchy:
    """Two hyper-sites, the second given the first, with a guide that is alike."""

    def __call__(self, group):
        return Gates(probs=self._sites(group, 2.0).expand(group.size))

    def guide(self, group, inclusion_prob):
        self._sites(group, 3.0)

    def _sites(self, group, first):
        mean = pyro.sample(f"mean/{group.name}", dist.Beta(first, 2.0))
        return pyro.sample(f"rate/{group.name}", dist.Beta(5 * mean, 5 * (1 - mean)))


PRIORS = {
    "flattening": bp.priors.BernoulliGates(bp.priors.Flattening(3.0)),
    "beta": bp.priors.BernoulliGates(bp.priors.Beta(1.0, 3.0)),
    "fixed": bp.priors.BernoulliGates(bp.priors.Fixed(0.3)),
    "slab": bp.priors.SpikeAndSlab(0.5),
    "slab, scales of their own": bp.priors.SpikeAndSlab(relevance=True),
    "cost": bp.Price.from_cost(nats=20.0),
    "own": own_rate,
    "hierarchy": Hierarchy(),
}


def gated_for(name="flattening", seed=0, inclusion=0.7, rows=2 * ROWS):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    likelihood = bp.Categorical(rows=rows)
    return bp.gate(
        network, X[:1], prior=PRIORS[name], likelihood=likelihood, initial_inclusion=inclusion, unit_noise=0.1
    )


def fitted(seed, epochs=3):
    return bp.fit(
        gated_for(seed=seed, rows=ROWS), (X, Y), epochs=epochs, batch_size=20, seed=seed, progress=False
    )


@pytest.fixture(scope="module")
def fits():
    return [fitted(0), fitted(1, epochs=2)]


@pytest.fixture(scope="module")
def idata(fits):
    return bp.Posterior.of(fits).to_arviz(draws=30, thin=3, prior=20, rows=(X, Y), observed=True)


@pytest.mark.parametrize("removed", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("name", PRIORS)
def test_densities_are_those_of_pyros_traces(name, removed):
    gated = gated_for(name)
    if removed:
        gated.remove_(torch.arange(8) == 4)
    draws = 5  # as many as units of a group
    groups = unwrap(bp.Posterior.of(gated).to_arviz(draws=draws, weights=True, prior=0, rows=(X, Y)))
    posterior, stats = groups["posterior"], groups["sample_stats"]
    gated.eval()
    for number in range(draws):
        values = {
            str(site): torch.as_tensor(v.values[0, number].copy())
            for site, v in posterior.data_vars.items()
            if not str(site).startswith("inclusion_prob/")
        }
        values = {n: v.float() if n.startswith("gate/") else v for n, v in values.items()}
        with torch.no_grad():
            guide = poutine.trace(poutine.condition(gated.guide, data=values)).get_trace(X)
            values |= {n: s["value"] for n, s in guide.nodes.items() if n.startswith("weight/")}
            values = {n: v for n, v in values.items() if n in guide.nodes}
            model = poutine.trace(poutine.condition(gated.model, data=values)).get_trace(X, Y)
            model.compute_log_prob()
            log_q = float(guide.log_prob_sum())
        log_joint, y = float(model.log_prob_sum()), float(model.nodes["y"]["log_prob_sum"])
        sample = stats.isel(chain=0, draw=number)
        assert float(sample.log_q) == pytest.approx(log_q, rel=1e-4, abs=1e-4)
        assert float(sample.lp) == pytest.approx(log_joint - y, rel=1e-4, abs=1e-4)
        assert float(sample.elbo) == pytest.approx(log_joint - log_q, rel=1e-4, abs=1e-3)


def test_every_group_has_named_dimensions_and_units(idata, fits):
    groups = unwrap(idata)
    assert set(groups) == {
        "posterior", "sample_stats", "prior", "posterior_predictive", "log_likelihood", "history",
        "observed_data", "constant_data",
    }  # fmt: skip
    gates = groups["posterior"]["gate/0"]
    assert gates.dims == ("chain", "draw", "0_unit") and gates.shape == (2, 10, 5) and gates.dtype == np.int8
    assert gates.draw.values.tolist() == list(range(0, 30, 3))
    assert groups["posterior"]["pi/input"].dims == ("chain", "draw", "input_unit")
    theta = groups["posterior"]["inclusion_prob/0"].isel(draw=-1).values
    for chain, fit in enumerate(fits):
        assert theta[chain] == pytest.approx(
            fit.gated.by_group(fit.gated.inclusion_prob())["0"].detach().numpy()
        )
        elbo = groups["history"].elbo.values[chain]
        assert elbo[: len(fit.history)] == pytest.approx([e.elbo for e in fit.history])
        assert np.isnan(elbo[len(fit.history) :]).all()
    assert groups["log_likelihood"]["y"].shape == (2, 10, ROWS)
    assert groups["posterior_predictive"]["mean"].sum("output").values == pytest.approx(
        np.ones((2, ROWS)), abs=1e-5
    )
    assert groups["observed_data"]["y"].values.tolist() == Y.tolist()
    assert groups["constant_data"].group.values.tolist() == ["input", "0"]
    assert groups["constant_data"]["rows"] == ROWS
    assert groups["sample_stats"]["lp"].attrs["units"] == "nats"


def test_costs_of_a_draw_are_those_of_the_network_that_it_leaves(idata, fits):
    groups = unwrap(idata)
    gates, stats = groups["posterior"], groups["sample_stats"]
    inputs, hidden = (gates[f"gate/{g}"].sum(f"{g}_unit").values for g in ("input", "0"))
    assert (stats["macs"].values == inputs * hidden + 2 * hidden).all()


def test_scores_of_the_hard_mask_are_those_of_evaluate(idata, fits):
    hard = unwrap(idata)["posterior_predictive"]["hard_score"].values
    assert hard == pytest.approx([bp.evaluate(fit.gated, (X, Y)).score for fit in fits])


def test_draws_of_the_prior_have_its_frequencies():
    gated = gated_for("fixed")
    prior = unwrap(bp.Posterior.of(gated).to_arviz(draws=2, prior=4000))["prior"]
    assert float(prior["gate/0"].mean()) == pytest.approx(0.3, abs=5 * (0.21 / 20000) ** 0.5)
    rates = unwrap(bp.Posterior.of(gated_for("own")).to_arviz(draws=2, prior=4000))["prior"]
    assert float(rates["rate/0"].mean()) == pytest.approx(1 / 3, abs=5 * (1 / 18 / 4000) ** 0.5)
    together = np.corrcoef(rates["rate/0"].values[0], rates["gate/0"].values[0].mean(-1))[0, 1]
    assert together > 0.5  # gates follow their own draw's rate


def test_one_fit_has_a_posterior_and_leaves_torchs_random_state_alone(fits):
    state = torch.get_rng_state()
    one, same = (fits[0].posterior().to_arviz(draws=20) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert unwrap(one)["posterior"].identical(unwrap(same)["posterior"])
    assert "log_likelihood" not in unwrap(one)


@pytest.mark.parametrize("tree", [pytest.param(False, marks=OF_0), True], ids=["InferenceData", "DataTree"])
def test_files_keep_everything_in_either_container(tree, idata, tmp_path):
    groups = unwrap(idata)
    container = wrap(groups, tree=tree)
    assert isinstance(container, xr.DataTree) == tree
    path = write(container, tmp_path / "posterior.nc")
    again = unwrap(read(path))
    assert set(again) == set(groups)
    for name, part in groups.items():
        xr.testing.assert_identical(again[name], part)
    assert arviz.from_netcdf(str(path)).posterior["gate:0"].shape == (2, 10, 5)
    assert {n.name for n in tmp_path.iterdir()} == {"posterior.nc"}
    before = path.read_bytes()
    with pytest.raises(PosteriorError, match="left as it is"):
        write(container, path)
    assert path.read_bytes() == before


def test_files_of_other_programs_are_refused_and_left_alone(tmp_path):
    other = tmp_path / "other.nc"
    foreign = {"posterior": {"mu": np.zeros((2, 5))}}
    (arviz.from_dict(**foreign) if OLD else arviz.from_dict(foreign)).to_netcdf(str(other))
    text = tmp_path / "text.nc"
    text.write_text("no NetCDF")
    for path, message in (
        (other, "not by bayesprune"),
        (text, "cannot be read"),
        (tmp_path / "no.nc", "no such"),
    ):
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(PosteriorError, match=message):
            read(path)
        assert (path.read_bytes() if path.exists() else None) == before
    with pytest.raises(PosteriorError, match="dict holds no posterior"):
        unwrap({})


def test_what_does_not_fit_is_named(fits):
    other = bp.gate(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), X[:1], prior=PRIORS["fixed"],
                    likelihood=bp.Categorical(rows=ROWS))  # fmt: skip
    for given, message in (([fits[0], other], "another network"), ([], "got none"), ([3], "got int")):
        with pytest.raises(PosteriorError, match=message):
            bp.Posterior.of(given)
    posterior = fits[0].posterior()
    for settings, message in (
        ({"draws": 0}, "draws=0"), ({"observed": True}, "give rows="), ({"prior": -1}, "prior=-1"),
    ):  # fmt: skip
        with pytest.raises(PosteriorError, match=message):
            posterior.to_arviz(**settings)
    for rows, message in (((X, Y[:2]), "2 of targets"), ((X.double(), Y), "float64")):
        with pytest.raises(DataError, match=message):
            posterior.to_arviz(rows=rows)


@OF_0
def test_arviz_1_gets_a_tree_from_everything(fits, tmp_path, monkeypatch):
    """ArviZ 1.x calls DataTree InferenceData too, and has moved psislw, which wants minus the weights."""
    weights = np.random.default_rng(0).standard_t(2, size=500)
    expected = pareto_k(weights)
    calls = []

    def psislw(ary):
        calls.append(ary)
        return real(-ary)

    real, moved = arviz.psislw, types.ModuleType("arviz_stats.base")
    moved.array_stats = types.SimpleNamespace(psislw=psislw)
    monkeypatch.setitem(sys.modules, "arviz_stats", types.ModuleType("arviz_stats"))
    monkeypatch.setitem(sys.modules, "arviz_stats.base", moved)
    monkeypatch.setattr(arviz, "InferenceData", xr.DataTree)
    monkeypatch.delattr(arviz, "psislw")
    assert pareto_k(weights) == pytest.approx(expected) and len(calls) == 1
    tree = fits[0].posterior().to_arviz(draws=10)
    assert isinstance(tree, xr.DataTree) and tree["posterior"]["gate:0"].shape == (1, 10, 5)
    assert isinstance(read(write(tree, tmp_path / "tree.nc")), xr.DataTree)
    assert to_arviz(fits[0], draws=10)["posterior"]["gate:0"].shape == (1, 10, 5)
    assert bp.diagnose(tree).decided.verdict == bp.diagnose(fits[0], draws=10).decided.verdict


def test_arviz_1_is_recognised_without_being_asked_for_a_name_that_it_warns_of(fits, monkeypatch):
    """ArviZ 1.3 answers to ``arviz.InferenceData`` with DataTree and a MigrationWarning."""
    monkeypatch.delitem(vars(arviz), "InferenceData", raising=False)
    monkeypatch.setitem(vars(arviz), "__getattr__", lambda name: pytest.fail(f"asked for {name}"))
    assert isinstance(fits[0].posterior().to_arviz(draws=10), xr.DataTree)


@pytest.mark.parametrize("answer", ["At least 5", "All tail values are the same", None])
def test_weights_without_a_tail_that_can_be_fitted_have_an_infinite_one(answer, monkeypatch):
    """ArviZ 1.x raises where 0.x says infinity, and says NaN where one weight outweighs all others."""
    weights = np.random.default_rng(0).normal(size=20)
    assert pareto_k(weights) == np.inf  # too few for ArviZ 0.x

    def psislw(ary):
        if answer:
            raise ValueError(answer)
        return ary, float("nan")

    moved = types.ModuleType("arviz_stats.base")
    moved.array_stats = types.SimpleNamespace(psislw=psislw)
    monkeypatch.setitem(sys.modules, "arviz_stats", types.ModuleType("arviz_stats"))
    monkeypatch.setitem(sys.modules, "arviz_stats.base", moved)
    monkeypatch.delattr(arviz, "psislw", raising=False)
    assert pareto_k(weights) == np.inf


def test_draws_made_one_by_one_join_to_those_made_together(fits):
    parts = [fit.posterior().to_arviz(draws=30, thin=3, rows=(X, Y)) for fit in fits]
    joined, together = (
        unwrap(join(parts)),
        unwrap(bp.Posterior.of(fits).to_arviz(draws=30, thin=3, rows=(X, Y))),
    )
    assert set(joined) == set(together)
    for name in ("history", "constant_data"):
        xr.testing.assert_identical(joined[name], together[name])
    for name, group in together.items():
        assert dict(joined[name].sizes) == dict(group.sizes)
        assert {v: a.dtype for v, a in joined[name].items()} == {v: a.dtype for v, a in group.items()}
    with pytest.raises(PosteriorError, match="draw=10"):
        join([parts[0], fits[1].posterior().to_arviz(draws=5, rows=(X, Y))])
    with pytest.raises(PosteriorError, match="at least one"):
        join([])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.up = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 6)
        self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


@pytest.mark.parametrize("prior", ["flattening", "slab"])
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_sections_of_a_graph_are_a_group_like_others(prior, gone, monkeypatch):
    monkeypatch.setattr("bayesprune.svi.mask_evidence.MOST_WORK", 0)  # which this is not about
    torch.manual_seed(0)
    likelihood = bp.Categorical(rows=ROWS)
    gated = bp.gate(Residual(), X[:2], prior=PRIORS[prior], likelihood=likelihood, layers="sections")
    assert gated.groups[-1].name == "layers"
    if gone:
        part = gated.slices()["layers"]
        gated.remove_(torch.arange(len(gated.log_odds)) == part.start)
    gated.log_odds.data.fill_(30.0)
    groups = unwrap(bp.Posterior.of(gated).to_arviz(draws=6, weights=True, rows=(X, Y)))
    gates = groups["posterior"]["gate/layers"]
    assert gates.dims == ("chain", "draw", "layers_unit") and (gates == (0 if gone else 1)).all()
    assert (groups["sample_stats"]["macs"] == gated.network.macs()).all()
    assert groups["constant_data"]["optional"].sel(group="layers") == 1
    gated.log_odds.data[gated.slices()["stem"].start] = -30.0  # where all stay there is no choice to agree in
    answers = bp.diagnose([gated] * 4, rows=(X, Y), draws=6)
    assert answers.reproducible["Jaccard of units kept in stem"] == 1.0
    assert answers.faithful.verdict != "not asked"


def test_a_layer_that_some_fits_have_lost_matches_none(monkeypatch):
    monkeypatch.setattr("bayesprune.svi.mask_evidence.MOST_WORK", 0)  # which this is not about
    torch.manual_seed(0)
    settings = {"prior": PRIORS["flattening"], "likelihood": bp.Categorical(rows=ROWS), "layers": "sections"}
    whole, cut = (bp.gate(Residual(), X[:2], **settings) for _ in range(2))
    cut.remove_(torch.arange(len(cut.log_odds)) == cut.slices()["layers"].start)
    for gated in (whole, cut):
        gated.log_odds.data.fill_(30.0)
    for fits in ([whole, whole, whole, cut], [cut, whole, whole, whole]):
        answer = bp.diagnose(fits, rows=(X, Y), draws=6).reproducible
        assert answer["Jaccard of units kept in up"] == 0.5  # three of six pairs
