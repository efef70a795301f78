"""Programs whose networks are deep or no chains, on small digits: they learn, and units go exactly.

Images of 8 × 8 make a step cheap; the networks are the shipped ones, at their full width and depth.
"""

import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyro
import pytest
import torch

import bayesprune as bp
from bayesprune.cli import main
from bayesprune.errors import DataError
from bayesprune.programs import load_model
from tests.nightly import one_in
from tests.programs.small import ANY_NETWORK, FAST

ROWS, BATCH_SIZE = 300, 30
EPOCHS = {
    "mobilenet_v2": 3, "resnet18": 4, "resnet20_cifar": 6, "text_classifier": 20, "vgg16_cifar": 5,
    "vit_small": 8,
}  # fmt: skip
PATIENT = {"text_classifier": {"warmup": 0.6, "ramp": 0.1, "decide": 0.8}}  # it learns slowly to begin with
pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")


@cache
def rows(name):
    """The program's own kind of rows: (training split, test split)."""
    program = load_model(name)
    data = program.data() if program.data else bp.data.digits(size=8)
    return bp.data.Split(data.train.x[:ROWS], data.train.y[:ROWS]), data.test


@cache
def _gated(name):
    pyro.set_rng_seed(0)
    return load_model(name).model(rows(name)[0], 10, None)


def gated_at(name):
    """The program's model on a few rows; tracing a network takes seconds, so that is done once."""
    return copy.deepcopy(_gated(name))


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_its_units_are_what_goes_together(name):
    sizes = {group.name: group.size for group in gated_at(name).groups}
    assert sizes == ANY_NETWORK[name]


def settle(gated, x):
    """Statistics of batch norms as after training: with those of a new network all signals die on the way."""
    network = getattr(gated.network, "network", gated.network)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the batch's own
    network.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return gated.eval()


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_its_network_pruned_is_its_network_masked(name):
    """At random gates, one in three closed, in float64 to 1e-10: units first, then a whole section too.

    With all its sections it is of the same class as before; without one it is a graph.
    """
    gated = gated_at(name).double()
    closed = torch.rand(len(gated.log_odds), generator=torch.Generator().manual_seed(0)) < 1 / 3
    parts = gated.slices()
    closed[[part.start for part in parts.values()]] = False  # no group loses its last unit
    sections = parts.pop("layers", slice(0, 0))
    closed[sections] = False
    x = rows(name)[1].x[:20]
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        settle(gated, x)
        whole = gated.outputs(x, gated.by_group(torch.ones_like(gated.log_odds)))
        small = assert_pruned_is_masked(gated, closed, x, whole)
        assert type(small).__name__ == type(getattr(gated.network, "network", torch.nn.Sequential())).__name__
        if sections.stop:
            closed[sections.start] = True
            assert_pruned_is_masked(gated, closed, x, whole)


def assert_pruned_is_masked(gated, closed, x, whole):
    """Outputs without the closed units are those under their gates, and it mattered; the small network."""
    gated.log_odds.data = torch.where(closed, -5.0, 5.0).double()
    masked = gated.outputs(x, gated.by_group((~closed).double()))
    small = bp.prune(gated)
    torch.testing.assert_close(small(x), masked, rtol=1e-10, atol=1e-10)
    assert (whole - masked).abs().max() > 1e-3 * whole.abs().max() > 0
    assert sum(p.numel() for p in small.parameters()) < 0.7 * gated.dense_parameters
    return small


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_it_adapts_to_the_data(name, monkeypatch):
    """Other channels, sizes and classes: the network runs, and gives as many outputs as there are classes."""
    monkeypatch.setattr(bp, "gate", lambda network, example, **settings: network)  # what takes seconds
    x = torch.rand(4, 3, 24, 28) if rows(name)[0].x.is_floating_point() else torch.randint(5, (4, 30))
    network = load_model(name).model(bp.data.Split(x, torch.tensor([0, 1, 2, 0])), 3, None)
    assert network(x).shape == (4, 3)


@pytest.mark.parametrize("name", one_in(3, ANY_NETWORK))
def test_it_learns_and_prunes(name):
    """At its own prices it fits better than at the start; what comes out does what the gated network did."""
    train, test = rows(name)
    result = bp.fit(
        gated_at(name), (train.x, train.y), epochs=EPOCHS[name], batch_size=BATCH_SIZE,
        recipe=replace(load_model(name).recipe, **{**FAST, **PATIENT.get(name, {})}), progress=False,
    )  # fmt: skip
    assert result.undecided == 0
    assert sum(result.architecture) < sum(ANY_NETWORK[name].values())
    assert min(epoch.nll for epoch in result.history) < 0.8 * result.history[0].nll
    small, gated = bp.prune(result).eval(), result.gated.eval()
    with torch.no_grad():
        kept = {group: torch.ones(left) for group, left in gated.kept().items()}
        torch.testing.assert_close(small(test.x), gated.network(test.x, kept), rtol=1e-5, atol=1e-5)


def test_the_text_classifier_loses_embedding_dimensions_heads_and_hidden_units_exactly():
    """Every kind of unit on its own, from every table and layer that holds it."""
    gated = gated_at("text_classifier").double()
    x = rows("text_classifier")[1].x[:20]
    gone = {"blocks_0_out": [0, 5], "blocks_0_qkv": [1], "blocks_1_fc1": list(range(60))}
    for group, units in gone.items():
        dead = torch.zeros_like(gated.alive)
        dead[torch.tensor(units) + gated.slices()[group].start] = True
        with torch.no_grad():
            before = gated.outputs(x, gated.by_group(gated.alive.double()))
            masked = gated.outputs(x, gated.by_group((gated.alive & ~dead).double()))
            gated.remove_(dead)
            torch.testing.assert_close(bp.prune(gated)(x), masked, rtol=1e-10, atol=1e-10)
        assert (before - masked).abs().max() > 1e-3
    small = bp.prune(gated)
    assert small.tokens.weight.shape == (17, 30) and small.positions.weight.shape == (64, 30)
    first, second = small.blocks
    assert first.qkv.weight.shape == (3 * 3 * 8, 30) and first.out.weight.shape == (30, 3 * 8)
    assert second.fc1.weight.shape == (4, 30) and second.qkv.weight.shape == (96, 30)


@pytest.fixture
def cifar(tmp_path):
    """A folder of CIFAR-10's binary version with 60 rows to learn from and 20 to test on."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, count in (("data_batch_1", 60), ("test_batch", 20)):
        records = torch.randint(256, (count, 3073), generator=generator)
        records[:, 0] = torch.arange(count) % 10
        (folder / f"{name}.bin").write_bytes(bytes(records.flatten().tolist()))
    return folder


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")
@pytest.mark.parametrize("words", one_in(2, [("text_classifier",), ("resnet20_cifar", "--batch-size", "20")]))
def test_from_the_command_line(words, cifar, capsys):
    """On the program's own data, and on CIFAR's records: what was saved errs as the result says."""
    data = bp.data.load(cifar) if len(words) > 1 else bp.data.load("digits-tokens")
    source = ("--data", str(cifar)) if len(words) > 1 else ()
    assert main(["run", *words, *source, "--epochs", "1", "--out", "out", "--quiet"]) == 0
    result = json.loads(Path("out/result.json").read_text())
    assert result["data"] == data.name and result["undecided_gates"] == 0
    assert dict(zip(result["groups"], result["dense_architecture"], strict=True)) == ANY_NETWORK[words[0]]
    network = bp.load("out")
    assert sum(p.numel() for p in network.parameters()) == result["parameters_kept"]
    score = bp.evaluate(network, (data.test.x, data.test.y), bp.Categorical(rows=1)).score
    assert score == pytest.approx(result["test_error_percent"], rel=1e-5)


@pytest.mark.parametrize("name", ["vgg16_cifar", "vit_small"])
def test_what_are_no_images_is_told(name):
    with pytest.raises(DataError, match=r"Rows of shape \(64,\) are no images"):
        load_model(name).model(rows("text_classifier")[0], 10, None)
