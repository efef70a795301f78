"""`bayesprune monitor`: new rows are counted against a certificate, and the answer is an exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import bayesprune as bp


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a certificate, as `bayesprune certify` leaves it, of a network that is never wrong."""
    folder = tmp_path_factory.mktemp("certified")
    network = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
        network[0].bias.zero_()
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    found = bp.certify(
        network, (x, (x[:, 0] > 0).long()), alpha=0.1, path=[network], trained_on=x + 9, progress=False
    )
    found.certificate.write(folder / "certificate.json")
    bp.save(network, folder, x[:1])
    return folder


def rows(name: str, seed: int, wrong: float = 0.0, count: int = 150) -> str:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    errs = torch.rand(count, generator=generator) < wrong
    save_file({"x": x, "y": ((x[:, 0] > 0) ^ errs).long()}, name)
    return name


def test_it_counts_until_the_certificate_has_expired(cli: Any, certificate: Path) -> None:
    place = (str(certificate), str(certificate))
    done = cli("monitor", *place, rows("a.safetensors", 1), "--state", "state.json")
    assert done.code == 0, done.err
    assert (
        done.out.startswith("no sign that it has expired, after 150 rows")
        and "The state is state.json" in done.out
    )
    assert json.loads(Path("state.json").read_text())["rows"] == 150
    done = cli("monitor", *place, rows("b.safetensors", 2, 0.5), "--state", "state.json")
    assert done.code == 1 and done.out.startswith("expired at row")
    done = cli("monitor", *place, rows("c.safetensors", 3), "--state", "state.json", "--quiet")
    assert done.code == 1 and done.out == ""  # for good
    assert json.loads(Path("state.json").read_text())["rows"] == 450


def test_what_cannot_be_counted_leaves_the_state_as_it_was(cli: Any, certificate: Path) -> None:
    place = (str(certificate / "certificate.json"), str(certificate))
    assert cli("monitor", *place, rows("a.safetensors", 1), "--state", "s.json", "--delta", "0.1").code == 0
    before = Path("s.json").read_bytes()
    for words, message in [
        (("a.safetensors", "--state", "s.json"), "counted already"),
        ((rows("b.safetensors", 2), "--state", "s.json", "--delta", "0.2"), "was begun already"),
        (("none.safetensors", "--state", "s.json"), "cannot be read as safetensors"),
    ]:
        done = cli("monitor", *place, *words)
        assert done.code == 2 and message in done.err
        assert Path("s.json").read_bytes() == before
    done = cli("monitor", "nowhere", str(certificate), "a.safetensors")
    assert done.code == 2 and "there is no such file" in done.err
    Path("s.json").write_text("{}")
    done = cli("monitor", *place, "b.safetensors", "--state", "s.json")
    assert done.code == 2 and "format is missing" in done.err
