"""Code of the page on one's own loop that is not run when the page is built.

Loggers are stand-ins with the methods that TensorBoard 2.21, W&B 0.30 and MLflow 3 have.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bayesprune as bp
from tests.svi.fits import FAST, data, gated_for, network

PAGE = (Path(__file__).parents[2] / "docs/own_loop.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")


def block(word):
    (found,) = [code for code in BLOCKS if word in code]
    return found


def begun():
    gated = gated_for(net=nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2)))
    return {
        "gated": gated,
        "optimizer": torch.optim.SGD(gated.parameters(), lr=0.05),
        "bp": bp,
        "torch": torch,
    }


def with_training():
    names = begun()
    recipe = bp.Recipe(**FAST)
    training = bp.Training(names["gated"], optimizer=names["optimizer"], steps=24, recipe=recipe)
    return {**names, "training": training}


def batches():
    x, y = data()
    return list(zip(x.split(16), y.split(16), strict=True))


def test_several_batches_are_one_step():
    names = with_training()
    exec(block("groups_of_four"), {**names, "groups_of_four": [batches()[:4], batches()[2:]]})
    assert names["training"].steps == 2


def test_a_scaler_is_handed_over():
    names = {**with_training(), "scaler": torch.amp.GradScaler("cpu", init_scale=8.0)}
    code = block("scaler.scale(loss)").replace('"cuda"', '"cpu"')
    for batch in batches():
        exec(code, {**names, "batch": batch})
    assert names["training"].steps == 6


def test_an_average_is_cut_along_and_pruned():
    names = {**begun(), "steps": 24}
    names["gated"].log_odds.data[:3] = -4.0
    before, after = block("AveragedModel").split("...\n")
    exec(before, names)
    for step in range(24):
        names["training"].loss(batches()[step % 6]).backward()
        names["training"].step()
        names["ema"].update_parameters(names["gated"])
    exec(after, names)
    own, dense = names["small"], 36 * 8 + 8 + 8 * 2 + 2
    assert type(own) is nn.Sequential and sum(p.numel() for p in own.parameters()) < dense


def test_loggers_are_told_every_epoch():
    told = []
    writer = SimpleNamespace(
        add_scalars=lambda main_tag, tag_scalar_dict, global_step=None: told.append(
            (tag_scalar_dict, global_step)
        )
    )
    wandb = SimpleNamespace(log=lambda data, step=None: told.append((data, step)))
    mlflow = SimpleNamespace(log_metrics=lambda metrics, step=None: told.append((metrics, step)))
    classes = block("class Log").split("\n\n\n")
    assert len(classes) == 3
    for code in classes:
        told.clear()
        names = {"bp": bp, "writer": writer, "wandb": wandb, "mlflow": mlflow}
        exec(code, names)
        bp.fit(
            gated_for(),
            data(),
            epochs=3,
            recipe=bp.Recipe(**FAST),
            progress=False,
            callbacks=[names["Log"]()],
        )
        assert [step for _, step in told] == [1, 2, 3]
        assert all(set(values) == {"nll", "macs"} and 0 < values["macs"] <= 100 for values, _ in told)


def test_no_block_is_left_out():
    """That of several processes is run as an example, with the same lines; torch.compile elsewhere."""
    words = (
        "groups_of_four",
        "scaler.scale",
        "AveragedModel",
        "class Log",
        "init_process_group()",
        "compile()",
    )
    assert all(sum(word in code for word in words) == 1 for code in BLOCKS)
    plain = (Path(__file__).parents[2] / "examples/frameworks/plain.py").read_text(encoding="utf-8")
    lines = [line.strip().split("  #")[0] for line in block("init_process_group()").splitlines()]
    for line in ("sampler = DistributedSampler(dataset)", "sampler.set_epoch(epoch)", "training.reduce()"):
        assert line in lines and line in plain


@pytest.mark.parametrize("kind", ["ModelEmaV2", "ModelEmaV3"])
def test_timms_averages_are_cut_along(kind):
    timm = pytest.importorskip("timm.utils")
    gated = gated_for(net=network())
    ema = getattr(timm, kind)(gated, decay=0.9)
    training = bp.Training(gated, steps=36, recipe=bp.Recipe(**FAST), also=[ema])
    x, y = data()
    for step in range(36):
        rows = slice(16 * (step % 6), 16 * (step % 6) + 16)
        training.loss((x[rows], y[rows])).backward()
        training.step()
        ema.update(gated)
    assert training.decided and not bool(gated.alive.all())
    own, other = dict(gated.named_parameters()), dict(ema.module.named_parameters())
    assert {n: p.shape for n, p in own.items()} == {n: p.shape for n, p in other.items()}
    assert bp.prune(ema.module).eval()(x).shape == (96, 2)
