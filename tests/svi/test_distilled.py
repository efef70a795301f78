"""Learning from a teacher: the fused ELBO is Pyro's, rows come in any form, and what is scored is targets."""

import copy
import pickle

import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import CheckpointError, LikelihoodError, LikelihoodWarning, SettingsError
from bayesprune.likelihoods.taught import Taught
from bayesprune.posterior.diagnose.joint import log_joint
from bayesprune.svi import Engine, Recipe
from bayesprune.svi import checkpoint as checkpoints
from bayesprune.svi.objective import exact_negative_elbo, gate_nats
from tests.gated import test_calls as calls
from tests.reference import negative_elbo_by_pyro
from tests.svi.fits import FAST, ROWS, data, fit, gated_for, network, same
from tests.svi.small import EXACT, small_batch, small_gated


class Teacher(nn.Module):
    """Log-odds of the shared data's classes, from the pixels that decide; it counts the rows it sees."""

    def __init__(self, sharpness=6.0):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return self.sharpness * torch.stack(
            [-x[:, 0, 1:3, 1:3].mean((1, 2)), x[:, 0, 1:3, 1:3].mean((1, 2))], 1
        )


def taught(teacher=None, rows=ROWS, **settings):
    """The shared gated model under a likelihood that learns from a teacher."""
    likelihood = bp.Distilled(
        bp.Categorical(rows=rows), teacher or Teacher(), **{"temperature": 2.0, "weight": 0.5, **settings}
    )
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    return bp.gate(network(), torch.zeros(1, 1, 6, 6), prior=prior, likelihood=likelihood)


# ---- Pyro is the specification


def small_taught(likelihood, weight, **settings):
    torch.manual_seed(7)
    teacher = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    mixed = bp.Distilled(likelihood, teacher, temperature=1.7, weight=weight)
    return small_gated(copy.deepcopy(EXACT["fixed"]), likelihood=mixed, **settings)


def targets(likelihood, labels):
    columns = torch.stack([labels, 1 - labels], 1)
    return labels if isinstance(likelihood, bp.Categorical) else columns.double()


BASES = {
    "categorical": lambda: bp.Categorical(rows=40),
    "bernoulli": lambda: bp.Bernoulli(rows=40),
    "poisson": lambda: bp.Poisson(rows=40),
    "gaussian": lambda: bp.Gaussian(rows=40, scale=0.7),
}


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("base", BASES)
def test_the_fused_elbo_and_its_gradients_are_pyros(base, weight):
    gated = small_taught(BASES[base](), weight, removed=base == "categorical")
    x, labels = small_batch()
    y = targets(gated.likelihood.plain, labels)
    fused, slow = exact_negative_elbo(gated, x, y), negative_elbo_by_pyro(gated, x, y)
    assert fused.item() == pytest.approx(slow.item(), abs=1e-6)
    parameters = [p for p in gated.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(value, parameters, allow_unused=True) for value in (fused, slow))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    if weight:
        plain = gated.likelihood.plain
        gated.likelihood = plain
        assert abs(exact_negative_elbo(gated, x, y).item() - fused.item()) > 0.1, "the teacher counts"


@pytest.mark.usefixtures("double_precision")
def test_a_step_follows_that_gradient():
    gated = small_taught(bp.Categorical(rows=40), 0.6)
    x, y = small_batch()
    parameters = [p for p in gated.network.parameters() if p.requires_grad]
    expected = torch.autograd.grad(exact_negative_elbo(gated, x, y), parameters)
    engine = Engine(gated, Recipe(estimator="enumeration", gates=bp.GateSteps(every=1)), seed=0)
    groups = [
        {"params": g["params"], "weight_decay": g["weight_decay"]} for g in engine.optimiser.param_groups
    ]
    engine.optimiser = torch.optim.SGD(groups, lr=1.0)
    before = [p.detach().clone() for p in parameters]
    _, info = engine.step(engine.init(), (x, y))
    assert info.moved
    for old, new, gradient in zip(before, parameters, expected, strict=True):
        torch.testing.assert_close(old - new, gradient / 40, rtol=1e-6, atol=1e-9)


def test_pyros_own_elbo_and_predictive_run():
    gated = taught(weight=1.0)
    x, y = data(8)
    loss = Trace_ELBO().differentiable_loss(gated.model, gated.guide, x, y)
    loss.backward()
    assert bool(loss.isfinite()) and gated.log_odds.grad is not None
    drawn = Predictive(gated.model, guide=gated.guide, num_samples=3)(x)
    assert drawn["y"].shape == (3, 8) and set(drawn["y"].flatten().tolist()) <= {0, 1}


# ---- rows in every form


def test_rows_in_memory_are_told_once():
    teacher = Teacher()
    fit(taught(teacher), epochs=3)
    looked_at = 2 * 16 if teacher.rows > ROWS else 0
    assert ROWS <= teacher.rows <= ROWS + 64 + looked_at


class Augmented:
    """Batches that are other numbers in every pass; it keeps what it gave."""

    def __init__(self, x, y):
        self.rows, self.given = (x, y), set()

    def __iter__(self):
        generator = torch.Generator().manual_seed(len(self.given))
        for x, y in zip(*(part.split(16) for part in self.rows), strict=True):
            x = x + 0.1 * torch.randn(x.shape, generator=generator)
            self.given.add(float(x.sum()))
            yield x, y

    def __len__(self):
        return ROWS // 16


class Rows(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.x[row], self.y[row]


def test_steps_on_rows_that_come_are_those_on_rows_in_memory():
    x, y = data()
    moved = []
    for batch in ((x[:16], y[:16]), (x[:16], Taught.of(y, Teacher()(x).detach())[:16])):
        gated = taught()
        engine = Engine(gated, Recipe(**FAST), seed=0)
        state = engine.init()
        for _ in range(3):
            state, info = engine.step(state, batch)
        moved.append((info.nll, *[p.detach() for p in gated.parameters()]))
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_data_sets_learn_what_rows_in_memory_learn():
    whole, other = fit(taught(), epochs=3), fit(taught(), train=Rows(*data()), epochs=3)
    for one, two in zip(whole.history, other.history, strict=True):
        assert one.nll == pytest.approx(two.nll, rel=1e-3)
        torch.testing.assert_close(one.inclusion, two.inclusion, atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", ["stream", "loader"])
def test_of_rows_that_come_the_teacher_is_asked_as_they_come(form):
    x, y = data()
    asked, teacher, stream = [], Teacher(), Augmented(x, y)

    def heard(rows):
        asked.append(float(rows.sum()))
        return teacher(rows)

    rows = stream if form == "stream" else DataLoader(Rows(x, y), batch_size=16, shuffle=True)
    told = {"rows": ROWS} if form == "stream" else {}
    result = fit(taught(heard), train=rows, epochs=4, batch_size=None, **told)
    assert 4 * ROWS <= teacher.rows <= 4 * ROWS + 16, "every epoch, and once before"
    assert form == "loader" or set(asked) <= stream.given, "of the very numbers that the network sees"
    alone = fit(gated_for(), train=rows, epochs=4, batch_size=None, **told)
    assert abs(result.history[-1].nll - alone.history[-1].nll) > 0.01


def test_inputs_that_are_dicts_reach_the_teacher_by_name():
    torch.manual_seed(1)
    teacher = calls.Classifier(dict)
    likelihood = bp.Distilled(bp.Categorical(rows=calls.ROWS, output="logits"), teacher, weight=0.5)
    results = [calls.fitted(calls.gated(likelihood=likelihood), rows) for rows in calls.FORMS.values()]
    plain = calls.fitted(calls.gated(), calls.FORMS["pair"])
    for result in results:
        assert result.history[-1].nll == pytest.approx(results[0].history[-1].nll, rel=0.05)
        assert result.history[-1].nll != plain.history[-1].nll
    small = bp.prune(results[0])
    assert bp.evaluate(small, calls.DICT, results[0].likelihood).name == "error_percent"


# ---- what comes of it


def test_at_weight_zero_the_fit_is_the_likelihoods_bit_for_bit():
    same(fit(gated_for()), fit(taught(weight=0.0)))


@pytest.mark.parametrize("base", ["gaussian", "poisson", "bernoulli"])
def test_other_likelihoods_start_and_follow_what_is_theirs(base):
    """At weight zero to the bit, and so for everything that a fit asks a likelihood for."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 3, generator=generator)
    rate = (5 + 0.5 * x[:, :1]).exp()
    y = {"gaussian": 900 + rate, "poisson": rate.round(), "bernoulli": (x[:, :1] > 0).float()}[base]
    results = []
    for wrapped in (False, True):
        likelihood = getattr(bp, base.capitalize())(rows=80)
        likelihood = bp.Distilled(likelihood, lambda x: x, weight=0.0) if wrapped else likelihood
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        prior = priors.BernoulliGates(priors.Flattening(1.0))
        gated = bp.gate(model, x[:1], prior=prior, likelihood=likelihood)
        results.append(bp.fit(gated, (x, y), epochs=3, batch_size=16, progress=False))
    one, two = results
    assert [e.elbo for e in one.history] == [e.elbo for e in two.history]
    assert torch.equal(bp.prune(one)(x), bp.prune(two)(x))
    assert one.likelihood.learnt() == two.likelihood.learnt()
    assert (two.gated.network.frame is not None) == (base != "bernoulli")


def test_what_is_scored_are_the_targets():
    x, y = data()
    wrong = Teacher(sharpness=-20.0)  # says the opposite
    result = fit(taught(wrong, weight=1.0, temperature=1.0), epochs=12)
    small, plain = bp.prune(result), bp.Categorical(rows=ROWS)
    assert bp.evaluate(small, (x, y), plain).score > 60.0, "it learnt from its teacher"
    expected = bp.evaluate(small, (x, y), plain)
    for found in (bp.evaluate(result, (x, y)), bp.evaluate(small, (x, y), result.likelihood)):
        assert found.score == expected.score
        assert found.nll == pytest.approx(expected.nll, abs=1e-6)
    stored = result.posterior().to_arviz(draws=20, rows=(x, y))
    logs = stored["log_likelihood"]["y"].values[0]
    assert -logs.mean() == pytest.approx(expected.nll, abs=1e-4)
    assert stored["posterior_predictive"]["y"].dtype == torch.zeros(1).short().numpy().dtype, "classes"


def test_the_elbo_of_draws_counts_the_teacher_as_the_fit_does():
    x, y = data()
    result = fit(taught(weight=0.7), epochs=3)
    stored = result.posterior().to_arviz(draws=8, rows=(x, y))
    stats, likelihood = stored["sample_stats"], result.likelihood
    small = bp.prune(result)
    nats = float(likelihood.nll(small(x), likelihood.taught(x, y)).sum().detach())
    by_hand = stats["lp"].values[0] - stats["log_q"].values[0] - nats
    assert stats["elbo"].values[0] == pytest.approx(by_hand, abs=1e-2)
    result.gated.likelihood = likelihood.plain
    other = result.posterior().to_arviz(draws=8, rows=(x, y))["sample_stats"]["elbo"].values[0]
    assert abs(other - by_hand).min() > 0.1


def test_the_joint_of_a_mask_is_that_which_the_fit_works_on():
    x, y = data()
    result = fit(taught(weight=0.7), epochs=3)
    gated, likelihood = result.gated, result.likelihood
    (found,) = log_joint(gated, gated.alive[None].float(), (x, y))
    prior = float(gate_nats(gated, gated.alive.double()))
    nats = float(likelihood.nll(bp.prune(result)(x), likelihood.taught(x, y)).sum().detach())
    assert found == pytest.approx(-prior - nats, abs=1e-3)


def test_evidence_is_of_the_targets():
    x, y = data()
    result = fit(taught(weight=0.9), epochs=3)
    with_teacher = result.evidence((x, y), units=2)
    result.gated.likelihood = result.likelihood.plain
    assert str(with_teacher) == str(result.evidence((x, y), units=2))


def test_gaussian_targets_are_learnt_in_their_own_unit_and_so_is_the_noise():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    truth = 5_000 + 800 * x[:, 0]
    y = truth + 100 * torch.randn(200, generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    recipe = bp.Recipe(learning_rate=1e-2, compact_learning_rate=1e-2)
    scales, errors = [], []
    for weight in (0.0, 1.0):
        likelihood = bp.Distilled(bp.Gaussian(rows=200), lambda x: 5_000 + 800 * x[:, :1], weight=weight)
        prior = priors.BernoulliGates(priors.Flattening(1.0))
        gated = bp.gate(model, x[:1], prior=prior, likelihood=likelihood)
        result = bp.fit(gated, (x, y), epochs=60, batch_size=40, recipe=recipe, progress=False)
        scales.append(result.likelihood.learnt()["noise_scale"])
        errors.append(float((bp.prune(result)(x)[:, 0] - truth).detach().square().mean().sqrt()))
        assert bp.evaluate(bp.prune(result), (x, y), result.likelihood).name == "rmse"
    assert errors[1] < errors[0] < 100, "a teacher who knows the mean takes the noise away"
    assert 85 < scales[1] < 125, "the noise is that of the targets, not of what the teacher says"


def test_what_ships_and_what_is_kept_holds_no_teacher(tmp_path):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 20_000), nn.Linear(20_000, 2))
    result = fit(taught(teacher), epochs=2, checkpoint=tmp_path / "kept")
    small = bp.prune(result)
    bp.save(small, tmp_path / "saved", example=data()[0][:1])
    torch.save(result.likelihood, tmp_path / "likelihood.pt")
    sizes = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert len(sizes) > 4 and max(sizes) < 300_000 < 4 * 20_000 * 36
    read = pickle.loads(pickle.dumps(result.likelihood))
    assert bp.evaluate(small, data(), read).nll == bp.evaluate(result, data()).nll
    result.gated.likelihood = read
    with pytest.raises(LikelihoodError, match=r"was not saved"):
        fit(result.gated)


# ---- checkpoints


@pytest.mark.parametrize("stop", [2, 5], ids=["before the decision", "after it"])
@pytest.mark.parametrize("form", ["memory", "loader"])
def test_a_training_goes_on_to_the_bit_equal_result(form, stop, tmp_path):
    class Stop(Exception):
        pass

    def interrupt(epoch):
        if epoch.epoch == stop:
            raise Stop

    def run(**settings):
        rows, batch = data(), 16
        if form == "loader":
            generator = torch.Generator().manual_seed(3)
            rows, batch = DataLoader(TensorDataset(*rows), 16, shuffle=True, generator=generator), None
        return fit(taught(), train=rows, batch_size=batch, **settings)

    whole = run()
    with pytest.raises(Stop):
        run(checkpoint=tmp_path, on_epoch=interrupt)
    torch.manual_seed(99)
    same(whole, run(checkpoint=tmp_path, resume=True))
    assert all("teacher" not in str(path) for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "other",
    [
        lambda: taught(Teacher(sharpness=6.1)),
        lambda: taught(weight=0.6),
        lambda: taught(temperature=2.5),
        lambda: taught([Teacher(), Teacher()]),
        gated_for,
    ],
    ids=["teacher", "weight", "temperature", "ensemble", "none"],
)
def test_another_teacher_is_refused(other, tmp_path):
    fit(taught(), epochs=3, checkpoint=tmp_path)
    before = checkpoints.latest(tmp_path).read_bytes()
    with pytest.raises(CheckpointError, match=r"other settings: likelihood='Distilled\(Categorical\), temp"):
        fit(other(), epochs=3, checkpoint=tmp_path, resume=True)
    assert checkpoints.latest(tmp_path).read_bytes() == before


def test_another_function_is_refused_where_rows_lie_in_memory(tmp_path):
    teacher = Teacher()
    fit(taught(lambda x: teacher(x)), epochs=2, checkpoint=tmp_path)
    fit(taught(lambda x: teacher(x)), epochs=2, checkpoint=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="teacher"):
        fit(taught(lambda x: teacher(x) + x[:, 0, :1, 0]), epochs=2, checkpoint=tmp_path, resume=True)


# ---- loops of one's own


@pytest.mark.parametrize("half", [False, True], ids=["single", "autocast"])
def test_a_loop_of_ones_own_listens_too(half):
    x, y = data()
    wrong = Teacher(sharpness=-20.0)
    model = taught(wrong, weight=0.9, temperature=1.0)
    training = bp.Training(model, steps=150, recipe=bp.Recipe(**FAST))
    for _ in range(150):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = training.loss((x, y))
        assert loss.dtype == torch.float32
        loss.backward()
        training.step()
    small = training.finish().eval()
    assert bp.evaluate(small, (x, y), bp.Categorical(rows=ROWS)).score > 60.0, "it learnt from its teacher"
    assert wrong.rows >= 150 * ROWS


def test_a_loop_of_ones_own_refuses_a_teacher_of_other_classes_before_its_first_step():
    training = bp.Training(taught(lambda x: torch.zeros(len(x), 3)), steps=10)
    with pytest.raises(LikelihoodError, match=r"says \(3,\) numbers of a row"):
        training.loss(data())


# ---- a model as its own teacher


def test_a_fit_and_a_gated_model_teach_by_their_mean_over_masks():
    x, _ = data(6)
    teacher = gated_for()
    teacher.log_odds.data.normal_(generator=torch.Generator().manual_seed(0))
    teacher.network.eval()
    members = teacher.as_teacher(draws=400, seed=1)
    assert len({m.more for m in members}) == len(members) and sum(m.share for m in members) == pytest.approx(
        1
    )
    likelihood = bp.Distilled(bp.Categorical(rows=6), teacher)
    said = likelihood.taught(x, torch.zeros(6).long()).said
    assert torch.equal(said, likelihood.taught(x, torch.zeros(6).long()).said), "masks are drawn once"
    total = torch.zeros(6, 2)
    for member in teacher.as_teacher():
        total += member.share * member.outputs(x).detach().softmax(-1)
    torch.testing.assert_close(said.softmax(-1), total)
    result = fit(epochs=2)
    own = bp.Distilled(bp.Categorical(rows=ROWS), result)
    (only,) = own.teacher.members  # all gates are decided
    torch.testing.assert_close(own.taught(*data()).said, bp.prune(result)(data()[0]).detach())
    assert only.share == 1.0


def test_masks_are_drawn_with_the_probabilities_of_the_guide():
    teacher = gated_for()
    teacher.log_odds.data.normal_(generator=torch.Generator().manual_seed(0))
    draws, mean = 4000, torch.zeros(len(teacher.log_odds))
    for member in teacher.as_teacher(draws=draws):
        mask = torch.zeros(len(mean))
        mask[[int(i) for i in member.more.split("]")[0].strip("[").split(",") if i.strip()]] = 1
        mean += member.share * mask
    probs = teacher.inclusion_prob().detach()
    assert bool(((mean - probs).abs() < 5 * (probs * (1 - probs) / draws).sqrt()).all())


def test_weights_with_a_posterior_are_drawn_too():
    gated = gated_for(weights=priors.NormalWeights(posterior="normal", initial_scale=0.3))
    x = data(4)[0]
    gated.eval()
    members = gated.as_teacher(draws=3, seed=4)
    said = [member.outputs(x).detach() for member in members]
    assert len(members) == 3 and not torch.equal(said[0], said[1])
    assert torch.equal(said[0], members[0].outputs(x)), "drawn from its seed every time"
    assert [m.more for m in members] == [m.more for m in gated.as_teacher(draws=3, seed=4)]
    assert [m.more for m in members] != [m.more for m in gated.as_teacher(draws=3, seed=5)]


@pytest.mark.parametrize("settings, match", [({"draws": 0}, "draws=0"), ({"seed": -1}, "seed=-1")])
def test_draws_that_are_none_are_refused(settings, match):
    with pytest.raises(SettingsError, match=match):
        gated_for().as_teacher(**settings)


def test_a_student_learns_from_the_posterior_of_a_fit():
    first = fit(epochs=12)
    likelihood = bp.Distilled(bp.Categorical(rows=ROWS), [first, Teacher()], temperature=2.0, weight=0.9)
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(network(), torch.zeros(1, 1, 6, 6), prior=prior, likelihood=likelihood)
    result = fit(gated, epochs=12)
    assert bp.evaluate(result, data()).nll < 0.69


# ---- refused before the training begins


BAD = {
    "classes": (lambda x: torch.zeros(len(x), 3), r"says \(3,\) numbers of a row, and the network \(2,\)"),
    "nan": (lambda x: torch.full((len(x), 2), torch.nan), "says nan of row 0"),
    "probabilities": (lambda x: torch.full((len(x), 2), 0.5), "lie in .0, 1. and sum to one"),
    "does not run": (nn.Linear(5, 2), "does not run on"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_teacher_that_does_not_fit_ends_before_the_first_step(name, tmp_path):
    teacher, match = BAD[name]
    with pytest.raises(LikelihoodError, match=match):
        fit(taught(teacher), checkpoint=tmp_path / "none", on_epoch=lambda epoch: pytest.fail("it trained"))
    assert not (tmp_path / "none").exists()


def test_a_row_in_memory_that_the_teacher_cannot_say_anything_of_ends_it_too():
    x, y = data()
    bad = x[90].clone()

    def teacher(rows):
        is_bad = (rows == bad).flatten(1).all(1)
        return torch.where(is_bad[:, None], torch.nan, Teacher()(rows))

    with pytest.raises(LikelihoodError, match="says nan of row 90"):
        fit(taught(teacher), train=(x, y), on_epoch=lambda epoch: pytest.fail("it trained"))


def test_outputs_of_another_kind_are_still_warned_of():
    end = nn.Sequential(network(), nn.Softmax(-1))
    likelihood = bp.Distilled(bp.Categorical(rows=ROWS), Teacher())
    prior = priors.BernoulliGates(priors.Flattening(2.0))
    gated = bp.gate(end, torch.zeros(1, 1, 6, 6), prior=prior, likelihood=likelihood)
    with pytest.warns(LikelihoodWarning, match="leave the last Softmax"):
        fit(gated, epochs=1)


def test_simulated_targets_have_no_teacher():
    from bayesprune.posterior.simulate import simulate_ranks

    x = data()[0]
    with pytest.raises(SettingsError, match=r"learns from a teacher.*gate with Categorical alone"):
        simulate_ranks(taught(), x, lambda model, rows: model.guide, simulations=50)
