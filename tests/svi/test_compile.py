"""torch.compile of the network under gates: the same training, compiled anew where units were removed."""

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

import bayesprune as bp

ROWS, BATCH, EVERY = 128, 32, 4


class Counting:
    """A backend of torch.compile that runs what it is given, and counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


class Told(bp.Callback):
    """In which steps something was compiled, and after which one something was removed or decided."""

    def __init__(self, backend: Counting) -> None:
        self.backend, self.before = backend, 0
        self.compiled, self.changed = [], [0]

    def on_step(self, training, info):
        if self.backend.graphs > self.before:
            self.compiled.append(training.steps)
        self.before = self.backend.graphs

    def on_removal(self, training, removed):
        self.changed.append(training.steps)

    def on_decision(self, training):
        self.changed.append(training.steps)


def model() -> tuple[bp.GatedModel, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(ROWS, 5)
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=3.0))
    gated = bp.gate(network, x[:2], prior=prior, likelihood=bp.Categorical(rows=ROWS))
    return gated, (x, (x[:, 0] > x[:, 1]).long())


RECIPE = bp.Recipe(
    warmup=0.0,
    ramp=0.1,
    decide=0.7,
    gates=bp.GateSteps(every=EVERY, learning_rate=1.0),
    shrink=bp.Shrink(every=40),
)


def fitted(gated: bp.GatedModel, rows, callbacks=()) -> bp.FitResult:
    return bp.fit(
        gated, rows, epochs=40, batch_size=BATCH, recipe=RECIPE, progress=False, callbacks=callbacks
    )


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_the_training_is_the_same_and_only_removals_compile_anew(fresh):
    gated, rows = model()
    plain = fitted(gated, rows)
    backend = Counting()
    told = Told(backend)
    gated.network.compile(backend=backend)
    compiled = fitted(gated, rows, [told])
    assert compiled.gated.kept() == plain.gated.kept()
    assert any(kept < 8 for kept in plain.gated.kept().values())
    for a, b in zip(compiled.gated.network.parameters(), plain.gated.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert told.compiled
    assert len(told.changed) > 2
    for step in told.compiled:  # gates stand still in the first step, and move in one of those that follow
        assert any(0 < step - changed <= EVERY for changed in told.changed), (step, told.changed)


def test_what_somebody_has_lent_is_what_runs(fresh):
    gated, (x, y) = model()
    gated.eval()
    plain = gated.network(x, {"0": torch.full((8,), 0.5)})
    backend = Counting()
    gated.network.compile(backend=backend)
    torch.testing.assert_close(gated.network(x, {"0": torch.full((8,), 0.5)}), plain)
    assert backend.graphs == 1
    weights = {f"weight/{name}": torch.zeros_like(w) for name, w in gated.weight_tensors().items()}
    with torch.no_grad(), pyro.poutine.condition(data=weights):
        outputs = poutine.trace(gated.model).get_trace(x, y).nodes["_RETURN"]["value"]
    assert float(outputs.abs().max()) == 0.0  # of weights of zero, and not of its own


def test_options_have_names():
    gated, _ = model()
    with pytest.raises(TypeError, match="by name"):
        gated.network.compile("inductor")
