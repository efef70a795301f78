"""Files of networks that were truncated, changed or made up: one message, and nothing runs."""

import json
import os
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import bayesprune as bp
from bayesprune.errors import CheckpointError
from bayesprune.export import example_of
from tests.export.small import pruned, seal
from tests.structure.graph.networks import CASES


@pytest.fixture
def saved(tmp_path):
    bp.save(pruned("rolled_channels"), tmp_path, CASES["rolled_channels"].batch(2, torch.float32))
    return tmp_path


def change(folder, action):
    path = folder / "architecture.json"
    description = json.loads(path.read_text())
    action(description)
    path.write_text(json.dumps(description))
    seal(folder)


def nodes(description, kind="op"):
    return [node for node in description["evaluation"]["nodes"] if kind in node]


def refused(folder):
    with pytest.raises(CheckpointError) as caught:
        bp.load(folder)
    message = str(caught.value)
    assert str(folder) in message
    return message


OPERATIONS = ["os.system", "builtins.exec", "posix.system", "aten::from_file.default", "aten::save.default",
              "aten::resize_.default", "torch.load", "torch.ops.aten.add.Tensor", "operator.methodcaller",
              "subprocess::run.default", "__main__.f", ""]  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_planted_operation_is_named_and_does_not_run(saved, name, mode, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    monkeypatch.setattr(torch, "load", ran.append)

    def plant(description):
        node = next(n for n in description[mode]["nodes"] if "op" in n)
        node["op"], node["args"] = name, ["touch planted"]

    change(saved, plant)
    message = refused(saved)
    assert f"graph of {mode}: node" in message and repr(name) in message
    assert "is no operation that a network read from a file may run" in message
    assert "export the network again" in message
    assert not ran


def test_code_in_names_does_not_run(saved, monkeypatch):
    """Names become part of a Python function: each place where one stands is tried."""
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    monkeypatch.setattr(sys.modules["builtins"], "planted", lambda: ran.append(1), raising=False)
    original = (saved / "architecture.json").read_text()

    def into(kind, key, text):
        def plant(description):
            nodes(description, kind)[0][key] = text

        return plant

    def keyword(description):
        nodes(description)[0]["kwargs"] = {"x=planted(), y": 1}

    texts = ["x, y=planted()", "x): planted(\n", "x = planted()", "planted()", "a') + planted() + ('",
             'a") + planted() + ("', "a\\", "a\n  planted()", "{planted()}", "import"]  # fmt: skip
    places = [("op", "name"), ("input", "name"), ("input", "input"), ("tensor", "name"), ("tensor", "tensor")]
    actions = [into(kind, key, text) for kind, key in places for text in texts]
    for action in [*actions, keyword]:
        change(saved, action)
        refused(saved)
        (saved / "architecture.json").write_text(original)
    assert not ran


def test_code_in_the_names_of_tensors_does_not_run(saved, monkeypatch):
    """The same, where tensors and modules of the tree have such names too."""
    ran = []
    monkeypatch.setattr(sys.modules["builtins"], "planted", lambda: ran.append(1), raising=False)
    name = 'head") + planted() + ("'

    def plant(description):
        graphs = [node for mode in ("training", "evaluation") for node in description[mode]["nodes"]]
        for entry in [*description["modules"], *description["values"], *graphs]:
            key = "tensor" if "tensor" in entry else "name"
            if "op" not in entry and key in entry:
                entry[key] = entry[key].replace("head", name)

    path = saved / "pruned.safetensors"
    save_file({key.replace("head", name): value for key, value in load_file(path).items()}, path)
    change(saved, plant)
    assert "signs that cannot be written down" in refused(saved)
    assert not ran


def _without(key):
    return lambda description: description.pop(key)


def _set(key, value):
    return lambda description: description.update({key: value})


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (_without("values"), "lacks values"),
        (_without("training"), "lacks training"),
        (_set("modules", {}), "lacks modules"),
        (_set("format_version", 1), "version 1"),
        (_set("format_version", True), "version True"),
        (_set("format", "other"), "format 'other'"),
        (_set("modules", ["head"]), "cannot rebuild"),
        (_set("values", [1]), "cannot rebuild"),
        (_set("values", []), "cannot rebuild"),
        (_set("evaluation", {}), "graph of evaluation: there are no nodes"),
        (_set("evaluation", {"nodes": [], "outputs": 0}), "graph of evaluation"),
        (lambda d: d["modules"].append({"name": "more", "class": "os.system", "arguments": {}}), "cannot"),
        (lambda d: d["modules"].append({"name": "more", "class": "LSTM", "arguments": {}}), "cannot"),
        (lambda d: d["modules"].append({"name": "no.where", "part": "X"}), "cannot rebuild"),
        (lambda d: d["modules"].append({"name": "forward", "part": "X"}), "cannot rebuild"),
        (lambda d: d["modules"].append({"name": "", "part": "X"}), "cannot rebuild"),
        (lambda d: d["modules"][-1].update(same_as="gone"), "cannot rebuild"),
        (lambda d: d["values"].append({"name": "head.more", "kind": "parameter"}), "no tensor 'head.more'"),
        (lambda d: d["values"].append({"name": "head.more", "kind": "code"}), "cannot rebuild"),
        (lambda d: d["values"].pop(), "missing|in no layer|no tensor"),
        (lambda d: nodes(d, "tensor")[0].update(tensor="gone"), "there is no tensor 'gone'"),
        (lambda d: nodes(d)[0].update(args=[{"node": "gone"}]), "it reads 'gone'"),
        (lambda d: nodes(d)[0].update(args=[{"dtype": "float"}, [{"code": "1"}]]), "is no argument"),
        (lambda d: d["evaluation"]["nodes"].pop(), "does not end in what it returns"),
        (lambda d: d["evaluation"].update(outputs={"tuple": [0, 1]}), "places for 1 results"),
        (lambda d: d["evaluation"].update(outputs="X"), "is no structure of outputs"),
    ],
)
def test_what_does_not_fit_is_named(saved, action, message):
    change(saved, action)
    with pytest.raises(CheckpointError, match=message):
        bp.load(saved)


def test_sizes_that_do_not_fit_the_tensors_are_named(saved):
    def widen(description):
        next(m for m in description["modules"] if m["name"] == "head")["arguments"]["in_features"] = 77

    change(saved, widen)
    assert "'head.weight' has shape (3, 3), its layer says (3, 77)" in refused(saved)


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 5, "", "[]", "null", '{"format": NaN}', "\x00"])
def test_what_is_no_json_object(saved, text):
    (saved / "architecture.json").write_text(text)
    assert "architecture.json" in refused(saved)


def test_arguments_nested_without_end(saved):
    text = (saved / "architecture.json").read_text()
    deep = "[" * 900 + "]" * 900
    change(saved, lambda d: nodes(d)[0].update(args=["DEEP"]))
    path = saved / "architecture.json"
    path.write_text(path.read_text().replace('"DEEP"', deep))
    seal(saved)
    with pytest.raises(CheckpointError):
        bp.load(saved)
    assert text


@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_truncated_tensors(saved, left):
    path = saved / "pruned.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert "truncated or corrupt" in refused(saved)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_architecture(saved, share):
    path = saved / "architecture.json"
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    assert "truncated" in refused(saved)


def test_tensors_of_another_network(saved, tmp_path):
    bp.save(pruned("split_by_sizes"), tmp_path / "b", CASES["split_by_sizes"].batch(2, torch.float32))
    (saved / "pruned.safetensors").write_bytes((tmp_path / "b/pruned.safetensors").read_bytes())
    assert "is not the file that architecture.json was written with" in refused(saved)


@pytest.mark.parametrize(
    "inputs", [[{"shape": "wide", "dtype": "float32"}], [{"dtype": "float32"}], [1],
               [{"shape": [3], "dtype": "load"}], [{"shape": [-3], "dtype": "float32"}]],
    ids=str,
)  # fmt: skip
def test_inputs_that_are_none(saved, inputs):
    change(saved, _set("inputs", inputs))
    with pytest.raises(CheckpointError, match="describes inputs"):
        example_of(saved)
