"""What is wrong is said: place, value, remedy."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError, SelectionError
from bayesprune.selection import (
    DPP,
    BayesFactor,
    DPPEdges,
    FlatteningVertex,
    InclusionProb,
    Magnitude,
    MagnitudeEdges,
    Outgoing,
    Scored,
    Subject,
    Taylor,
    path,
    prune,
    select,
)
from tests.selection.networks import example_of, posterior_of


@pytest.fixture(scope="module")
def example():
    return example_of("mlp")


@pytest.fixture(scope="module")
def subject(example):
    return Subject.of(example.network, example.x)


class Broken(Scored):
    """Scores for a group that there is not, of a wrong length, and NaN."""

    def scores(self, subject, seed=0):
        return {"fc9": torch.ones(3), "fc1": torch.ones(2), "fc2": torch.full((8,), torch.nan)}


CASES = {
    "k above the units": (lambda e: DPP(k={"fc1": 15}), {}, r"k=15 for 'fc1', which has 14 units"),
    "k below one": (lambda e: DPP(k=0), {}, r"k=0 for 'fc1'.*between 1 and 14"),
    "unknown group": (
        lambda e: DPP(k={"fc7": 3}),
        {},
        r"'fc7' is no group \(did you mean 'fc.'\? there are",
    ),
    "global dpp": (lambda e: DPP(), {"share": 0.5, "scope": "global"}, "use scope='layer'"),
    "global dpp of edges": (lambda e: DPPEdges(), {"share": 0.5, "scope": "global"}, "use scope='layer'"),
    "bandwidth of edges": (lambda e: DPPEdges(beta=-1), {"share": 0.5}, "beta=-1 of a DPP: a positive"),
    "unreachable edges of a dpp": (
        lambda e: DPPEdges(),
        {"share": 0.01},
        r"without any weight there are 25 ",
    ),
    "bandwidth": (
        lambda e: DPP(beta="mean"),
        {"share": 0.5},
        r"beta='mean' of a DPP: a positive number, or one of 'rows', 'median'",
    ),
    "jitter": (lambda e: DPP(jitter=-1.0), {"share": 0.5}, r"jitter=-1\.0"),
    "no size": (lambda e: Magnitude(), {}, "Magnitude only has an order: say how small"),
    "both sizes": (lambda e: Magnitude(), {"share": 0.5, "parameters": 9}, "give one of them"),
    "share": (lambda e: Magnitude(), {"share": 1.5}, r"share=1\.5: a share .* in \(0, 1\]"),
    "no whole number": (lambda e: Magnitude(), {"parameters": 1.5}, r"parameters=1\.5: a whole number"),
    "unreachable": (lambda e: Magnitude(), {"share": 0.01}, r"budget of 2 parameters .* out of reach.*18 "),
    "unreachable edges": (lambda e: MagnitudeEdges(), {"share": 0.01}, r"without any weight there are 25 "),
    "scope": (lambda e: Magnitude(), {"share": 0.5, "scope": "net"}, "scope='net' is neither"),
    "norm": (lambda e: Magnitude(p=0.0), {"share": 0.5}, r"Magnitude\(p=0\.0\)"),
    "no posterior": (lambda e: InclusionProb(), {"share": 0.5}, "a plain network has none"),
    "no likelihood": (lambda e: Taylor(e.x, e.y), {"share": 0.5}, "give likelihood="),
    "price": (
        lambda e: FlatteningVertex(e.x, e.y, price={"fc1": -2.0, "*": 1.0}, likelihood=e.likelihood),
        {},
        r"a price is 0 nats or more, and not fc1: -2\.0",
    ),
    "no price": (
        lambda e: FlatteningVertex(e.x, e.y, likelihood=e.likelihood),
        {},
        "a plain network has none",
    ),
    "sweeps": (
        lambda e: FlatteningVertex(e.x, e.y, price=1.0, likelihood=e.likelihood, sweeps=0),
        {},
        r"FlatteningVertex\(sweeps=0\)",
    ),
    "no weight scale": (lambda e: BayesFactor(e.x, e.y, likelihood=e.likelihood), {}, "give weight_scale="),
    "evidence": (
        lambda e: BayesFactor(e.x, e.y, weight_scale=1.0, likelihood=e.likelihood, least_evidence=0.0),
        {},
        r"least_evidence=0\.0",
    ),
    "a user's rule": (
        lambda e: Broken(),
        {"share": 0.5},
        r"Rule Broken: 'fc9' is no group .*the scores of 'fc1' are \(2,\)"
        r".*8 of the 8 scores of 'fc2' are NaN",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_rule_cannot_do_is_said(name, example, subject):
    make, sizes, message = CASES[name]
    with pytest.raises(SelectionError, match=f"(?s){message}"):
        select(make(example), subject, **sizes)


def test_rows_and_targets_go_together(example, subject):
    with pytest.raises(DataError, match="40 rows of inputs and 3 of targets"):
        select(Taylor(example.x, example.y[:3], example.likelihood), subject, share=0.5)


def test_rows_are_asked_for_where_activations_are_needed(example):
    one = Subject.of(example.network, example.x[:1])
    with pytest.raises(SelectionError, match="DPP looks at activations, at 1 rows: give it rows="):
        select(DPP(), one, share=0.5)
    none = Subject.of(posterior_of(example))
    with pytest.raises(SelectionError, match="at 0 rows"):
        select(Outgoing(activation=True), none, share=0.5)


def test_activations_that_are_not_finite_are_named():
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    subject = Subject.of(network, torch.zeros(2, 4))
    dict(subject.network.named_parameters())["0.bias"].data.fill_(torch.inf)
    with pytest.raises(SelectionError, match="Activations of '0' are not all finite"):
        select(DPP(rows=torch.randn(9, 4)), subject, share=0.5)


def test_weights_that_are_not_finite_are_named(example):
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    subject = Subject.of(network, torch.zeros(2, 4))
    dict(subject.network.named_parameters())["0.weight"].data[0, 0] = torch.nan
    with pytest.raises(SelectionError, match=r"The weights of '0\.weight' are not all finite"):
        select(Magnitude(), subject, share=0.5)


def test_masks_that_do_not_fit_are_all_listed(example):
    masks = {"fc7": torch.ones(2), "fc1": torch.ones(14), "fc2": torch.zeros(9, dtype=torch.bool)}
    with pytest.raises(SelectionError) as raised:
        prune(example.network, masks, example.x)
    for part in ("'fc7' is no group", "must be (14,) of torch.bool", "the mask of 'fc2' is (9,)"):
        assert part in str(raised.value)
    with pytest.raises(SelectionError, match=r"would leave 'fc2' \(0 of 8 units asked for\)"):
        prune(example.network, {"fc2": torch.zeros(8, dtype=torch.bool)}, example.x)


def test_masks_that_starve_a_group_are_refused():
    example = example_of("lenet5")
    gated = posterior_of(example)
    features = torch.zeros(24, dtype=torch.bool)
    features[:4] = True  # the first filter's
    filters = torch.ones(6, dtype=torch.bool)
    filters[0] = False
    with pytest.raises(SelectionError, match=r"would leave .*'conv2'.* without a unit that is still read"):
        prune(gated, {"conv2": filters, "flatten": features})


def test_what_cannot_be_pruned_is_said(example):
    with pytest.raises(SelectionError, match="Cannot prune a int"):
        Subject.of(3)
    with pytest.raises(DataError, match="Give a batch that the network accepts"):
        Subject.of(example.network)
    with pytest.raises(SelectionError, match=r"Give exclude= to bp\.gate"):
        Subject.of(posterior_of(example), exclude=["fc1"])
    with pytest.raises(bp.errors.SettingsError, match="fc9"):
        next(path(example.network, example.x, Magnitude(), [0.5], exclude=["fc9"]))


def test_masks_of_weights_that_do_not_fit_are_refused(subject):
    with pytest.raises(SelectionError, match=r"'fc1\.bias' \(no weight\)"):
        subject.zeroed({"fc1.bias": torch.ones(14, dtype=torch.bool)})
