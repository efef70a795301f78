"""A network from a file: what was changed by accident is found, and what it runs leaves its caller alone."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bayesprune as bp
from bayesprune.errors import CheckpointError
from bayesprune.structure.plain.operators import operator_of
from tests.export.small import seal


class Residual(nn.Module):
    """Not a sequence, and with an activation in place on a view of its input."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(4, 4), nn.Linear(4, 2), nn.Hardtanh(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x.reshape(len(x), 4))
        return self.last(x + self.first(x))


class Skipping(nn.Module):
    """Stochastic depth, which makes memory and fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.training:
            y = y * torch.empty(len(x), 1).bernoulli_(0.5) * torch.empty_like(y).fill_(2.0)
        return self.last(x + y * y.new_empty(y.shape).fill_(0.5))


def _sequence() -> nn.Module:
    return nn.Sequential(nn.Hardtanh(inplace=True), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(4, 2))


NETWORKS = {"sequence": _sequence, "graph": lambda: Residual(inplace=True)}


@pytest.fixture(params=NETWORKS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    bp.save(NETWORKS[request.param]().eval(), tmp_path, torch.zeros(2, 4))
    return tmp_path


def test_every_value_of_the_architecture_is_under_the_checksum(saved: Path) -> None:
    """Values that would still give a network, another one, are found without running it."""
    path = saved / "architecture.json"
    text = path.read_text()

    def leaves(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            return [leaf for key, part in pairs for leaf in leaves(part, (*at, key))]
        return [at]

    tried = 0
    for *above, last in leaves(json.loads(text)):
        description = json.loads(text)
        place = description
        for key in above:
            place = place[key]
        value = place[last]
        place[last] = (
            (not value) if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else 7.5
        )
        path.write_text(json.dumps(description))
        with pytest.raises(CheckpointError, match=r"architecture\.json"):
            bp.load(saved)
        tried += 1
    assert tried > 8
    path.write_text(json.dumps(json.loads(text), indent=7))  # laid out anew, and the same
    bp.load(saved)


def test_tensors_without_the_checksum_are_of_an_older_version_or_changed(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    from bayesprune.files import sha256_of

    tensors = saved / "pruned.safetensors"
    save_file(load_file(tensors), tensors)
    path = saved / "architecture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tensors_sha256": sha256_of(tensors)}))
    with pytest.raises(CheckpointError, match="does not have the checksum that"):
        bp.load(saved)


def test_rows_are_their_callers(saved: Path) -> None:
    """Whatever a network in a file writes in place, what it is given stays as it is."""
    network = bp.load(saved)
    x = torch.randn(5, 4) * 3
    before = x.clone()
    for training in (False, True):
        network.train(training)
        network(x)
        assert torch.equal(x, before)


@pytest.mark.parametrize("kind", NETWORKS)
def test_outputs_are_those_of_the_network_that_was_saved(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]().eval()
    bp.save(network, tmp_path, torch.zeros(2, 4))
    x = torch.randn(5, 4) * 3
    assert torch.equal(bp.load(tmp_path)(x), network(x.clone()))


def test_a_planted_write_into_the_input_reaches_a_copy(tmp_path: Path) -> None:
    bp.save(Residual(inplace=False).eval(), tmp_path, torch.zeros(2, 4))
    path = tmp_path / "architecture.json"
    description = json.loads(path.read_text())
    for mode in ("training", "evaluation"):
        nodes = description[mode]["nodes"]
        source = next(node["name"] for node in nodes if "input" in node)
        at = next(i for i, node in enumerate(nodes) if "op" in node)
        views = [("a", "aten::detach.default", source), ("b", "aten::dropout.default", "a"),
                 ("c", "aten::zero_.default", "b")]  # fmt: skip
        more = {"aten::dropout.default": [0.5, False]}
        planted = [{"name": n, "op": op, "args": [{"node": of}, *more.get(op, [])]} for n, op, of in views]
        nodes[at:at] = planted
    path.write_text(json.dumps(description))
    seal(tmp_path)
    x = torch.ones(3, 4)
    bp.load(tmp_path)(x)
    assert torch.equal(x, torch.ones(3, 4))


def test_memory_that_nobody_filled_is_no_part_of_a_file(tmp_path: Path) -> None:
    network = Skipping()
    bp.save(network, tmp_path, torch.zeros(2, 4))
    text = (tmp_path / "architecture.json").read_text()
    assert '"aten::empty' not in text and '"aten::new_empty' not in text and '"aten::zeros' in text
    again = bp.load(tmp_path)
    x = torch.randn(6, 4)
    for training in (False, True):
        outputs = []
        for module in (copy.deepcopy(network), again):
            torch.manual_seed(1)
            outputs.append(module.train(training)(x))
        torch.testing.assert_close(*outputs)


@pytest.mark.parametrize(
    "name",
    ["aten::empty.memory_format", "aten::empty_like.default", "aten::new_empty.default",
     "aten::empty_strided.default", "aten::native_batch_norm.default", "aten::native_group_norm.default"],
)  # fmt: skip
def test_operations_that_a_file_cannot_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no operation that a network read from a file may run"):
        operator_of(name)
