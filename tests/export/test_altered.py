"""Networks whose layers are altered: what is written is what they compute, or nothing is written."""

import importlib.util
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune

import bayesprune as bp
from bayesprune.errors import SettingsError, UnsupportedNetworkError
from bayesprune.export.form import form_of
from bayesprune.export.layers import is_sequence
from bayesprune.rows.call import call_of
from tests.altered import GRADIENTS, NETWORKS, OUTPUTS, REFUSED, UNTRAINED, Residual, sequence

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
FOLLOWED = OUTPUTS | UNTRAINED


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("alter", FOLLOWED.values(), ids=FOLLOWED)
def test_what_is_loaded_computes_what_was_saved(tmp_path, build, alter):
    network, layer = build()
    plain = build()[0].eval()
    alter(layer)
    x = torch.randn(5, 4)
    bp.save(network, tmp_path, example=x[:1])
    assert network.training
    expected = network.eval()(x)
    assert torch.equal(bp.load(tmp_path)(x), expected)
    changes = alter not in (OUTPUTS["another buffer"], UNTRAINED["wrong size"], OUTPUTS["weight norm"])
    assert torch.equal(expected, plain(x)) != changes  # so that a hook that is lost would be seen


@pytest.mark.parametrize("on_root", [True, False])
def test_hooks_on_the_network_itself(tmp_path, on_root):
    network, layer = sequence()
    (network if on_root else layer).register_forward_hook(lambda _, inputs, outputs: 2 * outputs)
    x = torch.randn(5, 4)
    bp.save(network, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path)(x), network.eval()(x))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("alter, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_named_with_its_remedy_and_what_was_there_stays(
    tmp_path, build, alter, message
):
    network, layer = build()
    x = torch.randn(5, 4)
    bp.save(network, tmp_path, example=x)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    alter(layer)
    with pytest.raises(UnsupportedNetworkError, match=message):
        bp.save(network, tmp_path, example=x)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_remedy_that_is_told_works(tmp_path):
    network, layer = sequence()
    nn.utils.spectral_norm(layer)
    prune.l1_unstructured(network[0], "weight", 0.5)
    network.eval()
    x = torch.randn(5, 4)
    expected = network(x)
    with pytest.raises(UnsupportedNetworkError) as caught:
        bp.save(network, tmp_path, example=x)
    remedy = str(caught.value).partition(": ")[2].partition(". The")[0]
    exec(remedy, {"torch": torch, "network": network})
    bp.save(network, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path)(x), expected)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("alter", GRADIENTS.values(), ids=GRADIENTS)
def test_hooks_on_gradients_are_no_part_of_what_is_computed(tmp_path, build, alter):
    network, layer = build()
    alter(layer)
    x = torch.randn(5, 4)
    bp.save(network, tmp_path, example=x)
    loaded = bp.load(tmp_path)
    assert torch.equal(loaded(x), network.eval()(x))
    assert isinstance(loaded, nn.Sequential) == isinstance(network, nn.Sequential)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_hook_on_all_modules_is_refused_and_pytorchs_own_are_not(tmp_path, build):
    network, x = build()[0], torch.randn(5, 4)
    handle = register_module_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    try:
        for asked in (
            lambda: bp.save(network, tmp_path, example=x),
            lambda: bp.export(network, tmp_path / "a.onnx", example=x),
        ):
            with pytest.raises(
                UnsupportedNetworkError, match=r"register_module_forward_hook.*handle\.remove"
            ):
                asked()
    finally:
        handle.remove()
    assert list(tmp_path.iterdir()) == []
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):  # has hooks on all modules, which only look
        bp.save(network, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path)(x), network.eval()(x))


@pytest.mark.parametrize("alter", [alter for alter in FOLLOWED.values()], ids=FOLLOWED)
def test_no_altered_layer_is_taken_for_a_plain_one(alter):
    network, layer = sequence()
    assert is_sequence(network)
    alter(layer)
    assert not is_sequence(network)
    description, tensors = form_of(network, call_of(network, torch.zeros(2, 4)))  # what certificates hash
    assert "layers" not in description
    assert set(tensors) >= {name for name, _ in (*network.named_parameters(), *network.named_buffers())}


def test_forward_hooks_that_belong_to_no_layer_of_the_sequence_are_seen_too():
    inner = nn.Sequential(nn.Linear(2, 2))
    inner.register_forward_hook(lambda _, inputs, outputs: outputs)
    assert not is_sequence(inner)


def test_state_dict_hooks_do_not_rename_what_is_saved(tmp_path):
    network, x = sequence()[0], torch.randn(5, 4)
    network.register_state_dict_post_hook(lambda module, state, prefix, local: state.clear())
    bp.save(network, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path)(x), network.eval()(x))


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra 'export'",
)
@pytest.mark.parametrize("name", ["mask", "old weight norm", "old spectral norm", "hook", "backward hook"])
def test_onnx_is_the_altered_network(tmp_path, name):
    network, layer = sequence()
    alter = OUTPUTS.get(name) or GRADIENTS.get(name) or REFUSED[name][0]
    alter(layer)
    network(torch.randn(7, 4))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnxruntime

        bp.export(network, tmp_path / "a.onnx", example=torch.zeros(2, 4))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    assert network.training
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    x = torch.randn(5, 4)
    (y,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), network.eval()(x).detach(), atol=1e-5, rtol=1e-5)


class Remembers(Residual):
    """Keeps the outputs of its last call, with their history."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


def test_what_cannot_be_copied_is_named(tmp_path):
    network, x = Remembers(), torch.randn(5, 4)
    network(x)
    with pytest.raises(UnsupportedNetworkError, match=r"cannot be copied: 'last' .*detach"):
        bp.save(network, tmp_path, example=x)
    with torch.no_grad():
        network(x)
    bp.save(network, tmp_path, example=x)


def test_own_classes_with_old_weight_norm_take_back_what_was_saved(tmp_path):
    def built(seed):
        torch.manual_seed(seed)
        network = Residual()
        nn.utils.weight_norm(network.middle)
        return network

    network, fresh, x = built(0), built(1), torch.randn(5, 4)
    bp.save(network, tmp_path, example=x)
    assert torch.equal(bp.load(tmp_path, into=fresh)(x), network.eval()(x))


def test_a_function_that_reads_the_instance_itself_is_not_filled(tmp_path):
    network, x = Residual(), torch.randn(5, 4)
    bp.save(network, tmp_path, example=x)
    fresh = Residual()
    inner = fresh.middle.forward
    fresh.middle.forward = lambda x: inner(x)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(UnsupportedNetworkError, match=r"original's|something else"):
        bp.load(tmp_path, into=fresh)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in before.items())


def test_a_part_without_gradients_has_none_when_it_is_loaded(tmp_path):
    class Apart(Residual):
        def forward(self, x):
            with torch.no_grad():
                x = x * self.first.bias.abs().sum()
            return super().forward(x)

    network, x = Apart(), torch.randn(5, 4)
    bp.save(network, tmp_path, example=x)
    loaded = bp.load(tmp_path)
    assert torch.equal(loaded.eval()(x), network.eval()(x))
    for module in (network, loaded):
        module(x).sum().backward()
    theirs = dict(loaded.named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, theirs[name].grad), name


def test_an_example_that_a_sequence_does_not_take_is_told(tmp_path):
    with pytest.raises(UnsupportedNetworkError, match="does not accept the example"):
        bp.save(sequence()[0], tmp_path, example=torch.randn(5, 3))
    with pytest.raises(SettingsError, match="pass a batch"):
        bp.export(nn.Sequential(nn.Conv2d(1, 1, 3)), tmp_path)
    assert list(tmp_path.iterdir()) == []
