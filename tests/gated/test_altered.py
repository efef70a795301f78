"""Networks whose layers are altered, under gates: gated exactly, or refused with the remedy."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import prune

import bayesprune as bp
from bayesprune.errors import NothingToGateError, UnsupportedNetworkError
from bayesprune.structure.altered import alterations
from bayesprune.structure.graph import analyse
from bayesprune.structure.row import find_row
from tests.altered import GRADIENTS, NETWORKS, OUTPUTS, REFUSED, UNTRAINED, residual, sequence

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
RECIPE = bp.Recipe(gates=bp.GateSteps(learning_rate=0.3, momentum=0.9, every=1), learning_rate=1e-2)
ALTERED = {name: (build, alter) for name, alter in OUTPUTS.items() for build in [sequence]} | {
    f"{name}, class": (residual, alter) for name, alter in OUTPUTS.items()
}


def gated_on(network, price=4.0, **settings):
    torch.manual_seed(0)
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
    return bp.gate(
        network, torch.randn(2, 4), prior=prior, likelihood=bp.Categorical(rows=96), layers="none", **settings
    )


def rows():
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] + x[:, 1] > 0).long() + (x[:, 0] > 1).long()


@pytest.mark.parametrize("alter", (OUTPUTS | UNTRAINED).values(), ids=OUTPUTS | UNTRAINED)
def test_an_altered_sequence_is_no_row_of_plain_layers(alter):
    network, layer = sequence()
    assert find_row(network, torch.zeros(2, 4)) is not None
    alter(layer)
    assert find_row(network, torch.zeros(2, 4)) is None


@pytest.mark.parametrize("build, alter", ALTERED.values(), ids=ALTERED)
def test_gated_fitted_and_pruned_it_is_what_it_is_under_its_gates(tmp_path, build, alter):
    network, layer = build()
    alter(layer)
    x, y = rows()
    gated = gated_on(network)
    expected = network.eval()(x)
    network.train()
    torch.testing.assert_close(gated.network.eval()(x), expected)
    masks = {g.name: torch.arange(g.size) % 3 != 0 for g in gated.groups}
    closed = gated.network(x, {name: mask.float() for name, mask in masks.items()})
    small = analyse(network, torch.randn(2, 4), layers="none").cut(masks).eval()
    torch.testing.assert_close(small(x), closed)

    gated.train()
    result = bp.fit(gated, (x, y), epochs=60, batch_size=16, seed=0, recipe=RECIPE, progress=False)
    assert not bool(result.gated.alive.all())  # the first removal was where it died
    pruned = bp.prune(result).eval()
    left = result.gated.network.eval()
    torch.testing.assert_close(pruned(x), left(x))
    bp.save(pruned, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path)(x), pruned(x))


def test_masked_weights_stay_masked_through_a_fit():
    network, layer = sequence()
    prune.l1_unstructured(layer, "weight", 0.5)
    mask = layer.weight_mask.clone()
    result = bp.fit(
        gated_on(network, exclude="0"), rows(), epochs=3, batch_size=16, recipe=RECIPE, progress=False
    )
    own = bp.prune(result)
    own(torch.randn(2, 4))
    kept = result.gated.by_group(result.gated.alive)["2"]
    assert not torch.equal(own[2].weight_orig, layer.weight_orig[kept])  # it has learnt
    assert bool((own[2].weight[~mask[kept].bool()] == 0).all())


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("alter, message", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("asked", [gated_on, lambda network: analyse(network, torch.randn(2, 4))])
def test_what_cannot_be_followed_is_named_with_its_remedy(build, alter, message, asked):
    network, layer = build()
    alter(layer)
    with pytest.raises(UnsupportedNetworkError, match=message):
        asked(network)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("alter", GRADIENTS.values(), ids=GRADIENTS)
def test_hooks_on_gradients_are_refused_and_gone_after_the_remedy(build, alter):
    network, layer = build()
    handle = alter(layer)
    for asked in (gated_on, lambda network: analyse(network, torch.randn(2, 4))):
        with pytest.raises(UnsupportedNetworkError, match=r"Module '(2|middle)' .*hook.*handle\.remove\(\)"):
            asked(network)
    told = alterations(network)[0].action.partition("or ")[2]
    handle.remove()
    assert alterations(network) == []
    alter(layer)
    exec(told, {"network": network})
    assert alterations(network) == []
    gated_on(network)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_on_all_modules_are_refused(build, register):
    network = build()[0]
    handle = register(lambda *_: None)
    try:
        for asked in (gated_on, lambda network: analyse(network, torch.randn(2, 4))):
            with pytest.raises(UnsupportedNetworkError, match=rf"{register.__name__}\).*handle\.remove"):
                asked(network)
    finally:
        handle.remove()
    gated_on(network)


def test_a_hook_that_reads_another_part_of_the_network_is_refused():
    network = residual()[0]
    network.beside = nn.Linear(4, 8)
    network.first.register_forward_hook(lambda _, inputs, outputs: outputs + network.beside(inputs[0]))
    with pytest.raises(UnsupportedNetworkError, match=r"original's 'beside\.weight', 'beside\.bias'"):
        gated_on(network)
    for parameter in network.parameters():  # in a frozen network the graph of gradients shows nothing
        parameter.requires_grad_(False)
    with pytest.raises(UnsupportedNetworkError, match=r"original's 'beside\.weight', 'beside\.bias'"):
        analyse(network, torch.randn(2, 4))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_mask_put_on_after_gate_is_named_before_anything_is_trained(build):
    gated = gated_on(build()[0])
    layer = gated.network.get_submodule("2" if build is sequence else "middle")
    slots = {slot.tensor for slot in gated.network.slots}
    assert any(name.endswith(("2.weight", "middle.weight")) for name in slots)
    prune.l1_unstructured(layer, "weight", 0.5)
    with pytest.raises(UnsupportedNetworkError, match=r"'(2|middle)\.weight'.*since gate\(\)"):
        bp.fit(gated, rows(), epochs=1, progress=False)
    before = copy.deepcopy(gated.network.state_dict())
    with pytest.raises(UnsupportedNetworkError, match=r"Nothing was removed.*prune\.remove"):
        gated.remove_(torch.arange(len(gated.alive)) % 2 == 0)
    assert all(torch.equal(before[name], value) for name, value in gated.network.state_dict().items())


def test_what_a_spectral_norm_makes_of_a_network_is_told_with_the_remedy():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.utils.spectral_norm(network[0])
    nn.utils.spectral_norm(network[2])
    with pytest.raises((NothingToGateError, UnsupportedNetworkError), match="remove_spectral_norm"):
        gated_on(network)
    for layer in (network[0], network[2]):
        nn.utils.remove_spectral_norm(layer)
    assert [group.name for group in gated_on(network).groups] == ["input", "0"]


def test_networks_are_copied_with_what_is_computed_before_every_call():
    network, layer = residual()
    nn.utils.weight_norm(layer)
    assert not layer.weight.is_leaf  # what PyTorch refuses to copy
    history, x = layer.weight.grad_fn, torch.randn(5, 4)
    twin = analyse(network, x).gated.network
    assert layer.weight.grad_fn is history
    with torch.no_grad():
        layer.weight_g.mul_(2)
    assert not torch.equal(twin.eval()(x), network.eval()(x))
    with torch.no_grad():
        layer.weight_g.div_(2)
    assert torch.equal(twin(x), network(x))
