import importlib.util
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bayesprune.errors import CheckpointError, SettingsError, UnsupportedNetworkError
from bayesprune.export import CLASSES, export, load, save
from bayesprune.export.layers import sequence_data, sequence_from_data
from bayesprune.structure.select import selected, selection
from tests.export.small import seal

ARGUMENTS = {  # of the classes that do not build without
    "Linear": {"in_features": 3, "out_features": 2},
    "Unflatten": {"dim": 1, "unflattened_size": (2, 3)},
    **{
        f"Conv{d}d": {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2, "groups": 2}
        for d in (1, 2, 3)
    },
    **{f"BatchNorm{d}d": {"num_features": 3, "momentum": None} for d in (1, 2, 3)},
    **{
        f"{kind}Pool{d}d": {"kernel_size": 2, "ceil_mode": True} for kind in ("Max", "Avg") for d in (1, 2, 3)
    },
    **{f"Adaptive{kind}Pool{d}d": {"output_size": 2} for kind in ("Max", "Avg") for d in (1, 2, 3)},
    "Softmax": {"dim": 1},
    "LogSoftmax": {"dim": -1},
    "LeakyReLU": {"negative_slope": 0.3},
    "Dropout": {"p": 0.1},
    "GELU": {"approximate": "tanh"},
    "Hardtanh": {"min_val": -2.0},
}


def _example(kind: str) -> torch.Tensor:
    """(1, channels or width, ...): what a layer of this class takes."""
    width = {"Conv": 2, "Unfl": 6}.get(kind[:4], 3)
    places = next((int(d) for d in "123" if kind.endswith(f"{d}d")), 0)
    return torch.rand(1, width, *[5] * places)


@pytest.mark.parametrize("kind", sorted(CLASSES))
@pytest.mark.parametrize("inference", [False, True])
def test_every_class_round_trips(tmp_path: Path, kind: str, inference: bool) -> None:
    layer = CLASSES[kind](**ARGUMENTS.get(kind, {})).train(not inference)
    save(nn.Sequential(layer), tmp_path, _example(kind))
    loaded = load(tmp_path)[0]
    assert type(loaded) is type(layer)
    assert repr(loaded) == repr(layer)
    assert not loaded.training
    for name, value in layer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def _network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    select = selection(27, torch.tensor([0, 5, 26]))
    network = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(1, 3, (3, 5), stride=(1, 2), padding=(1, 0), bias=False),
        "norm": nn.BatchNorm2d(3, eps=1e-3),
        "relu": nn.LeakyReLU(0.2),
        "pool": nn.AdaptiveAvgPool2d((3, None)),
        "squeeze": nn.AvgPool2d((1, 2), ceil_mode=True),
        "flatten": nn.Flatten(),
        "select": select,
        "fc": nn.Linear(3, 4),
    }.items():
        network.add_module(name, layer)
    network.to(dtype)
    network(torch.randn(8, 1, 6, 13, dtype=dtype))  # moves the running statistics
    return network.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_are_equal_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    network, x = _network(dtype), torch.randn(5, 1, 6, 13, dtype=dtype)
    save(network, tmp_path, x)
    loaded = load(tmp_path)
    assert torch.equal(loaded(x), network(x))
    assert [name for name, _ in loaded.named_children()] == [name for name, _ in network.named_children()]
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert json.loads((tmp_path / "architecture.json").read_text())["input_shape"] == [1, 6, 13]


def test_loading_draws_no_random_numbers_and_can_be_trained(tmp_path: Path) -> None:
    save(_network(), tmp_path, torch.zeros(1, 1, 6, 13))
    before = torch.get_rng_state()
    network = load(tmp_path).train()
    assert torch.equal(torch.get_rng_state(), before)
    network(torch.randn(4, 1, 6, 13)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_saving_leaves_the_network_alone(tmp_path: Path) -> None:
    network = _network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save(network, tmp_path, torch.zeros(1, 1, 6, 13))
    assert network.training
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_tensors_are_plain_safetensors(tmp_path: Path) -> None:
    network = _network()
    save(network, tmp_path, torch.zeros(1, 1, 6, 13))
    assert set(load_file(tmp_path / "pruned.safetensors")) == set(network.state_dict())


class Doubling(nn.Linear):
    """No plain layer, though a subclass of one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Backwards(nn.Sequential):
    """No sequence, though a subclass of one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[0](self[1](x))


def _sharing() -> nn.Sequential:
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, nn.Tanh(), layer)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(2, 2), Doubling(2, 2)),
        lambda: nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh(), nn.Linear(2, 2))),
        lambda: Backwards(nn.Linear(2, 2), nn.Tanh()),
        _sharing,
    ],
    ids=["subclass", "nested", "own forward", "shared"],
)
def test_what_is_no_sequence_of_plain_layers_is_not_taken_for_one(
    tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    network, x = build().eval(), torch.randn(3, 2)
    save(network, tmp_path, x)
    loaded = load(tmp_path)
    assert not isinstance(loaded, nn.Sequential)
    assert torch.equal(loaded(x), network(x))
    assert set(loaded.state_dict()) == set(network.state_dict())
    assert len(list(loaded.parameters())) == len(list(network.parameters()))


def test_what_was_frozen_stays_frozen(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].weight.requires_grad_(False)
    save(network, tmp_path, torch.zeros(1, 2))
    assert [p.requires_grad for p in load(tmp_path).parameters()] == [False, True, True, True]


class Deciding(nn.Linear):
    """Cannot be traced."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


def test_a_failed_save_keeps_what_was_there(tmp_path: Path) -> None:
    network = _network()
    save(network, tmp_path, torch.zeros(1, 1, 6, 13))
    with pytest.raises(UnsupportedNetworkError):
        save(Deciding(), tmp_path, torch.zeros(1, 1))
    x = torch.randn(2, 1, 6, 13)
    assert torch.equal(load(tmp_path)(x), network(x))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(_network(), tmp_path, torch.zeros(1, 1, 6, 13))
    return tmp_path


def _change(folder: Path, **entries: object) -> None:
    path = folder / "architecture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    seal(folder)


def test_missing_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no architecture\.json"):
        load(tmp_path / "none")
    (saved / "pruned.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load(saved)


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_truncated_tensors(saved: Path, left: int) -> None:
    path = saved / "pruned.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        load(saved)


def test_truncated_architecture(saved: Path) -> None:
    path = saved / "architecture.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match="truncated"):
        load(saved)


def test_files_of_two_exports_do_not_mix(saved: Path, tmp_path: Path) -> None:
    other = _network()
    with torch.no_grad():
        other[0].weight.add_(1)
    save(other, tmp_path / "other", torch.zeros(1, 1, 6, 13))
    (saved / "pruned.safetensors").write_bytes((tmp_path / "other/pruned.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"not the file that architecture\.json was written with"):
        load(saved)


@pytest.mark.parametrize(
    "layer",
    [
        {"name": "x", "class": "Bilinear", "arguments": {}},
        {"name": "x", "class": "os.system", "arguments": {"command": "true"}},
        {"name": "x", "class": "Linear", "arguments": {"in_features": "many"}},
        {
            "name": "x",
            "class": "Linear",
            "arguments": {"in_features": 1, "out_features": 1, "device": "cuda"},
        },
        {"name": "x.y", "class": "ReLU", "arguments": {}},
        {"class": "ReLU"},
        {"name": "", "class": "ReLU", "arguments": {}},
        {"name": ["x"], "class": "ReLU", "arguments": {}},
        {"name": {}, "class": "ReLU", "arguments": {}},
        {"name": "x", "class": ["ReLU"], "arguments": {}},
        {"name": "x", "class": "MaxPool2d", "arguments": {"kernel_size": {}, "stride": [[1]]}},
        {
            "name": "x",
            "class": "Conv2d",
            "arguments": {"in_channels": 2, "out_channels": 2, "kernel_size": 1, "groups": 0},
        },
        "ReLU",
    ],
)
def test_only_known_layers_are_built(saved: Path, layer: object) -> None:
    _change(saved, layers=[layer])
    with pytest.raises(CheckpointError, match="cannot rebuild layer"):
        load(saved)


def test_an_architecture_that_does_not_fit_its_tensors(saved: Path) -> None:
    _change(
        saved, layers=[{"name": "fc", "class": "Linear", "arguments": {"in_features": 3, "out_features": 5}}]
    )
    with pytest.raises(CheckpointError, match=r"does not fit architecture\.json"):
        load(saved)


def test_other_versions_and_missing_entries(saved: Path) -> None:
    _change(saved, format_version=99)
    with pytest.raises(CheckpointError, match="version 99"):
        load(saved)
    _change(saved, format_version=3, layers=None, input_shape=None)
    with pytest.raises(CheckpointError, match="lacks input_shape, layers"):
        load(saved)


def test_export_to_a_folder_is_save(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 2)).eval()
    export(network, tmp_path / "out")
    assert torch.equal(load(tmp_path / "out")(torch.ones(1, 4)), network(torch.ones(1, 4)))
    with pytest.raises(SettingsError, match="pass a batch, example="):
        export(nn.Sequential(nn.Conv2d(1, 1, 3)), tmp_path / "other")


def test_onnx_without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install onnx onnxscript onnxruntime"):
        export(nn.Sequential(nn.Linear(4, 2)), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra 'export'",
)
def test_onnx_gives_the_same_outputs_for_any_number_of_rows(tmp_path: Path) -> None:
    network = _network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxscript's and onnxruntime's own, at their import
        import onnxruntime

        export(network, tmp_path / "a.onnx", torch.zeros(2, 1, 6, 13))
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    for rows in (1, 7):
        x = torch.randn(rows, 1, 6, 13)
        (y,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), network(x), atol=1e-5, rtol=1e-5)


def test_no_pickle_is_imported_by_loading(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    pickle = sys.modules.get("pickle") or importlib.import_module("pickle")
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert isinstance(load(saved), nn.Sequential)


def test_a_selection_is_told_from_other_graphs(tmp_path: Path) -> None:
    """Only the one form is written as a selection; what somebody made of it is written as its operations."""
    select = selection(4, torch.tensor([0, 3]))
    assert selected(select)[0] == 4 and selected(nn.Identity()) is None
    for node in select.graph.nodes:
        if node.target is torch.index_select:
            with select.graph.inserting_after(node):
                doubled = select.graph.call_function(torch.mul, (node, 2))
            node.replace_all_uses_with(doubled, delete_user_cb=lambda user, d=doubled: user is not d)
            break
    select.recompile()
    assert selected(select) is None
    network, x = nn.Sequential(select, nn.Linear(2, 3)), torch.randn(2, 4)
    save(network, tmp_path, x)
    assert torch.equal(load(tmp_path)(x), network(x))


def test_a_width_in_a_file_takes_no_memory() -> None:
    network = nn.Sequential(selection(4, torch.tensor([0, 3])), nn.Linear(2, 3))
    data, tensors = sequence_data(network), dict(network.state_dict())
    data["layers"][0]["arguments"]["width"] = 10**12  # eight terabytes of positions
    loaded = sequence_from_data(data, tensors, Path("architecture.json"))
    assert torch.equal(loaded[0].index, torch.tensor([0, 3]))
    with pytest.raises(RuntimeError, match="1000000000000"):
        loaded(torch.randn(2, 4))
