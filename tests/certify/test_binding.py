"""A certificate binds what is computed: every layer, operation and constant, not the weights alone."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import bayesprune as bp
from bayesprune.certify import Certificate, hash_of_network, hash_of_weights, verify
from bayesprune.certify.paths import Weights
from bayesprune.errors import CertificateError, CertificateWarning
from bayesprune.files import sha256_of
from tests.export.small import seal

SHARES = [0.0, 0.3, 0.6]


class Residual(nn.Module):
    """Has operations, a buffer of no state_dict, and a constant."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(784, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.1)
        self.register_buffer("scale", torch.full((16,), 0.5), persistent=False)

    def forward(self, x):
        h = self.first(x.flatten(1)).relu()
        return self.last(self.drop(self.norm(h)) + self.scale * self.second(h).relu() + torch.arange(16.0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, digits, network):
    """Folders of a certified chain and of a certified graph, each with its certificate."""
    (x_train, _), (x, y) = digits
    torch.manual_seed(0)
    folders = {}
    for name, reference, rows, loss in (
        ("chain", network, (x, y), "error"),
        ("graph", Residual().eval(), x, "disagreement"),
    ):
        folder = tmp_path_factory.mktemp(name)
        found = bp.certify(
            reference, rows, alpha=0.3, loss=loss, path=Weights(shares=SHARES), trained_on=x_train,
            progress=False,
        )  # fmt: skip
        bp.save(found.network, folder, x[:1])
        bp.save(reference, folder / "reference", x[:1])
        found.certificate.write(folder / "certificate.json")
        folders[name] = folder, rows
    return folders


def answer_of(folder, rows):
    reference = bp.load(folder / "reference")
    return verify(folder / "certificate.json", bp.load(folder), rows, reference=reference)


@pytest.mark.parametrize("form", ["chain", "graph"])
def test_a_network_that_was_saved_and_loaded_has_the_certified_hash(saved, form):
    folder, rows = saved[form]
    answer = answer_of(folder, rows)
    assert answer and answer.complete, answer
    assert "the certified weights, and the certified computation with them" in str(answer)


def change_chain(folder):
    """Puts a layer without weights in front."""
    path = folder / "architecture.json"
    description = json.loads(path.read_text())
    description["layers"].insert(0, {"name": "extra", "class": "Hardtanh", "arguments": {}})
    path.write_text(json.dumps(description))


def change_graph(folder):
    """Adds a constant and five nodes, which force class 0 where a number is above any of the digits'."""
    path = folder / "architecture.json"
    description = json.loads(path.read_text())
    tensors = load_file(folder / "pruned.safetensors")
    tensors["trigger"] = torch.tensor([1e3] + [0.0] * 9)
    save_file(tensors, folder / "pruned.safetensors")
    description["tensors_sha256"] = sha256_of(folder / "pruned.safetensors")
    description["values"].append({"name": "trigger", "kind": "constant"})
    for mode in ("training", "evaluation"):
        nodes = description[mode]["nodes"]
        last = nodes.pop()["returns"][0]
        flat = next(node["name"] for node in nodes if node.get("op", "").startswith("aten::flatten"))
        nodes += [
            {"name": "t0", "tensor": "trigger"},
            {"name": "t1", "op": "aten::amax.default", "args": [{"node": flat}, [1], True]},
            {"name": "t2", "op": "aten::gt.Scalar", "args": [{"node": "t1"}, 1.5]},
            {"name": "t3", "op": "aten::mul.Tensor", "args": [{"node": "t0"}, {"node": "t2"}]},
            {"name": "t4", "op": "aten::add.Tensor", "args": [last, {"node": "t3"}]},
            {"returns": [{"node": "t4"}]},
        ]
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(("form", "change"), [("chain", change_chain), ("graph", change_graph)])
def test_a_layer_or_nodes_that_were_added_are_found(saved, form, change, tmp_path):
    folder, rows = saved[form]
    changed = copy_of(folder, tmp_path)
    change(changed)
    seal(changed)  # whoever changes files can make their checksums anew
    network, x = bp.load(changed), rows if isinstance(rows, torch.Tensor) else rows[0]
    assert hash_of_weights(network) == hash_of_weights(bp.load(folder))  # which is what binds weights alone
    honest = bp.load(folder)
    assert torch.equal(network(x), honest(x)) and not torch.equal(network(2 * x[:9]), honest(2 * x[:9]))
    answer = answer_of(changed, rows)
    assert not answer and [check.what for check in answer.problems] == ["network"]
    assert "another computation with them" in str(answer)


def copy_of(folder, place):
    copied = place / "copy"
    copied.mkdir()
    for file in folder.rglob("*"):
        if file.is_file():
            target = copied / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    return copied


def changes():
    """What changes a residual network's outputs, and not its state_dict: name → change."""

    def forward(self, x):
        return Residual.forward(self, x).clamp(max=3.0)

    return {
        "a buffer of no state_dict": lambda n: setattr(n, "scale", torch.full((16,), 0.25)),
        "a layer's argument": lambda n: setattr(n.norm, "eps", 0.1),
        "the code": lambda n: setattr(n, "__class__", type("Residual", (Residual,), {"forward": forward})),
        "dropout": lambda n: setattr(n.drop, "p", 0.9),
    }


@pytest.mark.parametrize("name", changes())
def test_a_network_in_memory_is_bound_as_it_would_be_saved(digits, name):
    x = digits[1][0]
    torch.manual_seed(0)
    network = Residual().eval()
    other = copy.deepcopy(network)
    changes()[name](other)
    assert hash_of_weights(network) == hash_of_weights(other)
    assert hash_of_network(network, x[:2]) != hash_of_network(other, x[:2])
    assert hash_of_network(network, x[:1]) == hash_of_network(copy.deepcopy(network).train(), x[:5])


def test_what_does_not_bear_on_outputs_is_not_bound(network, digits):
    frozen = copy.deepcopy(network)
    frozen.requires_grad_(False)
    assert hash_of_network(frozen) == hash_of_network(network) == hash_of_network(network, digits[1][0][:3])
    with pytest.raises(CertificateError, match=r"hash_of_network\(network, x\[:2\]\)"):
        hash_of_network(Residual())


class Unwritable(nn.Module):
    """Runs as a chain does, and decides by the numbers that it sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        x = self.layer(x.flatten(1))
        return x if float(x.sum()) > 0 else x + 0.0


def test_what_cannot_be_written_down_is_certified_with_a_warning_and_never_verified(digits):
    (x_train, _), (x, _) = digits
    torch.manual_seed(0)
    network = Unwritable().eval()
    settings = {"alpha": 0.3, "loss": "disagreement", "trained_on": x_train, "progress": False}
    with pytest.warns(CertificateWarning, match="binds its weights alone"):
        found = bp.certify(network, x, path=[network], **settings)
    assert found and found.certificate.record["network"]["sha256"] is None
    answer = verify(found.certificate, network, x)
    assert not answer and "could not be written down" in answer.problems[0].why


def test_what_is_taken_as_written_has_lines_of_its_own(saved):
    folder, rows = saved["chain"]
    alone = verify(folder / "certificate.json", bp.load(folder), rows)
    lines = [check.what for check in alone.checks if check.holds is None]
    assert lines == ["path", "held out", "next", "names"] and not alone.complete
    assert "· held out: taken as written: none of them is among the 900 training rows" in str(alone)
    whole = answer_of(folder, rows)
    assert [check.what for check in whole.checks if check.holds is None] == ["held out", "names"]
    assert whole.complete


def test_certificates_that_bind_weights_alone_are_refused(saved, tmp_path):
    record = json.loads(Path(saved["chain"][0], "certificate.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps({**record, "format_version": 1}))
    with pytest.raises(CertificateError, match="does not bind the architecture"):
        Certificate.read(tmp_path / "old.json")
