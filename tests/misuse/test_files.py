"""What prune, save, load, export, count, analyse and data are called wrongly with."""

import pytest
import torch

import bayesprune as bp
from bayesprune import errors
from tests.misuse.small import (
    Residual,
    Two,
    X,
    fitted,
    gate,
    net,
    pruned,
)

REFUSED = {
    "prune network": (
        lambda folder: bp.prune(net()),
        errors.SettingsError,
        ("prune takes what fit returned,", "by bp.selection.prune(network, rule, example=…)"),
    ),
    "prune None": (
        lambda folder: bp.prune(None),
        errors.SettingsError,
        ("prune takes what fit returned,", "by bp.selection.prune(network, rule, example=…)"),
    ),
    "prune list": (
        lambda folder: bp.prune([fitted()]),
        errors.SettingsError,
        ("prune takes what fit returned,", "by bp.selection.prune(network, rule, example=…)"),
    ),
    "save None example": (
        lambda folder: bp.save(pruned(), folder + "/a", None),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "save example str": (
        lambda folder: bp.save(pruned(), folder + "/a2", "x"),
        errors.DataError,
        ("example: str. Give a batch", "each argument of forward"),
    ),
    "save example list": (
        lambda folder: bp.save(pruned(), folder + "/a3", [X]),
        errors.DataError,
        ("example: list. Give a batch", "each argument of forward"),
    ),
    "save example dict": (
        lambda folder: bp.save(pruned(), folder + "/a3", {"x": X}),
        errors.UnsupportedNetworkError,
        ("The Sequential does not accept the example (x (", "or as a dict"),
    ),
    "save network None": (
        lambda folder: bp.save(None, folder + "/a4", X),
        errors.UnsupportedNetworkError,
        ("The network is a NoneType:", "torch.nn.Module with its parameters"),
    ),
    "save gated": (
        lambda folder: bp.save(gate(), folder + "/a5", X),
        errors.UnsupportedNetworkError,
        ("The network is a GatedModel,", "model that is bp.prune(gated)"),
    ),
    "save result": (
        lambda folder: bp.save(fitted(), folder + "/a6", X),
        errors.UnsupportedNetworkError,
        ("The network is a FitResult:", "result that is bp.prune(result)"),
    ),
    "save folder None": (
        lambda folder: bp.save(pruned(), None, X),
        errors.RunFolderError,
        ("save: the folder is None,", "'runs/a', or a pathlib.Path"),
    ),
    "save folder 5": (
        lambda folder: bp.save(pruned(), 5, X),
        errors.RunFolderError,
        ("save: the folder is 5,", "'runs/a', or a pathlib.Path"),
    ),
    "save of no dimension": (
        lambda folder: bp.save(pruned(), folder + "/a7", torch.tensor(1.0)),
        errors.DataError,
        ("example: the inputs are a", "of rows: (rows, ...)"),
    ),
    "save graph None": (
        lambda folder: bp.save(Residual(), folder + "/a9", None),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "save 0 rows": (
        lambda folder: bp.save(pruned(), folder + "/a10", X[:0]),
        errors.DataError,
        ("example: no rows, shape (0,", "one, such as x[:1]"),
    ),
    "load None": (
        lambda folder: bp.load(None),
        errors.RunFolderError,
        ("load: the folder is None,", "'runs/a', or a pathlib.Path"),
    ),
    "load 5": (
        lambda folder: bp.load(5),
        errors.RunFolderError,
        ("load: the folder is 5,", "'runs/a', or a pathlib.Path"),
    ),
    "load missing": (
        lambda folder: bp.load(folder + "/zz"),
        errors.CheckpointError,
        ("holds no architecture.json", "Check the folder"),
    ),
    "load into": (
        lambda folder: (bp.save(pruned(), folder + "/b", X), bp.load(folder + "/b", into=5)),
        errors.UnsupportedNetworkError,
        ("The network is a int:", "torch.nn.Module with its parameters"),
    ),
    "load file": (lambda folder: bp.load(__file__), errors.CheckpointError, ("architecture.json", "Check")),
    "export None": (
        lambda folder: bp.export(None, folder + "/c", X),
        errors.UnsupportedNetworkError,
        ("The network is a NoneType:", "torch.nn.Module with its parameters"),
    ),
    "export path": (
        lambda folder: bp.export(pruned(), None, X),
        errors.RunFolderError,
        ("export: the path is None,", "'runs/a', or a pathlib.Path"),
    ),
    "export example": (
        lambda folder: bp.export(pruned(), folder + "/c1", "x"),
        errors.DataError,
        ("example: str. Give a batch", "each argument of forward"),
    ),
    "export gated": (
        lambda folder: bp.export(gate(), folder + "/c2", X),
        errors.UnsupportedNetworkError,
        ("The network is a GatedModel,", "model that is bp.prune(gated)"),
    ),
    "export onnx width": (
        lambda folder: bp.export(pruned(), folder + "/c3.onnx", torch.zeros(1, 5)),
        errors.UnsupportedNetworkError,
        ("The Sequential does not accept", "inputs as a tuple"),
    ),
    "export example []": (
        lambda folder: bp.export(pruned(), folder + "/c4", []),
        errors.DataError,
        ("example: list. Give a batch", "each argument of forward"),
    ),
    "count None": (
        lambda folder: bp.count(None, X),
        errors.UnsupportedNetworkError,
        ("The network is a NoneType:", "torch.nn.Module with its parameters"),
    ),
    "count example None": (
        lambda folder: bp.count(net(), None),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "count width": (
        lambda folder: bp.count(net(), torch.zeros(1, 5)),
        errors.UnsupportedNetworkError,
        ("The Sequential does not accept", "inputs as a tuple"),
    ),
    "count 0 rows": (
        lambda folder: bp.count(net(), X[:0]),
        errors.DataError,
        ("example: no rows, shape (0,", "one, such as x[:1]"),
    ),
    "count gated": (
        lambda folder: bp.count(gate(), X),
        errors.UnsupportedNetworkError,
        ("The network is a GatedModel,", "model that is bp.prune(gated)"),
    ),
    "count result": (
        lambda folder: bp.count(fitted(), X),
        errors.UnsupportedNetworkError,
        ("The network is a FitResult:", "result that is bp.prune(result)"),
    ),
    "count list": (
        lambda folder: bp.count(net(), [X]),
        errors.DataError,
        ("example: list. Give a batch", "each argument of forward"),
    ),
    "count of one dimension": (
        lambda folder: bp.count(net(), torch.zeros(4)),
        errors.DataError,
        ("example: shape (4,), and no", "x.unsqueeze(0) is one row"),
    ),
    "count of no dimension": (
        lambda folder: bp.count(net(), torch.tensor(1.0)),
        errors.DataError,
        ("example: the inputs are a", "of rows: (rows, ...)"),
    ),
    "analyse None": (
        lambda folder: bp.analyse(None, X),
        errors.UnsupportedNetworkError,
        ("The network is a NoneType:", "torch.nn.Module with its parameters"),
    ),
    "analyse example None": (
        lambda folder: bp.analyse(net(), None),
        errors.UnsupportedNetworkError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "analyse width": (
        lambda folder: bp.analyse(net(), torch.zeros(1, 5)),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "analyse list": (
        lambda folder: bp.analyse(net(), [X]),
        errors.UnsupportedNetworkError,
        ("example: list. Give a batch", "each argument of forward"),
    ),
    "analyse gated": (
        lambda folder: bp.analyse(gate(), X),
        errors.UnsupportedNetworkError,
        ("The network is a GatedModel,", "model that is bp.prune(gated)"),
    ),
    "analyse result": (
        lambda folder: bp.analyse(fitted(), X),
        errors.UnsupportedNetworkError,
        ("The network is a FitResult:", "result that is bp.prune(result)"),
    ),
    "analyse str": (
        lambda folder: bp.analyse(net(), "x"),
        errors.UnsupportedNetworkError,
        ("example: str. Give a batch", "each argument of forward"),
    ),
    "analyse 0": (
        lambda folder: bp.analyse(net(), X[:0]),
        errors.UnsupportedNetworkError,
        ("The example has no rows (input (0, 4)", "give at least one"),
    ),
    "data 5": (
        lambda folder: bp.data.load(5),
        errors.DataError,
        ("data.load: the name or folder", "'runs/a', or a pathlib.Path"),
    ),
    "data None": (
        lambda folder: bp.data.load(None),
        errors.DataError,
        ("data.load: the name or folder", "'runs/a', or a pathlib.Path"),
    ),
    "data zz": (
        lambda folder: bp.data.load("zz"),
        errors.DataError,
        ("Data 'zz': neither a known", "mnist) nor a folder"),
    ),
    "data dir": (
        lambda folder: bp.data.load("digits", "/tmp"),
        errors.DataError,
        ("A data folder (/tmp) says", "the data: --data DIR"),
    ),
    "data list": (
        lambda folder: bp.data.load(["digits"]),
        errors.DataError,
        ("data.load: the name or folder", "'runs/a', or a pathlib.Path"),
    ),
    "data file": (
        lambda folder: bp.data.load(__file__),
        errors.DataError,
        ("there is no such folder", "Check"),
    ),
    "data empty": (
        lambda folder: bp.data.load(""),
        errors.DataError,
        ("data.load(''): neither a known name", "mnist) nor a folder"),
    ),
    "data digits size": (
        lambda folder: bp.data.digits(size=5),
        errors.DataError,
        ("digits(size=5): the images are 8", "whole number from 8"),
    ),
    "data size s": (
        lambda folder: bp.data.digits(size="a"),
        errors.DataError,
        ("digits(size='a'): the images are 8", "whole number from 8"),
    ),
    "data mnist 5": (
        lambda folder: bp.data.mnist(5),
        errors.DataError,
        ("load_folder: the folder is 5,", "'runs/a', or a pathlib.Path"),
    ),
}

WORKS = {
    "prune gated": lambda folder: bp.prune(gate()),
    "save numpy": lambda folder: bp.save(pruned(), folder + "/a11", X.numpy()),
    "count tuple": lambda folder: bp.count(Two(), (X, X)),
    "count numpy": lambda folder: bp.count(net(), X.numpy()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_call_ends_in_place_value_and_remedy(name, tmp_path):
    call, error, told = REFUSED[name]
    with pytest.raises(error) as caught:
        call(str(tmp_path))
    message = " ".join(str(caught.value).split())
    for part in told:
        assert part in message


@pytest.mark.parametrize("name", WORKS)
def test_an_unusual_call_works(name, tmp_path):
    WORKS[name](str(tmp_path))
