"""What gate, its priors and its likelihoods are called wrongly with."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import errors
from tests.misuse.small import (
    ROWS,
    Of,
    Residual,
    Two,
    X,
    Y,
    fit,
    fitted,
    gate,
    net,
    prior,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:Complex modules are a new feature")

REFUSED = {
    "gate example None": (
        lambda folder: gate(example=None),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "gate example list": (
        lambda folder: gate(example=X.tolist()),
        errors.DataError,
        ("example: list. Give a batch", "each argument of forward"),
    ),
    "gate example of one dimension": (
        lambda folder: gate(example=torch.zeros(4)),
        errors.DataError,
        ("example: shape (4,), and no", "x.unsqueeze(0) is one row"),
    ),
    "gate example 0 rows": (
        lambda folder: gate(example=X[:0]),
        errors.DataError,
        ("example: no rows, shape (0,", "one, such as x[:1]"),
    ),
    "gate example int": (
        lambda folder: gate(example=X.long()),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "gate example double": (
        lambda folder: gate(example=X.double()),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "gate example width": (
        lambda folder: gate(example=torch.zeros(2, 5)),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "gate example nan": (
        lambda folder: gate(example=torch.tensor([[0.0, 1.0, 2.0, float("nan")]])),
        errors.DataError,
        ("example: the inputs hold NaN", "first in row 0", "clean or drop"),
    ),
    "gate example of no dimension": (
        lambda folder: gate(example=torch.tensor(1.0)),
        errors.DataError,
        ("example: the inputs are a", "of rows: (rows, ...)"),
    ),
    "gate example sparse": (
        lambda folder: gate(example=X.to_sparse()),
        errors.DataError,
        ("example: the inputs are a", "dense: give them .to_dense()"),
    ),
    "gate example meta": (
        lambda folder: gate(example=X.to("meta")),
        errors.DataError,
        ("example: the inputs are on", "load them on 'cpu'"),
    ),
    "gate example pair": (
        lambda folder: gate(example=(X, Y)),
        errors.UnsupportedNetworkError,
        ("The network does not accept rows of shape (1, 4) and (1,)", "ones it will be trained on"),
    ),
    "gate example dict": (
        lambda folder: gate(example={"x": X}),
        errors.UnsupportedNetworkError,
        ("The network does not accept rows of shape (1, 4): Sequential.forward() got an unexpected",),
    ),
    "gate example str": (
        lambda folder: gate(example="x"),
        errors.DataError,
        ("example: str. Give a batch", "each argument of forward"),
    ),
    "gate graph example of one dimension": (
        lambda folder: gate(Residual(), torch.zeros(4)),
        errors.DataError,
        ("example: shape (4,), and no", "x.unsqueeze(0) is one row"),
    ),
    "gate graph example 0 rows": (
        lambda folder: gate(Residual(), X[:0]),
        errors.DataError,
        ("example: no rows, shape (0,", "one, such as x[:1]"),
    ),
    "gate graph double": (
        lambda folder: gate(Residual(), X.double()),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "gate graph None": (
        lambda folder: gate(Residual(), None),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "gate graph list": (
        lambda folder: gate(Residual(), X.tolist()),
        errors.DataError,
        ("example: list. Give a batch", "each argument of forward"),
    ),
    "gate graph meta": (
        lambda folder: gate(Residual(), X.to("meta")),
        errors.DataError,
        ("example: the inputs are on", "load them on 'cpu'"),
    ),
    "gate network None": (
        lambda folder: bp.gate(None, X, prior=prior(), likelihood=bp.Categorical(rows=ROWS)),
        errors.UnsupportedNetworkError,
        ("The network is a NoneType:", "torch.nn.Module with its parameters"),
    ),
    "gate network fn": (
        lambda folder: gate(lambda x: x),
        errors.UnsupportedNetworkError,
        ("The network is a function:", "torch.nn.Module with its parameters"),
    ),
    "gate network str": (
        lambda folder: gate("net"),
        errors.UnsupportedNetworkError,
        ("The network is a str:", "torch.nn.Module with its parameters"),
    ),
    "gate half": (
        lambda folder: fit(gate(net().half(), X.half()), (X.half(), Y)),
        errors.UnsupportedNetworkError,
        ("Parameter '0.weight' has type torch.float16,", ".half() what bp.prune returns"),
    ),
    "gate complex": (
        lambda folder: fit(gate(net().to(torch.complex64), X.to(torch.complex64))),
        errors.UnsupportedNetworkError,
        ("Parameter '0.weight' has type torch.complex64,", "parts as channels (torch.view_as_real)"),
    ),
    "gate graph half": (
        lambda folder: fit(gate(Residual().half(), X.half()), (X.half(), Y)),
        errors.UnsupportedNetworkError,
        ("Parameter 'a.weight' has type torch.float16,", ".half() what bp.prune returns"),
    ),
    "gate graph complex": (
        lambda folder: gate(Residual().to(torch.complex64), X.to(torch.complex64)),
        errors.UnsupportedNetworkError,
        ("Parameter 'a.weight' has type torch.complex64,", "parts as channels (torch.view_as_real)"),
    ),
    "gate script": (
        lambda folder: gate(torch.jit.script(net())),
        errors.UnsupportedNetworkError,
        ("The network is TorchScript (RecursiveScriptModule),", "it was made from"),
    ),
    "gate traced": (
        lambda folder: gate(torch.jit.trace(net(), X)),
        errors.UnsupportedNetworkError,
        ("The network is TorchScript (TopLevelTracedModule),", "it was made from"),
    ),
    "gate tuple": (
        lambda folder: fit(gate(Of(lambda n, x: (n(x), x)))),
        errors.LikelihoodError,
        ("Categorical: it reads one tensor, and the network returns a tuple with 0, 1", "read, output=0"),
    ),
    "gate None out": (
        lambda folder: gate(Of(lambda n, x: None)),
        errors.UnsupportedNetworkError,
        ("Of returns no tensor, so", "forward return its outputs"),
    ),
    "gate float out": (
        lambda folder: gate(Of(lambda n, x: float(n(x).sum()))),
        errors.UnsupportedNetworkError,
        ("Of returns no tensor, so", "forward return its outputs"),
    ),
    "gate scalar out": (
        lambda folder: fit(gate(Of(lambda n, x: n(x).sum()))),
        errors.UnsupportedNetworkError,
        ("Of returns a tensor of", "let forward return it with the rows first"),
    ),
    "gate autocast in": (
        lambda folder: fit(gate(Of(lambda n, x: torch.autocast("cpu", torch.bfloat16)(n)(x)))),
        errors.UnsupportedNetworkError,
        ("The forward of Of switches", "the memory give network.bfloat16()"),
    ),
    "gate autocast in a part": (
        lambda folder: fit(gate(Of(lambda n, x: torch.autocast("cpu", torch.bfloat16)(n)(x).float() + 1.0))),
        errors.UnsupportedNetworkError,
        ("The forward of Of switches", "the memory give network.bfloat16()"),
    ),
    "gate meta network": (
        lambda folder: gate(net().to("meta")),
        errors.UnsupportedNetworkError,
        ("Parameter '0.weight' is on device", "load the weights first"),
    ),
    "gate empty": (
        lambda folder: gate(nn.Sequential()),
        errors.NothingToGateError,
        ("The network has nothing to", "no layer of it reads what another one makes"),
    ),
    "gate one": (
        lambda folder: gate(nn.Linear(4, 2)),
        errors.NothingToGateError,
        ("The network has nothing to", "what the network returns"),
    ),
    "gate identity": (
        lambda folder: gate(nn.Identity()),
        errors.NothingToGateError,
        ("The network has nothing to", "no layer of it reads what another one makes"),
    ),
    "gate compile": (
        lambda folder: gate(torch.compile(net())),
        errors.UnsupportedNetworkError,
        ("wrapped in a OptimizedModule", "network._orig_mod"),
    ),
    "gate DataParallel": (
        lambda folder: gate(nn.DataParallel(net())),
        errors.UnsupportedNetworkError,
        ("The network is wrapped in", "wrap what comes out"),
    ),
    "gate gated": (
        lambda folder: gate(gate()),
        errors.UnsupportedNetworkError,
        ("The network is a GatedModel,", "model that is bp.prune(gated)"),
    ),
    "gate fitresult": (
        lambda folder: gate(fitted()),
        errors.UnsupportedNetworkError,
        ("The network is a FitResult:", "result that is bp.prune(result)"),
    ),
    "gate two": (
        lambda folder: gate(Two(), X),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "gate prior None": (
        lambda folder: gate(prior=None),
        errors.PriorError,
        (
            "prior=None is no prior: give",
            "gates, such as bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))",
        ),
    ),
    "gate prior int": (
        lambda folder: gate(prior=5),
        errors.PriorError,
        (
            "prior=5 is no prior: give",
            "gates, such as bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))",
        ),
    ),
    "gate prior class": (
        lambda folder: gate(prior=bp.priors.BernoulliGates),
        errors.PriorError,
        (
            "prior=<class 'bayesprune.priors.priors.BernoulliGates'> is no prior:",
            "gates, such as bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))",
        ),
    ),
    "gate prior returns None": (
        lambda folder: gate(prior=lambda g: None),
        errors.PriorError,
        (
            "The prior returned NoneType (shape",
            "{0,1}^4, such as bp.priors.Gates(probs=rate.expand(group.size))",
        ),
    ),
    "gate prior raises": (
        lambda folder: gate(prior=lambda g: 1 / 0),
        errors.PriorError,
        ("The prior fails for group", "distribution over its gates"),
    ),
    "gate likelihood None": (
        lambda folder: gate(likelihood=None),
        errors.LikelihoodError,
        ("likelihood=None is not a likelihood:", "instance such as bp.Categorical(rows=60_000)"),
    ),
    "gate likelihood class": (
        lambda folder: gate(likelihood=bp.Categorical),
        errors.LikelihoodError,
        (
            "likelihood=<class 'bayesprune.likelihoods.categorical.Categorical'> is not a",
            "instance such as bp.Categorical(rows=60_000)",
        ),
    ),
    "gate weights str": (
        lambda folder: gate(weights="normal"),
        errors.PriorError,
        ("weights='normal' is no prior of weights: give bp.priors.NormalWeights(...)",),
    ),
    "gate layers x chain": (
        lambda folder: gate(layers="x"),
        errors.SettingsError,
        ("layers='x' is none of 'sections', 'blocks', 'none'",),
    ),
    "gate layers x graph": (
        lambda folder: gate(Residual(), layers="x"),
        errors.SettingsError,
        ("layers='x' is none of 'sections', 'blocks', 'none'",),
    ),
    "gate layers None": (
        lambda folder: gate(layers=None),
        errors.SettingsError,
        ("layers=None is none of 'sections', 'blocks', 'none'",),
    ),
    "gate exclude unknown": (
        lambda folder: gate(exclude=["zz"]),
        errors.SettingsError,
        ("exclude names 'zz', and no group is called so.", "'input'"),
    ),
    "gate exclude int": (
        lambda folder: gate(exclude=5),
        errors.SettingsError,
        ("exclude=5 must be names or", "such as ['input', 'fc*']"),
    ),
    "gate exclude [5]": (
        lambda folder: gate(exclude=[5]),
        errors.SettingsError,
        ("exclude=[5] must be names or", "such as ['input', 'fc*']"),
    ),
    "gate exclude None": (
        lambda folder: gate(exclude=None),
        errors.SettingsError,
        ("exclude=None must be names or", "such as ['input', 'fc*']"),
    ),
    "gate initial_inclusion 2": (
        lambda folder: gate(initial_inclusion=2.0),
        errors.SettingsError,
        ("initial_inclusion of group 'input' is", "between 0 and 1"),
    ),
    "gate initial_inclusion str": (
        lambda folder: gate(initial_inclusion="a"),
        errors.SettingsError,
        ("initial_inclusion of group 'input' is", "must be a number"),
    ),
    "gate initial_inclusion None": (
        lambda folder: gate(initial_inclusion=None),
        errors.SettingsError,
        ("initial_inclusion of group 'input' is", "must be a number"),
    ),
    "gate initial_inclusion dict": (
        lambda folder: gate(initial_inclusion={"zz": 0.5}),
        errors.SettingsError,
        ("initial_inclusion names 'zz', and no", "There are 'input', '0'"),
    ),
    "gate noise -1": (
        lambda folder: gate(unit_noise=-1),
        errors.SettingsError,
        ("unit_noise of group 'input' is", "be 0 or more"),
    ),
    "gate noise str": (
        lambda folder: gate(unit_noise="a"),
        errors.SettingsError,
        ("unit_noise of group 'input' is", "must be a number"),
    ),
    "gate noise nan": (
        lambda folder: gate(unit_noise=float("nan")),
        errors.SettingsError,
        ("unit_noise of group 'input' is", "be 0 or more"),
    ),
    "likelihood rows 0": (
        lambda folder: bp.Categorical(rows=0),
        errors.LikelihoodError,
        ("Categorical needs rows= as a", "not of a batch"),
    ),
    "likelihood rows None": (
        lambda folder: bp.Categorical(rows=None),
        errors.LikelihoodError,
        ("Categorical needs rows= as a", "not of a batch"),
    ),
    "likelihood own": (
        lambda folder: bp.Own(rows=3, distribution=3),
        errors.LikelihoodError,
        ("Own needs a function from", "it, distribution=lambda outputs: "),
    ),
    "with_prior None": (
        lambda folder: gate().with_prior(None),
        errors.PriorError,
        ("prior=None is no prior", "BernoulliGates"),
    ),
    "price str": (
        lambda folder: bp.priors.Flattening(price="a"),
        errors.PriorError,
        ("A price is a positive", "all of its units"),
    ),
    "price neg": (
        lambda folder: bp.priors.Flattening(price=-1),
        errors.PriorError,
        ("A price is a positive", "all of its units"),
    ),
    "budget str": (
        lambda folder: bp.Budget(macs="a"),
        errors.PriorError,
        (
            "A Budget is a share",
            "example Budget(macs=0.1), Budget(params=0.05), or Budget(latency_ms=2.0",
        ),
    ),
    "budget none": (
        lambda folder: bp.Budget(),
        errors.PriorError,
        (
            "A Budget is a share",
            "example Budget(macs=0.1), Budget(params=0.05), or Budget(latency_ms=2.0",
        ),
    ),
    "budget 2": (
        lambda folder: bp.Budget(macs=2.0),
        errors.PriorError,
        (
            "A Budget is a share",
            "example Budget(macs=0.1), Budget(params=0.05), or Budget(latency_ms=2.0",
        ),
    ),
}

WORKS = {
    "gate example numpy": lambda folder: gate(example=X.numpy()),
    "gate graph example numpy": lambda folder: gate(Residual(), X.numpy()),
    "gate example tuple": lambda folder: gate(Two(), (X, X)),
    "gate dict": lambda folder: fit(gate(Of(lambda n, x: {"logits": n(x)}))),
    "gate list": lambda folder: fit(gate(Of(lambda n, x: [n(x)]))),
    "gate bf16": lambda folder: fit(gate(net().bfloat16(), X.bfloat16()), (X.bfloat16(), Y)),
    "gate double": lambda folder: fit(gate(net().double(), X.double()), (X.double(), Y)),
    "gate frozen": lambda folder: fit(gate(net().requires_grad_(False))),
    "gate graph frozen": lambda folder: fit(gate(Residual().requires_grad_(False))),
    "gate noise": lambda folder: fit(gate(Of(lambda n, x: n(x + 0.1 * torch.randn_like(x))))),
    "gate noise2": lambda folder: fit(gate(Of(lambda n, x: n(x) + torch.randn(len(x), 2)))),
    "gate lazy": lambda folder: gate(nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(2))),
    "gate exclude str": lambda folder: gate(exclude="0"),
    "gate outputs": lambda folder: gate(likelihood=bp.Bernoulli(rows=ROWS)),
    "Price none": lambda folder: bp.Price(),
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
