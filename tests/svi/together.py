"""Two processes that train one model, as `python tests/svi/together.py FOLDER RANK COUNT CASE`."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import bayesprune as bp
from bayesprune.errors import BayespruneError, ClockWarning, EmptyGroupWarning
from bayesprune.svi.estimators.problem import Estimate, gradient_of
from bayesprune.svi.sections import exact_gains
from bayesprune.svi.training_state import TrainingState
from tests.svi.fits import FAST, data, gated_for
from tests.svi.test_moves import gated_for as gated_inputs
from tests.svi.test_moves import rows as rows_of_inputs

ROOT = Path(__file__).parents[2]
STEPS, ROWS = 200, 96
SGD = 0.1


def run(folder, case, count=2, rank=None, timeout=150):
    """Start so many processes of a case, and wait for them; texts of those that failed, and what they saved.

    Args:
        folder: of the processes' files.
        case: name of a function of this file.
        count: processes.
        rank: start this one alone, or all.
    """
    ranks = range(count) if rank is None else [rank]
    for old in folder.glob("meet"):
        old.unlink()
    words = [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.svi.together", str(folder)]
    started = [
        subprocess.Popen([*words, str(r), str(count), case], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for r in ranks
    ]
    until, texts = time.monotonic() + timeout, []
    for process in started:
        try:
            _, text = process.communicate(timeout=max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            _, text = process.communicate()
            text += "\nKILLED"
        texts.append(text if process.returncode else "")
    saved = [torch.load(folder / f"{case}-{r}.pt") for r in ranks if (folder / f"{case}-{r}.pt").exists()]
    return texts, saved


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
    )


def sgd(params):
    return torch.optim.SGD(params, lr=SGD)


def begun(gated=None, steps=STEPS, optimizer=sgd, recipe=None, **settings):
    gated = gated or gated_for(net=network())
    recipe = recipe or bp.Recipe(**FAST)
    return bp.Training(gated, steps=steps, optimizer=optimizer, recipe=recipe, **settings)


def told_noise(training, part):
    """The estimator is told the gates of every row, so that all divisions of a batch see the same.

    Args:
        training: whose gates are told.
        part: (step) → the rows of the whole batch that are seen here.
    """
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(STEPS, ROWS, len(training.gated.alive), dtype=torch.float64, generator=generator)

    def told(problem, want_gates=True):
        living = training.gated.alive
        u = noise[training.steps, part(training.steps)][:, living]
        z = (u < problem.probs).to(problem.probs.dtype).requires_grad_()
        loss = problem.nll(problem.split(z)).mean()
        return Estimate(loss, lambda factor: gradient_of(z, factor).sum(0))

    training.engine.estimator = told


def loop(training, part, steps=STEPS, each=None):
    x, y = data()
    dtype = training.gated.log_odds.dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        for step in range(training.steps, steps):
            rows = part(step)
            training.loss((x[rows].to(dtype), y[rows])).backward()
            if each is not None:
                each(training)
            training.step()
    return training


def all_of(training):
    """Bits of a training."""
    return {
        **{n: v.detach().clone() for n, v in training.gated.state_dict().items()},
        "velocity": training.state.velocity,
        "nll": torch.tensor([epoch.nll for epoch in training.history]),
        "steps": torch.tensor(training.steps),
    }


def unequal(rank, count):
    """A third of the rows, and two thirds; or all, for one."""
    return lambda step: slice(0, ROWS) if count == 1 else (slice(0, 32) if rank == 0 else slice(32, ROWS))


def random_part(rank, count):
    def part(step):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(step))
        return order[:32][rank * 16 : (rank + 1) * 16]

    return part


# ---- cases


def whole(rank, count):
    """Two at unequal shares of a batch, or one at all of it, with the same noise."""
    training = begun(gated_for(net=network(), price=0.5).double())
    part = unequal(rank, count)
    told_noise(training, part)
    return all_of(loop(training, part))


def others_beginning(rank, count):
    """Other weights, other global noise, batch normalisation, and noise of its own."""
    torch.manual_seed(rank)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 2)
    )
    training = begun(gated_for(net=net, price=0.5), optimizer=None)
    noise = []

    def watch(training):
        noise.append(training.engine.generator.get_state())

    torch.manual_seed(100 + rank)
    found = all_of(loop(training, random_part(rank, count), each=watch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClockWarning)
        small = training.finish()
    return {**found, "outputs": small(data()[0]).detach(), "noise": torch.stack(noise).sum(0)}


class Drawn(nn.Module):
    """A prior whose slope is drawn."""

    def forward(self, group):
        return bp.priors.Gates(probs=torch.rand(()).clamp(0.2, 0.8).expand(group.size))


def drawn(rank, count):
    """Processes of other global noise agree on what a prior draws."""
    gated = bp.gate(network(), data()[0][:2], prior=Drawn(), likelihood=bp.Categorical(rows=ROWS))
    training = begun(gated)
    torch.manual_seed(rank)
    return all_of(loop(training, random_part(rank, count), 30))


class Residual(nn.Module):
    """One section beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (
            nn.Linear(a, b) for a, b in ((36, 8), (8, 4), (4, 8), (8, 2))
        )

    def forward(self, x):
        x = self.stem(x.flatten(1))
        return self.head(x + self.outer(self.inner(x).relu()))


def trained_first(rank, count):
    """A section that is not worth its price by the rows of both, though by those of one it is."""
    torch.manual_seed(0)
    recipe = bp.Recipe.trained(frozen=0.1, decide=0.5)
    training = begun(gated_for(net=Residual(), price=0.5), recipe=recipe)
    loop(training, random_part(rank, count), 40)
    training._judge_sections_()
    own = exact_gains(training.gated, training._last, training.gated.alive)
    (mean,) = training.processes.mean([own])
    training.engine.prices = lambda: mean * 1.0001
    training.decide()
    return {**all_of(training), "own": own, "layers": torch.tensor(training.gated.kept()["layers"])}


def other_steps(rank, count):
    """Process 1 ends after five steps."""
    training = begun()
    loop(training, random_part(rank, count), 5 if rank else 9)
    training.finish()


def killed(rank, count):
    """One training to its end; then the same, a state at step 15, and process 1 ends at 20 without a word."""
    part = random_part(rank, count)
    training = begun(gated_for(net=network(), price=0.5), optimizer=None)
    torch.save(all_of(loop(training, part)), Path(sys.argv[1]) / f"killed-{rank}.pt")
    training = loop(begun(gated_for(net=network(), price=0.5), optimizer=None), part, 15)
    state = training.state_dict()
    if rank == 0:
        torch.save({"tensors": state.tensors, "plain": state.plain}, Path(sys.argv[1]) / "state.pt")
    loop(training, part, 20)
    if rank == 1:
        os._exit(1)
    loop(training, part)


def resumed(rank, count, folder=None):
    """What ``killed`` left goes on, in as many processes as there are."""
    kept = torch.load((folder or Path(sys.argv[1])) / "state.pt")
    training = begun(gated_for(net=network(5), price=0.5), optimizer=None)
    assert not kept["plain"]["decided"]  # noise matters still
    training.load_state_dict(TrainingState(kept["tensors"], kept["plain"]))
    return all_of(loop(training, random_part(rank, count)))


def fitted(rank, count, folder=None):
    """A fit of rows in memory, unbroken and broken off; one of a loader; and what is refused."""
    folder = folder or Path(sys.argv[1])
    x, y = data()
    dataset = TensorDataset(x, y)

    class Stopper(bp.Callback):
        def on_epoch(self, training, epoch):
            if epoch.epoch == 4:
                raise InterruptedError

    def fit(train=None, **settings):
        settings = {"epochs": 6, "recipe": bp.Recipe(**FAST, averaging=0.5), "progress": False, **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyGroupWarning)
            return bp.fit(gated_for(net=conv_net(rank)), train or (x, y), **settings)

    if count == 1:
        return fit(batch_size=32, checkpoint=folder / "kept", resume=True)
    unbroken = fit(batch_size=32)
    with contextlib.suppress(InterruptedError):
        fit(batch_size=32, checkpoint=folder / "kept", callbacks=[Stopper()])
    dist.barrier()
    if rank == 0:
        shutil.copytree(folder / "kept", folder / "again")
    resumed = fit(batch_size=32, checkpoint=folder / "again", resume=True)
    sampler = DistributedSampler(dataset, shuffle=True)
    dealt = fit(DataLoader(dataset, batch_size=16, sampler=sampler))
    return {
        **{f"unbroken/{k}": v for k, v in unbroken.gated.state_dict().items()},
        **{f"resumed/{k}": v for k, v in resumed.gated.state_dict().items()},
        **{f"dealt/{k}": v for k, v in dealt.gated.state_dict().items()},
        "same loader": told(lambda: fit(DataLoader(dataset, batch_size=16))),
        "too small": told(lambda: fit(batch_size=1)),
        "other data": told(lambda: fit((x + rank, y))),
        "not resumed": told(lambda: fit(batch_size=32, checkpoint=folder / "kept")),
    }


def moved(rank, count):
    """Moves of units by the rows of all: in memory, dealt by a loader, under a budget, in one's own loop."""
    found = {}
    for name, seed in (("memory", 0), ("dealt", 0), ("budget", 0), ("own loop", 0)):
        x, y = rows_of_inputs(seed, correlation=0.0)
        prior = bp.Budget(params=0.34) if name == "budget" else None
        gated = gated_inputs(x, seed, prior=prior)
        dataset = TensorDataset(x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "own loop":
                training = bp.Training(gated, steps=100, rows=(x, y))
                for step in range(100):
                    part = torch.arange(step % 4 * 50, step % 4 * 50 + 50).tensor_split(count)[rank]
                    training.loss((x[part], y[part])).backward()
                    training.step()
                result = training.result()
            else:
                sampler = DistributedSampler(dataset) if name == "dealt" and count > 1 else None
                size = 50 // count if name == "dealt" else 50
                train = DataLoader(dataset, size, sampler=sampler) if name == "dealt" else (x, y)
                result = bp.fit(
                    gated, train, epochs=25, seed=seed, progress=False,
                    batch_size=None if name == "dealt" else size,
                )  # fmt: skip
        found |= {f"{name}/{k}": v.nan_to_num() for k, v in result.gated.state_dict().items()}
        found[f"{name}/nats"] = torch.tensor([move.nats for move in result.decision.moves]).double()
        found[f"{name}/rows"] = torch.tensor(result.decision.rows)
    return found


def conv_net(seed):
    """With dropout and batch normalisation."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(8, 2),
    )  # fmt: skip


def told(make):
    """The message of what is refused; empty where nothing is."""
    try:
        make()
    except BayespruneError as problem:
        return f"{type(problem).__name__}: {problem}"
    return ""


def refusals(rank, count):
    """Each process is told another thing: all of them end by name, and meet again for the next."""
    one, other = (1, 2) if rank == 0 else (2, 1)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(36, 7 + rank), nn.Tanh(), nn.Linear(7 + rank, 2))

    def faster():
        training = begun()
        loop(training, random_part(rank, count), 2)
        training.optimizer.param_groups[0]["lr"] = SGD * one
        loop(training, random_part(rank, count))

    def clipped_early():
        training = begun()
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(training.loss((data()[0][:8], data()[1][:8]))).backward()
        scaler.unscale_(training.optimizer)
        training.step(scaler)

    def scaled_by_others():
        training = begun()
        (1024 * training.loss((data()[0][:8], data()[1][:8]))).backward()
        training.optimizer.step()

    def averaged_early():
        training = begun()
        for _ in range(2):
            (training.loss((data()[0][:8], data()[1][:8])) / 2).backward()
            training.reduce()

    def sharded():
        gated = gated_for(net=network())
        begun(fully_shard(gated, mesh=init_device_mesh("cpu", (2,))))

    own = dist.new_group([rank], use_local_synchronization=True)
    limit = bp.Budget(latency_ms=1.0, batch=8)
    return {
        "steps": told(lambda: begun(steps=STEPS * one)),
        "recipe": told(lambda: begun(recipe=bp.Recipe(**{**FAST, "decide": 0.3 * other}))),
        "rows": told(lambda: begun(gated_for(net=network(), rows=96 * one))),
        "price": told(lambda: begun(gated_for(net=network(), price=float(one)))),
        "model": told(lambda: begun(gated_for(net=wider))),
        "optimizer": told(lambda: begun(optimizer=sgd if rank else torch.optim.Adam)),
        "seed": told(lambda: begun(seed=rank)),
        "weights": told(faster),
        "clipped": told(clipped_early),
        "scaled by others": told(scaled_by_others),
        "averaged early": told(averaged_early),
        "DDP": told(lambda: begun(DistributedDataParallel(gated_for(net=network())))),
        "FSDP2": told(sharded),
        "measured": told(lambda: begun(bp.gate(
            network(), data()[0][:2], prior=limit, likelihood=bp.Categorical(rows=96)
        ))),
        "alone": told(lambda: begun(seed=rank, processes=own)),
        "no group": told(lambda: begun(processes=3)),
    }  # fmt: skip


if __name__ == "__main__":
    folder, rank, count, case = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    found = globals()[case](rank, count)
    torch.save(found or {}, folder / f"{case}-{rank}.pt")
    if count > 1:
        dist.destroy_process_group()
