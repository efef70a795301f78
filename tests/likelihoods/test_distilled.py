"""Distillation: closed forms against Pyro's divergences, mixtures, ensembles, and every refusal."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import kl_divergence

import bayesprune as bp
from bayesprune.errors import LikelihoodError, LikelihoodWarning
from bayesprune.likelihoods import Bernoulli, Categorical, Distilled, Gaussian, Likelihood, Member, Poisson
from bayesprune.likelihoods.taught import Taught
from tests.likelihoods.families import FAMILIES, distribution, example

ROWS = 5


def distilled(name, teacher=None, **settings):
    """A distilled likelihood, the network's and the teacher's outputs, and targets that fit."""
    likelihood, outputs, said, targets = example(name, ROWS)
    return Distilled(likelihood, teacher or (lambda x: said), **settings), outputs, said, targets


def nats(name, **settings):
    likelihood, outputs, _, targets = distilled(name, **settings)
    return likelihood.nll(outputs, likelihood.taught(outputs, targets))


# ---- closed forms


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_taught_share_is_the_divergence_of_softened_distributions(name, temperature):
    likelihood, outputs, said, _ = example(name, ROWS)
    apart = kl_divergence(
        distribution(name, said / temperature), distribution(name, outputs / temperature)
    )  # of Gaussians too: their natural parameter is divided
    expected = temperature**2 * apart.reshape(ROWS, -1).sum(-1)
    found = likelihood.teacher_nats(outputs, said, temperature)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(nats(name, temperature=temperature, weight=1.0), expected)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_a_mixture_of_its_target_and_its_teacher(name, weight):
    likelihood, outputs, said, targets = distilled(name, temperature=2.0, weight=weight)
    base = likelihood.likelihood
    expected = (1 - weight) * base.nll(outputs, targets)
    expected = expected + weight * base.teacher_nats(outputs, said, 2.0)
    torch.testing.assert_close(likelihood.nll(outputs, likelihood.taught(outputs, targets)), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_at_weight_zero_it_is_the_likelihood_bit_for_bit_and_asks_nobody(name):
    def never(x):
        raise AssertionError("asked")

    likelihood, outputs, _, targets = distilled(name, teacher=never, weight=0.0)
    taught = likelihood.taught(outputs, targets)
    assert taught is targets
    assert torch.equal(likelihood.nll(outputs, taught), likelihood.likelihood.nll(outputs, targets))
    likelihood.check_teacher(outputs, outputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_whoever_scores_targets_scores_them_as_the_likelihood_does(name):
    likelihood, outputs, _, targets = distilled(name, weight=0.7)
    base = likelihood.likelihood
    assert torch.equal(likelihood.nll(outputs, targets), base.nll(outputs, targets))
    assert torch.equal(likelihood.score(outputs, targets), base.score(outputs, targets))
    assert torch.equal(likelihood.observe(targets), base.observe(targets))
    assert likelihood.mean_score(4.0, 2) == base.mean_score(4.0, 2)
    assert (likelihood.score_name, likelihood.rows) == (base.score_name, base.rows)
    assert likelihood.problems(outputs, targets) == base.problems(outputs, targets) == []
    assert likelihood.plain is base and base.plain is base


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_paid_for_what_the_teacher_says_too(name):
    likelihood, outputs, said, targets = distilled(name, weight=1.0, temperature=3.0)
    torch.testing.assert_close(
        likelihood.nll(said, likelihood.taught(outputs, targets)), torch.zeros(ROWS), atol=1e-5, rtol=0
    )
    assert bool((nats(name, weight=1.0, temperature=3.0) > 1e-3).all())


@given(seed=st.integers(0, 1000), classes=st.integers(2, 6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_teacher_sure_of_the_label_is_the_label_as_the_temperature_goes_to_one(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(4, classes, generator=generator, dtype=torch.double)
    labels = torch.randint(classes, (4,), generator=generator)
    sure = 200.0 * nn.functional.one_hot(labels, classes).double()
    base = Categorical(rows=4)
    errors = []
    for temperature in (1.5, 1.1, 1.01, 1.0):
        likelihood = Distilled(base, lambda x: sure, temperature=temperature, weight=1.0)
        taught = likelihood.nll(outputs, likelihood.taught(outputs, labels))
        errors.append(float((taught - base.nll(outputs, labels)).abs().max()))
    assert errors[-1] < 1e-9
    assert errors == sorted(errors, reverse=True)


def test_at_a_high_temperature_it_is_half_the_squared_difference_of_log_odds():
    """Hinton et al., section 2.1, of log-odds with mean zero."""
    generator = torch.Generator().manual_seed(0)
    outputs, said = torch.randn(2, ROWS, 7, generator=generator, dtype=torch.double)
    apart = (outputs - outputs.mean(-1, True)) - (said - said.mean(-1, True))
    found = Categorical(ROWS).teacher_nats(outputs, said, 1e4)
    torch.testing.assert_close(found, apart.square().sum(-1) / (2 * 7), rtol=1e-3, atol=0)


def test_at_temperature_one_it_is_the_nats_of_labels_that_the_teacher_draws_but_for_its_entropy():
    likelihood, outputs, said, targets = distilled("categorical", weight=1.0)
    probs = said.softmax(-1)
    drawn = sum(probs[:, c] * likelihood.nll(outputs, torch.full((ROWS,), c)) for c in range(3))
    entropy = dist.Categorical(logits=said).entropy()
    torch.testing.assert_close(likelihood.nll(outputs, likelihood.taught(outputs, targets)), drawn - entropy)


# ---- gradients


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_go_to_the_outputs_and_none_to_the_teacher(name):
    likelihood, outputs, _, targets = example(name, ROWS, dtype=torch.double)
    teacher = nn.Linear(3, 3).double()
    mixed = Distilled(likelihood, teacher, temperature=2.0, weight=0.4)
    taught = mixed.taught(outputs, targets)
    outputs.requires_grad_()
    assert torch.autograd.gradcheck(lambda found: mixed.nll(found, taught), outputs)
    mixed.nll(outputs, taught).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not {id(p) for p in mixed.parameters()} & {id(p) for p in teacher.parameters()}


def test_the_gradient_of_a_softened_class_by_hand():
    """∂ℓ/∂η = T (p − p'), Hinton et al. (2), times T²."""
    likelihood, outputs, said, targets = distilled("categorical", temperature=4.0, weight=1.0)
    outputs.requires_grad_()
    likelihood.nll(outputs, likelihood.taught(outputs, targets)).sum().backward()
    torch.testing.assert_close(
        outputs.grad, 4.0 * ((outputs / 4).softmax(-1) - (said / 4).softmax(-1)).detach()
    )


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_the_noise_of_a_gaussian_is_learnt_from_the_targets_alone(weight):
    plain, outputs, said, targets = example("gaussian", ROWS)
    alone = torch.autograd.grad(plain.nll(outputs, targets).sum(), plain.log_scale)[0]
    likelihood = Distilled(plain, lambda x: said, weight=weight)
    loss = likelihood.nll(outputs, likelihood.taught(outputs, targets)).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, plain.log_scale)[0], alone)
    site = likelihood.site(outputs, likelihood.taught(outputs, targets))
    scored = -site.log_prob(likelihood.observe(targets)).sum()
    torch.testing.assert_close(scored, loss)
    torch.testing.assert_close(torch.autograd.grad(scored, plain.log_scale)[0], alone)
    assert likelihood.followed() == plain.followed() != ()
    assert likelihood.learnt() == plain.learnt() and likelihood.guesses() == ("log_scale",)


# ---- teachers


@pytest.mark.parametrize("name", FAMILIES)
def test_an_ensemble_is_the_mean_of_what_its_members_predict(name):
    likelihood, outputs, said, targets = example(name, ROWS)
    others = [said, said.flip(0), -said]
    taught = Distilled(likelihood, [lambda x, o=o: o for o in others]).taught(outputs, targets)
    means = torch.stack([mean_of(name, o) for o in others]).mean(0)
    torch.testing.assert_close(mean_of(name, taught.said), means)


def mean_of(name, outputs):
    found = distribution(name, outputs)
    return found.probs if name == "categorical" else found.mean


def test_lists_in_lists_weigh_their_parts_equally():
    one, two, three = (torch.full((2, 1), float(n)) for n in (1, 2, 3))
    teacher = [[lambda x: one, lambda x: two], lambda x: three]
    taught = Distilled(Gaussian(2), teacher).taught(torch.zeros(2, 1), torch.zeros(2))
    torch.testing.assert_close(taught.said, torch.full((2, 1), 0.5 * 1.5 + 0.5 * 3))


def test_a_probability_that_rounds_to_zero_stays_finite():
    far = torch.tensor([[0.0, -300.0]])
    for likelihood in (Categorical(1), Bernoulli(1)):
        target = torch.tensor([0]) if isinstance(likelihood, Categorical) else torch.tensor([[1, 0]])
        mixed = Distilled(likelihood, [lambda x: far, lambda x: far - 1.0], weight=1.0)
        taught = mixed.taught(far, target)
        assert bool(taught.said.isfinite().all())
        assert bool(mixed.nll(-far, taught).isfinite().all())


class Counting(nn.Module):
    """A network that says which mode it was in, and keeps a count."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(3, 3), nn.Dropout(0.9)
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), self.training, torch.is_grad_enabled()))
        return self.drop(self.layer(x))


def test_a_network_is_asked_in_evaluation_block_by_block_and_left_in_its_mode():
    teacher = Counting().train()
    teacher.layer.eval()
    x = torch.randn(2500, 3)
    likelihood = Distilled(Categorical(2500), teacher)
    taught = likelihood.taught(x, torch.zeros(2500).long())
    assert teacher.seen == [(1000, False, False), (1000, False, False), (500, False, False)]
    assert teacher.training and teacher.drop.training and not teacher.layer.training
    torch.testing.assert_close(taught.said, teacher.layer(x).detach())
    assert not taught.said.requires_grad
    assert likelihood.taught(x, taught) is taught and len(teacher.seen) == 3, "it is asked once"


def test_the_part_that_the_likelihood_reads_is_read_of_the_teacher_too():
    likelihood = Distilled(Categorical(2, output="logits"), lambda x: {"loss": None, "logits": x + 1})
    x, y = torch.zeros(2, 3), torch.zeros(2).long()
    assert torch.equal(likelihood.taught(x, y).said, x + 1)
    plain = Distilled(Categorical(2, output=1), lambda x: x + 2)
    assert torch.equal(plain.taught(x, y).said, x + 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_autocast_changes_no_nats_and_no_mean(name):
    def found():
        likelihood, outputs, said, targets = example(name, ROWS)
        mixed = Distilled(likelihood, [lambda x: said, lambda x: -said], temperature=2.0, weight=0.4)
        taught = mixed.taught(outputs, targets)
        return taught.said, mixed.nll(outputs.bfloat16(), taught)

    alone = found()
    with torch.autocast("cpu", torch.bfloat16):
        within = found()
    for one, other in zip(alone, within, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_half_precision_is_averaged_in_single():
    x, y = torch.randn(2, 3), torch.zeros(2).long()
    assert Distilled(Categorical(2), lambda x: x.bfloat16()).taught(x, y).said.dtype == torch.float32
    double = Distilled(Categorical(2), lambda x: x.double())
    assert double.nll(x, double.taught(x, y)).dtype == torch.float32


def test_a_likelihood_of_ones_own_that_says_how_can_be_distilled():
    class Laplace(Likelihood):
        def forward(self, outputs):
            return dist.Laplace(outputs[..., 0], 1.0)

        def teacher_nats(self, outputs, teacher, temperature):
            apart = (outputs - teacher).abs()[..., 0]
            return apart + torch.exp(-apart) - 1

        def pooled(self, outputs, shares):
            return torch.tensordot(shares, outputs, 1)

    said = torch.tensor([[1.0], [2.0]])
    likelihood = Distilled(Laplace(2), [lambda x: said, lambda x: said], weight=1.0)
    nll = likelihood.nll(torch.zeros(2, 1), likelihood.taught(said, torch.zeros(2)))
    torch.testing.assert_close(nll, torch.tensor([math.exp(-1), 1 + math.exp(-2)]))


# ---- targets that bring the teacher along


def test_rows_are_taken_of_targets_and_teacher_together():
    y, said = torch.tensor([3, 1, 2, 0]), torch.arange(8.0).reshape(4, 2)
    rows = Taught.of(y, said)
    for part in (rows[torch.tensor([2, 0])], rows.index_select(0, torch.tensor([2, 0]))):
        assert part.tolist() == [2, 3] and part.said.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    moved = rows.to(torch.device("cpu"), non_blocking=True)
    assert isinstance(moved, Taught) and torch.equal(moved.said, said)
    assert type(rows + 1) is torch.Tensor and type(torch.cat([rows, rows])) is torch.Tensor
    assert torch.equal(rows, y) and rows.data_ptr() == y.data_ptr()


def test_leading_dimensions_are_kept():
    likelihood, outputs, _, targets = distilled("categorical", temperature=2.0)
    taught = likelihood.taught(outputs, targets)
    many = torch.stack([outputs, outputs + torch.arange(3.0)])
    assert likelihood.nll(many, taught).shape == (2, ROWS)
    torch.testing.assert_close(likelihood.nll(many, taught)[1], likelihood.nll(many[1], taught))
    site = likelihood.site(outputs, taught).expand([2, ROWS])
    torch.testing.assert_close(site.log_prob(targets)[1], -likelihood.nll(outputs, taught))
    assert site.sample().shape == (2, ROWS)


# ---- copies and files


def test_copies_share_the_teacher_and_no_file_holds_it():
    teacher = nn.Linear(3, 3)
    likelihood = Distilled(Gaussian(ROWS, scale=0.5), teacher, weight=0.3)
    assert copy.deepcopy(likelihood).teacher is likelihood.teacher
    assert set(likelihood.state_dict()) == {f"likelihood.{n}" for n in Gaussian(1).state_dict()}
    read = pickle.loads(pickle.dumps(likelihood))
    x, y = torch.randn(ROWS, 3), torch.randn(ROWS, 3)
    assert torch.equal(read.nll(x, y), likelihood.nll(x, y))
    with pytest.raises(LikelihoodError, match=r"was not saved.*gate the network anew.*plain"):
        read.taught(x, y)


def test_a_fit_marks_the_likelihood_itself_as_learnt():
    likelihood = Distilled(Gaussian(ROWS), lambda x: x)
    assert not likelihood.fitted
    likelihood.fitted = True
    assert likelihood.likelihood.fitted and likelihood.guesses() == ()


def test_teachers_are_told_apart_by_what_they_are():
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)

    def identity(teacher, **settings):
        return Distilled(Categorical(9), teacher, **settings).identity()

    same = copy.deepcopy(one)
    assert identity(one) == identity(same)
    assert identity(nn.Sequential(one, nn.ReLU())) != identity(nn.Sequential(one, nn.Tanh()))
    assert len({identity(t) for t in (one, other, [one, other], nn.Sequential(one, nn.ReLU()))}) == 4
    assert len({identity(one, weight=0.5), identity(one, weight=0.4), identity(one, temperature=2.0)}) == 3
    assert identity(one, weight=0) == identity(other, weight=0), "it is never asked"
    with torch.no_grad():
        same.bias[1] += 1e-3
    assert identity(one) != identity(same)
    assert Categorical(9).identity() == "Categorical"


def test_functions_are_told_apart_by_what_they_say_of_rows_in_memory():
    x, y = torch.randn(4, 3), torch.zeros(4).long()
    found = []
    for factor in (1.0, 1.0, 2.0):
        likelihood = Distilled(Categorical(4), lambda x, f=factor: f * x)
        found.append(likelihood.identity(likelihood.taught(x, y)))
    assert found[0] == found[1] != found[2]


# ---- refusals


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"temperature": 0}, r"temperature=0 must be a finite number above 0"),
        ({"temperature": -1.0}, r"temperature=-1\.0"),
        ({"temperature": math.nan}, r"temperature=nan"),
        ({"temperature": math.inf}, r"temperature=inf"),
        ({"temperature": True}, r"temperature=True"),
        ({"weight": 1.1}, r"weight=1\.1 must be a number in \[0, 1\]"),
        ({"weight": -0.1}, r"weight=-0\.1"),
        ({"weight": None}, r"weight=None"),
        ({"weight": math.nan, "temperature": 0}, r"temperature=0.*weight=nan"),
    ],
)
def test_settings_out_of_range_are_refused_together(settings, match):
    with pytest.raises(LikelihoodError, match=match):
        Distilled(Categorical(3), lambda x: x, **settings)


@pytest.mark.parametrize(
    "likelihood, match",
    [
        (
            bp.Own(3, lambda out: dist.Normal(out[..., 0], 1.0)),
            r"distribution= of Own.*bp\.Categorical.*teacher_nats",
        ),
        (bp.ModelLoss(3), r"ModelLoss has the loss.*bp\.Categorical\(rows=…, output='logits'\)"),
        (Distilled(Categorical(3), lambda x: x), r"distilled already.*as a list"),
        (nn.CrossEntropyLoss(), r"likelihood=CrossEntropyLoss\(\) is none: give that of the targets"),
    ],
    ids=["own", "model loss", "twice", "a loss"],
)  # fmt: skip
def test_likelihoods_without_a_divergence_are_refused_by_name(likelihood, match):
    with pytest.raises(LikelihoodError, match=match):
        Distilled(likelihood, lambda x: x)


def test_a_class_of_ones_own_says_what_it_lacks():
    class Mine(Likelihood):
        pass

    with pytest.raises(LikelihoodError, match=r"of Mine no divergence.*define teacher_nats"):
        Distilled(Mine(3), lambda x: x)
    for call in (lambda m: m.teacher_nats(None, None, 1.0), lambda m: m.pooled(None, None)):
        with pytest.raises(LikelihoodError, match="of Mine"):
            call(Mine(3))


@pytest.mark.parametrize(
    "teacher, match",
    [
        (None, r"teacher=None is no teacher: give a network, a list"),
        (nn.Linear, r"is no teacher"),
        (torch.zeros(3), r"is no teacher"),
        ([], r"teacher is an empty list"),
        (nn.ModuleList(), r"teacher is an empty ModuleList"),
        ([nn.Linear(3, 3), 7], r"teacher\[1\]=7 is no teacher"),
        (nn.ModuleDict(), r"a ModuleDict, which has no forward"),
        (nn.Linear(3, 3, device="meta"), r"a Linear on device 'meta'.*load its weights"),
    ],
)
def test_what_is_no_teacher_is_refused(teacher, match):
    with pytest.raises(LikelihoodError, match=match):
        Distilled(Categorical(3), teacher)


def nan_in_row_1(x):
    return torch.where(torch.arange(len(x))[:, None] == 1, math.nan, x)


ASKED = {
    "other classes": (lambda x: x[:, :2], r"says \(2,\) numbers of a row, and the network \(3,\): give"),
    "one column": (lambda x: x[:, :1], r"says \(1,\)"),
    "nan": (nan_in_row_1, r"says nan of row 1"),
    "infinite": (lambda x: x - math.inf, r"says -inf of row 0.*finite too"),
    "does not run": (nn.Linear(4, 3), r"a Linear, does not run on 5 rows of shape \(3,\) and type"),
    "other type": (nn.Linear(3, 3).double(), r"does not run.*same type"),
    "a member": ([nn.Linear(3, 3), nn.Linear(4, 3)], r"teacher 2 of 2, a Linear, does not run"),
    "unequal members": ([nn.Linear(3, 3), nn.Linear(3, 2)], r"return outputs of shapes \(5, 3\), \(5, 2\)"),
    "classes, not log-odds": (lambda x: x.argmax(-1), r"a function, returned shape \(5,\).*int64"),
    "too few rows": (lambda x: x[:2], r"returned shape \(2, 3\).*for 5 rows"),
    "no logits": (lambda x: {"a": x, "b": x}, r"returned a dict, and the likelihood reads one tensor: take"),
    "probabilities": (lambda x: x.softmax(-1), r"the teacher's outputs lie in \[0, 1\] and sum to one.*log"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_a_teacher_that_does_not_fit_is_refused_before_training(name):
    teacher, match = ASKED[name]
    x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(LikelihoodError, match=match):
        Distilled(Categorical(ROWS), teacher).check_teacher(x, torch.zeros(2, 3))


@pytest.mark.parametrize("columns", [1, 2])
def test_other_classes_are_not_broadcast_in_a_loop_of_ones_own(columns):
    likelihood = Distilled(Categorical(ROWS), lambda x: x[:, :columns])
    x, y = torch.randn(ROWS, 3), torch.zeros(ROWS).long()
    with pytest.raises(LikelihoodError, match=rf"says \(5, {columns}\), and the network \(5, 3\)"):
        likelihood.nll(x, likelihood.taught(x, y))


def test_a_nan_that_comes_later_is_named_when_it_comes():
    likelihood = Distilled(Categorical(ROWS), nan_in_row_1)
    with pytest.raises(LikelihoodError, match="says nan of row 1"):
        likelihood.taught(torch.randn(ROWS, 3), torch.zeros(ROWS).long())


def test_probabilities_of_labels_are_warned_of():
    likelihood = Distilled(Bernoulli(ROWS), lambda x: x.sigmoid())
    with pytest.warns(LikelihoodWarning, match=r"the teacher's outputs lie in \[0, 1\].*Sigmoid"):
        likelihood.check_teacher(torch.randn(ROWS, 3), torch.zeros(2, 3))
    Distilled(Poisson(ROWS), lambda x: x.exp() + 1).check_teacher(torch.randn(ROWS, 3), torch.zeros(2, 3))


def test_whatever_has_members_is_a_teacher():
    class Voices:
        def as_teacher(self):
            return [Member(0.25, lambda x: x), Member(0.75, lambda x: -x)]

    x = torch.ones(1, 2)
    assert Distilled(Gaussian(1), Voices()).taught(x, torch.zeros(1, 2)).said.tolist() == [[-0.5, -0.5]]
