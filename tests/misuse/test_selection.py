"""What rules, their subjects, and pruning by them are called wrongly with."""

import pytest
import torch

import bayesprune as bp
from bayesprune import errors
from bayesprune import selection as s
from tests.misuse.small import NAN, ROWS, X, Y, fitted, gate, net

LIKELIHOOD = bp.Categorical(rows=ROWS)
MASK = {"0": torch.tensor([True, True, True, False, False, True])}


def subject():
    return s.Subject.of(net(), X)


REFUSED = {
    "prune None": (
        lambda: s.prune(None, {}),
        errors.SelectionError,
        ("Cannot prune a NoneType: give", "or a fit's result"),
    ),
    "prune keep None": (
        lambda: s.prune(net(), None, X),
        errors.SelectionError,
        ("keep=None must be masks, group", "as bp.selection.select(rule, subject) gives"),
    ),
    "prune keep list": (
        lambda: s.prune(net(), [1], X),
        errors.SelectionError,
        ("keep=[1] must be masks, group", "as bp.selection.select(rule, subject) gives"),
    ),
    "prune keep str group": (
        lambda: s.prune(net(), {"zz": torch.ones(6, dtype=torch.bool)}, X),
        errors.SelectionError,
        ("These masks cannot be used:", "'zz' is no group (there are '0')"),
    ),
    "prune keep size": (
        lambda: s.prune(net(), {"0": torch.ones(3, dtype=torch.bool)}, X),
        errors.SelectionError,
        ("These masks cannot be used:", "be (6,) of torch.bool"),
    ),
    "prune keep float": (
        lambda: s.prune(net(), {"0": torch.ones(6)}, X),
        errors.SelectionError,
        ("These masks cannot be used:", "be (6,) of torch.bool"),
    ),
    "prune keep list vals": (
        lambda: s.prune(net(), {"0": [True] * 6}, X),
        errors.SelectionError,
        ("These masks cannot be used:", "be (6,) of torch.bool"),
    ),
    "prune none left": (
        lambda: s.prune(net(), {"0": torch.zeros(6, dtype=torch.bool)}, X),
        errors.SelectionError,
        ("These masks would leave '0'", "one that reads it"),
    ),
    "prune no example": (
        lambda: s.prune(net(), {}),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "prune ex width": (
        lambda: s.prune(net(), {}, torch.zeros(2, 5)),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "prune ex empty": (
        lambda: s.prune(net(), {}, X[:0]),
        errors.DataError,
        ("example: no rows, shape (0,", "one, such as x[:1]"),
    ),
    "prune ex double": (
        lambda: s.prune(net(), {}, X.double()),
        errors.UnsupportedNetworkError,
        ("The network does not accept", "will be trained on"),
    ),
    "prune fuse": (
        lambda: s.prune(net(), {}, X, fuse=5),
        errors.SelectionError,
        ("fuse=5 must be a bp.selection.Fuse(...), or left out",),
    ),
    "prune exclude": (
        lambda: s.prune(net(), {}, X, exclude=5),
        errors.SettingsError,
        ("exclude=5 must be names or", "such as ['input', 'fc*']"),
    ),
    "prune exclude zz": (
        lambda: s.prune(net(), {}, X, exclude=["zz"]),
        errors.SettingsError,
        ("exclude names 'zz', and no group is called so. There are '0'.",),
    ),
    "select rule None": (
        lambda: s.select(None, subject()),
        errors.SelectionError,
        ("rule=None is none: give one such as bp.selection.Magnitude()",),
    ),
    "select rule str": (
        lambda: s.select("magnitude", subject(), share=0.5),
        errors.SelectionError,
        ("rule='magnitude' is none: give one such as bp.selection.Magnitude()",),
    ),
    "select subject net": (
        lambda: s.select(s.Magnitude(), net(), share=0.5),
        errors.SelectionError,
        ("select looks at a Subject", "make one, bp.selection.Subject.of(network, example)"),
    ),
    "select share 2": (
        lambda: s.select(s.Magnitude(), subject(), share=2),
        errors.SelectionError,
        ("share=2: a share of the", "parameters, in (0, 1]"),
    ),
    "select share str": (
        lambda: s.select(s.Magnitude(), subject(), share="a"),
        errors.SelectionError,
        ("share='a': a share of the", "parameters, in (0, 1]"),
    ),
    "select params 0": (
        lambda: s.select(s.Magnitude(), subject(), parameters=0),
        errors.SelectionError,
        ("parameters=0: a whole number, at least 1",),
    ),
    "select both": (
        lambda: s.select(s.Magnitude(), subject(), share=0.5, parameters=5),
        errors.SelectionError,
        ("share=0.5 and parameters=5: give one of them",),
    ),
    "select scope": (
        lambda: s.select(s.Magnitude(), subject(), share=0.5, scope="x"),
        errors.SelectionError,
        ("scope='x' is neither 'global' nor 'layer'",),
    ),
    "select seed": (
        lambda: s.select(s.RandomNodes(), subject(), share=0.5, seed="a"),
        errors.SelectionError,
        ("seed='a' must be a whole", "in 0 … 4294967295"),
    ),
    "select no size": (
        lambda: s.select(s.Magnitude(), subject()),
        errors.SelectionError,
        ("Magnitude only has an order:", "with share= or parameters="),
    ),
    "select class": (
        lambda: s.select(s.Magnitude, subject(), share=0.5),
        errors.SelectionError,
        (
            "rule=<class 'bayesprune.selection.magnitude.Magnitude'> is none: call",
            "one such as bp.selection.Magnitude()",
        ),
    ),
    "path fractions": (
        lambda: list(s.path(net(), X, s.Magnitude(), 5)),
        errors.SelectionError,
        ("fractions=5 must be shares in", "such as [0.5, 0.1]"),
    ),
    "path frac str": (
        lambda: list(s.path(net(), X, s.Magnitude(), ["a"])),
        errors.SelectionError,
        ("share='a': a share of the", "parameters, in (0, 1]"),
    ),
    "path rule": (
        lambda: list(s.path(net(), X, "x", [0.5])),
        errors.SelectionError,
        ("rule='x' is none: give one such as bp.selection.Magnitude()",),
    ),
    "path net": (
        lambda: list(s.path(None, X, s.Magnitude(), [0.5])),
        errors.SelectionError,
        ("Cannot prune a NoneType: give", "or a fit's result"),
    ),
    "path ex": (
        lambda: list(s.path(net(), None, s.Magnitude(), [0.5])),
        errors.DataError,
        ("example: NoneType. Give a batch", "each argument of forward"),
    ),
    "taylor width": (
        lambda: s.select(s.Taylor(torch.zeros(5, 5), Y[:5], LIKELIHOOD), subject(), share=0.5),
        errors.DataError,
        ("Taylor: the inputs do not", "or such an example"),
    ),
    "taylor double": (
        lambda: s.select(s.Taylor(X.double(), Y, LIKELIHOOD), subject(), share=0.5),
        errors.DataError,
        ("Taylor: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "taylor y": (
        lambda: s.select(s.Taylor(X, Y + 5, LIKELIHOOD), subject(), share=0.5),
        errors.LikelihoodError,
        ("Taylor: Categorical: targets run from", "widen the last layer"),
    ),
    "taylor nan": (
        lambda: s.select(s.Taylor(NAN, Y, LIKELIHOOD), subject(), share=0.5),
        errors.DataError,
        ("Taylor: the inputs hold NaN", "or drop such rows"),
    ),
    "taylor len": (
        lambda: s.select(s.Taylor(X, Y[:3], LIKELIHOOD), subject(), share=0.5),
        errors.DataError,
        ("Taylor: 24 rows of inputs", "every row needs both"),
    ),
    "taylor None": (
        lambda: s.select(s.Taylor(None, None, LIKELIHOOD), subject(), share=0.5),
        errors.DataError,
        ("Taylor: the inputs are NoneType:", "array, such as torch.tensor(value)"),
    ),
    "taylor like": (
        lambda: s.select(s.Taylor(X, Y, "x"), subject(), share=0.5),
        errors.SelectionError,
        ("Taylor needs to know how", "explain targets: give likelihood=bp.Categorical(rows=len(x_train))"),
    ),
    "taylor int": (
        lambda: s.select(s.Taylor(X.long(), Y, LIKELIHOOD), subject(), share=0.5),
        errors.DataError,
        ("Taylor: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "dpp rows width": (
        lambda: s.select(s.DPP(rows=torch.zeros(9, 5)), subject(), share=0.5),
        errors.DataError,
        ("DPP: the inputs do not", "or such an example"),
    ),
    "dpp nan": (
        lambda: s.select(s.DPP(rows=NAN), subject(), share=0.5),
        errors.DataError,
        ("DPP: the inputs hold NaN", "or drop such rows"),
    ),
    "dpp str": (
        lambda: s.select(s.DPP(rows="a"), subject(), share=0.5),
        errors.DataError,
        ("DPP: str holds no rows.", "Dataset, or a DataLoader"),
    ),
    "dpp double": (
        lambda: s.select(s.DPP(rows=X.double()), subject(), share=0.5),
        errors.DataError,
        ("DPP: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "fuse width": (
        lambda: s.prune(net(), MASK, X, fuse=s.Fuse(rows=torch.zeros(30, 5))),
        errors.DataError,
        ("Fuse: the inputs do not", "or such an example"),
    ),
    "fuse nan": (
        lambda: s.prune(net(), MASK, X, fuse=s.Fuse(rows=NAN)),
        errors.DataError,
        ("Fuse: the inputs hold NaN", "or drop such rows"),
    ),
    "incl net": (
        lambda: s.select(s.InclusionProb(), subject(), share=0.5),
        errors.SelectionError,
        ("This rule reads a posterior,", "Outgoing, Taylor, DPP, RandomNodes)"),
    ),
    "vertex width": (
        lambda: s.select(s.FlatteningVertex(torch.zeros(5, 5), Y[:5]), s.Subject.of(gate())),
        errors.DataError,
        ("FlatteningVertex: the inputs do not", "or such an example"),
    ),
    "vertex y": (
        lambda: s.select(s.FlatteningVertex(X, Y + 5), s.Subject.of(gate())),
        errors.LikelihoodError,
        ("FlatteningVertex: Categorical: targets run from", "widen the last layer"),
    ),
    "vertex nan": (
        lambda: s.select(s.FlatteningVertex(NAN, Y), s.Subject.of(gate())),
        errors.DataError,
        ("FlatteningVertex: the inputs hold NaN", "or drop such rows"),
    ),
    "vertex double": (
        lambda: s.select(s.FlatteningVertex(X.double(), Y), s.Subject.of(gate())),
        errors.DataError,
        ("FlatteningVertex: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "bf width": (
        lambda: s.select(s.BayesFactor(torch.zeros(5, 5), Y[:5]), s.Subject.of(gate())),
        errors.DataError,
        ("BayesFactor: the inputs do not", "or such an example"),
    ),
    "bf y": (
        lambda: s.select(s.BayesFactor(X, Y + 5), s.Subject.of(gate())),
        errors.LikelihoodError,
        ("BayesFactor: Categorical: targets run from", "widen the last layer"),
    ),
    "red": (
        lambda: s.select(s.ModelReduction(), s.Subject.of(gate())),
        errors.SelectionError,
        (
            "ModelReduction needs a Gaussian posterior",
            'points: fit with weights=bp.priors.NormalWeights(posterior="normal")',
        ),
    ),
}

WORKS = {
    "prune ex np": lambda: s.prune(net(), {}, X.numpy()),
    "prune result": lambda: s.prune(fitted(), {}),
    "taylor": lambda: s.select(s.Taylor(X, Y, LIKELIHOOD), subject(), share=0.5),
    "taylor np": lambda: s.select(s.Taylor(X.numpy(), Y.numpy(), LIKELIHOOD), subject(), share=0.5),
    "dpp": lambda: s.select(s.DPP(), subject(), share=0.5),
    "dpp rows np": lambda: s.select(s.DPP(rows=X.numpy()), subject(), share=0.5),
    "fuse ok": lambda: s.prune(net(), MASK, X, fuse=s.Fuse(rows=X)),
    "incl": lambda: s.select(s.InclusionProb(), s.Subject.of(fitted()), share=0.9),
    "vertex": lambda: s.select(s.FlatteningVertex(X, Y), s.Subject.of(gate())),
    "bf": lambda: s.select(s.BayesFactor(X, Y), s.Subject.of(gate())),
    "bf np": lambda: s.select(s.BayesFactor(X.numpy(), Y.numpy()), s.Subject.of(gate())),
    "out": lambda: s.select(s.Outgoing(), subject(), share=0.5),
    "out width": lambda: s.select(s.Outgoing(rows=torch.zeros(9, 5)), subject(), share=0.5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_call_ends_in_place_value_and_remedy(name):
    call, error, told = REFUSED[name]
    with pytest.raises(error) as caught:
        call()
    message = " ".join(str(caught.value).split())
    for part in told:
        assert part in message


@pytest.mark.filterwarnings("ignore::bayesprune.errors.TiesWarning")
@pytest.mark.parametrize("name", WORKS)
def test_an_unusual_call_works(name):
    WORKS[name]()
