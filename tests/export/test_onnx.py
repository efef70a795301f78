"""Pruned networks of any form as ONNX: the same outputs in another runtime, for any number of rows."""

import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import ExportWarning, UnsupportedNetworkError
from tests.export.small import pruned
from tests.structure.graph.calls import Classifier
from tests.structure.graph.networks import CASES
from tests.structure.graph.test_sizes import Heads, Interpolates, Logarithm, Powers, Roots, Shuffles

for package in ("onnx", "onnxscript", "onnxruntime"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their own, at import
        pytest.importorskip(package, reason="needs the extra 'export'")


def session_of(path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path))


MISWRITTEN = {"ProjectedRecurrence"}  # PyTorch's exporter forgets that states of an LSTM are projected


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", sorted(MISWRITTEN))
def test_what_is_written_wrongly_is_noticed(name, tmp_path):
    with pytest.raises(UnsupportedNetworkError, match=r"does not run in onnxruntime: .*LSTM"):
        bp.export(pruned(name), tmp_path / "a.onnx", CASES[name].batch(2, torch.float32))
    assert list(tmp_path.iterdir()) == []


class Forecast(torch.nn.Module):
    """What an LSTM says of a row at its last step."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell(4, 6, batch_first=True), torch.nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


@pytest.mark.parametrize("cell", [torch.nn.LSTM, torch.nn.GRU])
def test_a_recurrence_is_written_for_any_length_and_the_second_time_as_the_first(cell, tmp_path):
    torch.manual_seed(0)
    small, x = pruned_at_random(Forecast(cell), torch.randn(2, 5, 4)), torch.randn(2, 5, 4)
    for name in ("first", "second"):
        bp.export(small, tmp_path / f"{name}.onnx", x)
        session, longer = session_of(tmp_path / f"{name}.onnx"), torch.randn(3, 9, 4)
        assert session.get_inputs()[0].shape == ["rows", "x_1", 4]
        with torch.no_grad():
            expected = small(longer)
        (y,) = session.run(None, {"x": longer.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), expected, atol=1e-5, rtol=1e-4)
    small.train()(x).sum().backward()  # what stands for a recurrence elsewhere has its gradient


FORMS = [
    "BiasFree", "ConvNeXtBlock", "FusedAttention", "GatedLinearUnit", "InvertedResidual", "PixelShuffle",
    "Recurrent", "ReturnsFeatures", "SqueezeExcite", "TwoInputs", "WeightNormalised",
]  # fmt: skip
MORE = [
    "ChannelsLastFlatten", "DenseConcat", "EinsumAttention", "EncoderLayers", "GroupNormalised",
    "HandWrittenNorm", "LearnedScales", "ResidualZeroPadded", "RootMeanSquareNormalised", "ShuffleThenSplit",
    "TiedEmbedding", "Transposed", "UNet", "WindowAttention", "rolled_channels",
]  # fmt: skip
"""One of each kind; at its making all others passed too (pass ``sorted(CASES)`` to see, in minutes)."""


@pytest.mark.parametrize("name", [*FORMS, *(pytest.param(name, marks=pytest.mark.nightly) for name in MORE)])
def test_onnx_gives_the_same_outputs_for_any_number_of_rows(name, tmp_path):
    network = pruned(name)
    rows = 2 if name == "BiasFree" else 1  # it takes the statistics of its batch, and one row has none
    bp.export(network, tmp_path / "a.onnx", CASES[name].batch(rows, torch.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    session = session_of(tmp_path / "a.onnx")
    for rows in (2, 7) if name == "BiasFree" else (1, 7):  # statistics of one row are none
        x = CASES[name].batch(rows, torch.float32)
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(network(*x))
        names = [given.name for given in session.get_inputs()]
        assert names == (["x"] if len(x) == 1 else [f"x{i}" for i in range(len(x))])
        outputs = session.run(None, {n: v.numpy() for n, v in zip(names, x, strict=True)})
        for y, z in zip(outputs, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(y), z, atol=1e-5, rtol=1e-4)


def pruned_at_random(network, x):
    """A third of the units gone."""
    analysis, generator = bp.analyse(network, x), torch.Generator().manual_seed(0)
    return analysis.cut(
        {g.name: torch.rand(g.size, generator=generator) > 0.3 for g in analysis.groups if not g.optional}
    ).eval()


SIZED = [
    *[(kind, (2, 7, 4), (3, 12, 4)) for kind in (Heads, Roots, Powers)],
    *[(kind, (2, 3, 8, 8), (3, 3, 11, 6)) for kind in (Interpolates, Shuffles)],
]


@pytest.mark.parametrize(("kind", "example", "other"), SIZED, ids=lambda v: getattr(v, "__name__", ""))
def test_sizes_that_the_network_takes_are_free_in_the_file(kind, example, other, tmp_path):
    torch.manual_seed(0)
    small = pruned_at_random(kind(), torch.randn(example))
    bp.export(small, tmp_path / "a.onnx", torch.randn(example))
    session, x = session_of(tmp_path / "a.onnx"), torch.randn(other)
    sizes = ["x_1", 4] if len(other) == 3 else [3, "x_2", "x_3"]
    assert session.get_inputs()[0].shape == ["rows", *sizes]
    (y,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), small(x), atol=1e-5, rtol=1e-4)


def test_lengths_of_several_inputs_are_one(tmp_path):
    torch.manual_seed(0)
    ids = {"ids": torch.randint(11, (2, 5)), "mask": torch.rand(2, 5) < 0.7}
    small = pruned_at_random(Classifier(dict), ids)
    bp.export(small, tmp_path / "a.onnx", ids)
    session = session_of(tmp_path / "a.onnx")
    assert [given.shape for given in session.get_inputs()] == [["rows", "ids_1"]] * 2
    longer = {"ids": torch.randint(11, (3, 9)), "mask": torch.ones(3, 9, dtype=torch.bool)}
    found = session.run(["logits"], {name: x.numpy() for name, x in longer.items()})
    torch.testing.assert_close(torch.from_numpy(found[0]), small(**longer)["logits"], atol=1e-5, rtol=1e-4)


def test_a_row_of_layers_takes_images_of_any_size(tmp_path):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    small = pruned_at_random(nn.Sequential(*layers, nn.Linear(6, 4)), torch.randn(2, 3, 9, 9))
    bp.export(small, tmp_path / "a.onnx", torch.randn(1, 3, 9, 9))
    session, x = session_of(tmp_path / "a.onnx"), torch.randn(3, 3, 12, 17)
    (y,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), small(x), atol=1e-5, rtol=1e-4)


def test_sizes_that_are_written_down_are_refused_by_the_file(tmp_path):
    x = torch.randn(2, 7, 4)
    bp.export(pruned_at_random(Logarithm(), x), tmp_path / "a.onnx", x)
    with pytest.raises(Exception, match=r"invalid dimensions for input: x [\s\S]*Got: 9 Expected: 7"):
        session_of(tmp_path / "a.onnx").run(None, {"x": torch.randn(2, 9, 4).numpy()})


def test_a_file_that_is_wrong_at_other_sizes_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("bayesprune.export.onnx.same_at", lambda *_: False)
    small, x = pruned_at_random(Heads(), torch.randn(2, 7, 4)), torch.randn(2, 7, 4)
    with pytest.warns(ExportWarning, match="takes any size of x_1.*the example's sizes alone"):
        bp.export(small, tmp_path / "a.onnx", x)
    assert session_of(tmp_path / "a.onnx").get_inputs()[0].shape == ["rows", 7, 4]


def test_outputs_have_names(tmp_path):
    network = pruned("ReturnsFeatures")
    bp.export(network, tmp_path / "a.onnx", CASES["ReturnsFeatures"].batch(2, torch.float32))
    assert [given.name for given in session_of(tmp_path / "a.onnx").get_outputs()] == ["y0", "y1"]


def test_a_loaded_network_is_exported_too_and_left_alone(tmp_path):
    network, x = pruned("rolled_channels"), CASES["rolled_channels"].batch(4, torch.float32)
    bp.save(network, tmp_path / "saved", x)
    loaded = bp.load(tmp_path / "saved").train()
    bp.export(loaded, tmp_path / "a.onnx", x[0])
    assert loaded.training
    (y,) = session_of(tmp_path / "a.onnx").run(None, {"x": x[0].numpy()})
    torch.testing.assert_close(torch.from_numpy(y), network(*x), atol=1e-5, rtol=1e-4)


def test_what_onnx_does_not_know_is_named(tmp_path):
    class Airy(torch.nn.Linear):
        def forward(self, x):
            return torch.special.airy_ai(super().forward(x))

    with pytest.raises(UnsupportedNetworkError, match=r"cannot be exported to ONNX: .*airy_ai"):
        bp.export(Airy(3, 3), tmp_path / "a.onnx", torch.randn(2, 3))
    assert list(tmp_path.iterdir()) == []


def of_type(kind, dtype):
    torch.manual_seed(0)
    layers = (
        [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)]
        if kind == "conv"
        else [nn.Linear(4, 2)]
    )
    x = torch.randn((2, 1, 4, 4) if kind == "conv" else (2, 4))
    return nn.Sequential(*layers).to(dtype), x.to(dtype)


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_half_precision_is_compared_too(kind, tmp_path, monkeypatch):
    network, x = of_type(kind, torch.float16)
    bp.export(network, tmp_path / "a.onnx", x)
    monkeypatch.setattr("bayesprune.export.parity._run", lambda path, inputs: [network(*inputs) + 0.1])
    with pytest.raises(UnsupportedNetworkError, match="computes something else in onnxruntime"):
        bp.export(network, tmp_path / "a.onnx", x)


@pytest.mark.parametrize(("kind", "dtype"), [("conv", torch.float64), ("linear", torch.bfloat16)])
def test_what_onnxruntime_does_not_have_is_told(kind, dtype, tmp_path):
    network, x = of_type(kind, dtype)
    with pytest.warns(ExportWarning, match=rf"could not be compared.*{dtype}.*network\.float\(\)"):
        bp.export(network, tmp_path / "a.onnx", x)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_what_is_no_onnx_is_not_written(tmp_path):
    """A convolution of bfloat16 is none at this opset."""
    network, x = of_type("conv", torch.bfloat16)
    with pytest.raises(UnsupportedNetworkError, match=r"does not run in onnxruntime: .*invalid model"):
        bp.export(network, tmp_path / "a.onnx", x)
    assert list(tmp_path.iterdir()) == []


def test_what_one_file_cannot_hold_is_refused_before_it_is_written(tmp_path, monkeypatch):
    network = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False))
    monkeypatch.setattr("bayesprune.export.onnx.LARGEST", 257)
    bp.export(network, tmp_path / "a.onnx")
    monkeypatch.setattr("bayesprune.export.onnx.LARGEST", 256)
    with pytest.raises(UnsupportedNetworkError, match="do not fit into one ONNX file"):
        bp.export(network, tmp_path / "b.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
