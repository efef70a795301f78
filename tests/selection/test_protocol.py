"""The protocol that every rule keeps, on a network of each kind: sizes, seeds, what is left alone, what "
"comes out."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.selection import (
    DPP,
    BayesFactor,
    DPPEdges,
    FlatteningVertex,
    InclusionProb,
    LearntEdgeMasks,
    LearntMasks,
    Magnitude,
    MagnitudeEdges,
    ModelReduction,
    Outgoing,
    RandomEdges,
    RandomNodes,
    Scored,
    Subject,
    Taylor,
    path,
    prune,
    select,
)
from tests.selection.networks import EXAMPLES, Example, example_of, posterior_of

FRACTIONS = (1.0, 0.8, 0.6)

TRAINED = {
    "magnitude": lambda e: Magnitude(),
    "magnitude l1": lambda e: Magnitude(p=1),
    "outgoing": lambda e: Outgoing(),
    "outgoing activation": lambda e: Outgoing(activation=True),
    "taylor": lambda e: Taylor(e.x, e.y, e.likelihood),
    "dpp": lambda e: DPP(),
    "dpp median": lambda e: DPP(beta="median", rows=e.x),
    "random nodes": lambda e: RandomNodes(),
    "vertex": lambda e: FlatteningVertex(e.x, e.y, price=10.0, likelihood=e.likelihood),
    "bayes factor": lambda e: BayesFactor(e.x, e.y, weight_scale=0.5, likelihood=e.likelihood),
    "magnitude edges": lambda e: MagnitudeEdges(),
    "random edges": lambda e: RandomEdges(),
    "dpp edges": lambda e: DPPEdges(),
    "learnt masks": lambda e: LearntMasks(e.x, e.y, 5.0, epochs=2, likelihood=e.likelihood),
    "learnt edge masks": lambda e: LearntEdgeMasks(e.x, e.y, 5.0, epochs=2, likelihood=e.likelihood),
}
POSTERIOR = {
    **TRAINED,
    "inclusion": lambda e: InclusionProb(),
    "vertex": lambda e: FlatteningVertex(e.x, e.y),
    "bayes factor": lambda e: BayesFactor(e.x, e.y),
    "model reduction": lambda e: ModelReduction(),
}
RANDOM = ("dpp", "dpp median", "random nodes", "random edges", "dpp edges")


@pytest.fixture(params=list(EXAMPLES), scope="module")
def example(request) -> Example:
    return example_of(request.param)


@pytest.fixture(scope="module")
def trained(example) -> Subject:
    return Subject.of(example.network, example.x)


@pytest.fixture(scope="module")
def fitted(example) -> Subject:
    return Subject.of(posterior_of(example, weights="normal"), example.x)


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_network_is_pruned(name, example, trained):
    check(TRAINED[name](example), name, trained, example)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.CorrelationWarning")  # random units are alike
@pytest.mark.parametrize("name", POSTERIOR)
def test_a_posterior_is_pruned(name, example, fitted):
    check(POSTERIOR[name](example), name, fitted, example)


def check(rule, name: str, subject: Subject, example: Example) -> None:
    before = copy.deepcopy(subject.network.state_dict()), copy.deepcopy(example.network.state_dict())
    modes = [module.training for module in subject.network.modules()]
    found = list(path(subject, None, rule, FRACTIONS, seed=3))
    again = select(rule, subject, share=FRACTIONS[-1], seed=3)
    same(before[0], subject.network.state_dict())
    same(before[1], example.network.state_dict())
    assert modes == [module.training for module in subject.network.modules()]
    assert found[0].parameters == subject.dense_parameters
    assert all(torch.equal(found[-1].masks[key], again[key]) for key in again)
    for fraction, candidate in zip(FRACTIONS, found, strict=True):
        assert candidate.parameters <= fraction * subject.dense_parameters
        assert candidate.parameters == counted(candidate, rule.edges)
        assert candidate.rule == type(rule).__name__
        assert candidate.share == candidate.parameters / subject.dense_parameters
        assert plain(candidate.network)
        assert candidate.network.eval()(example.x).shape == (len(example.x), 3)
    assert found[0].parameters > found[1].parameters >= found[2].parameters
    if name in RANDOM:
        other = select(rule, subject, share=FRACTIONS[-1], seed=4)
        assert any(not torch.equal(other[key], again[key]) for key in other)


def counted(candidate, edges: bool) -> int:
    total = sum(p.numel() for p in candidate.network.parameters())
    if not edges:
        return total
    tensors = dict(candidate.network.named_parameters())
    for name, mask in candidate.masks.items():
        assert bool((tensors[name][~mask] == 0).all())
    return total - sum(int((~mask).sum()) for mask in candidate.masks.values())


def plain(network: nn.Module) -> bool:
    """Nothing of Pyro, no gates, and no class of the selection's or the inference's."""
    places = {type(module).__module__ for module in network.modules()}
    return not any(
        p.startswith(("pyro", "bayesprune.gated", "bayesprune.selection", "bayesprune.svi")) for p in places
    )


def same(before, after) -> None:
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_what_is_pruned_computes_what_the_masked_network_does(example, trained):
    masks = select(RandomNodes(), trained, share=0.6, seed=1)
    small = prune(example.network, masks, example.x).eval()
    masked = trained.network.eval()(example.x, {name: mask.double() for name, mask in masks.items()})
    torch.testing.assert_close(small(example.x), masked, rtol=0, atol=1e-10)
    assert type(small) is type(example.network) or isinstance(small, bp.structure.graph.PlainGraph)


def test_rules_of_one_scope_keep_as_many_units_of_every_group(example, trained):
    rules = (Magnitude(), Outgoing(), DPP(), RandomNodes())
    kept = [{g: int(m.sum()) for g, m in select(r, trained, share=0.7).items()} for r in rules]
    assert all(other == kept[0] for other in kept)


def test_edges_keep_exactly_what_is_asked_for(trained):
    for rule in (MagnitudeEdges(), RandomEdges(), DPPEdges()):
        for scope in ("global", "layer") if not isinstance(rule, DPPEdges) else ("layer",):
            budget = round(0.37 * trained.dense_parameters)
            masks = select(rule, trained, parameters=budget, scope=scope)
            assert trained.edge_parameters(masks) == budget


def test_scored_masks_are_nested(trained, example):
    for rule in (Magnitude(), Outgoing(), Taylor(example.x, example.y, example.likelihood), RandomNodes()):
        for scope in ("global", "layer"):
            masks = [select(rule, trained, share=share, scope=scope) for share in (0.9, 0.75, 0.6)]
            for larger, smaller in pairwise(masks):
                assert all(bool((larger[g] | ~smaller[g]).all()) for g in larger)


def test_a_posterior_that_has_lost_units_is_pruned_further():
    example = example_of("lenet5")
    gated = posterior_of(example)
    gated.remove_(gated.log_odds < 0.3)
    before = gated.kept()
    for rule in (InclusionProb(), Magnitude(), DPP(), RandomNodes()):
        candidate = next(path(gated, example.x, rule, [0.3]))
        assert candidate.parameters <= 0.3 * gated.dense_parameters
        assert all(int(m.sum()) <= before[g] for g, m in candidate.masks.items())
        alive = gated.by_group(gated.alive)
        assert all(not bool((m & ~alive[g]).any()) for g, m in candidate.masks.items())
    assert gated.kept() == before


def test_a_rule_of_ones_own_is_a_class_with_one_method(example, trained):
    class Last(Scored):
        def scores(self, subject, seed=0):
            return {group.name: torch.arange(group.size).double() for group in subject.groups}

    for scope in ("global", "layer"):
        masks = select(Last(), trained, share=0.6, scope=scope)
        assert all(mask.tolist() == sorted(mask.tolist()) for mask in masks.values())
    assert Last().name == "Last"
