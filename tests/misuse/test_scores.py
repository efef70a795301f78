"""What evaluate, evidence, diagnose, posteriors and certify are called wrongly with."""

import pytest
import torch

import bayesprune as bp
from bayesprune import errors
from tests.misuse.small import (
    NAN,
    ROWS,
    Of,
    X,
    Y,
    fitted,
    gate,
    loader,
    net,
    pruned,
)

REFUSED = {
    "evaluate width": (
        lambda folder: bp.evaluate(pruned(), (torch.zeros(3, 5), Y[:3]), bp.Categorical(rows=3)),
        errors.DataError,
        ("rows: the network does not", "it was made for"),
    ),
    "evaluate empty": (
        lambda folder: bp.evaluate(pruned(), (X[:0], Y[:0]), bp.Categorical(rows=3)),
        errors.DataError,
        ("rows: no rows. Give at least one",),
    ),
    "evaluate unequal lengths": (
        lambda folder: bp.evaluate(pruned(), (X, Y[:3]), bp.Categorical(rows=3)),
        errors.DataError,
        ("rows: 24 rows of inputs", "every row needs both"),
    ),
    "evaluate nan": (
        lambda folder: bp.evaluate(pruned(), (NAN, Y), bp.Categorical(rows=3)),
        errors.DataError,
        ("rows: the inputs hold NaN", "or drop such rows"),
    ),
    "evaluate g width": (
        lambda folder: bp.evaluate(gate(), (torch.zeros(3, 5), Y[:3])),
        errors.DataError,
        ("rows: the inputs do not", "or such an example"),
    ),
    "evaluate g empty": (
        lambda folder: bp.evaluate(gate(), (X[:0], Y[:0])),
        errors.DataError,
        ("rows: no rows. Give at least one",),
    ),
    "evaluate double": (
        lambda folder: bp.evaluate(pruned(), (X.double(), Y), bp.Categorical(rows=3)),
        errors.DataError,
        ("rows: the network does not", "it was made for"),
    ),
    "evaluate without likelihood": (
        lambda folder: bp.evaluate(pruned(), (X, Y)),
        errors.LikelihoodError,
        ("evaluate(network, rows, likelihood): a plain", "it, evaluate(small, rows, result.likelihood)"),
    ),
    "evaluate likelihood str": (
        lambda folder: bp.evaluate(pruned(), (X, Y), "categorical"),
        errors.LikelihoodError,
        ("evaluate(network, rows, likelihood): a plain", "it, evaluate(small, rows, result.likelihood)"),
    ),
    "evaluate None": (
        lambda folder: bp.evaluate(None, (X, Y)),
        errors.UnsupportedNetworkError,
        ("evaluate takes a fit's result,", "and got a NoneType"),
    ),
    "evaluate rows None": (
        lambda folder: bp.evaluate(gate(), None),
        errors.DataError,
        ("rows: NoneType holds no rows.", "Dataset, or a DataLoader"),
    ),
    "evaluate bs0": (
        lambda folder: bp.evaluate(gate(), (X, Y), batch_size=0),
        errors.SettingsError,
        ("batch_size=0 must be a whole number, at least 1",),
    ),
    "evaluate batch_size str": (
        lambda folder: bp.evaluate(gate(), (X, Y), batch_size="a"),
        errors.SettingsError,
        ("batch_size='a' must be a whole number, at least 1",),
    ),
    "evaluate targets": (
        lambda folder: bp.evaluate(gate(), (X, Y + 5)),
        errors.LikelihoodError,
        ("rows: Categorical: targets run from", "widen the last layer"),
    ),
    "evaluate tuple network": (
        lambda folder: bp.evaluate(Of(lambda n, x: (n(x), x)), (X, Y), bp.Categorical(rows=3)),
        errors.LikelihoodError,
        ("Categorical: it reads one tensor, and the network returns a tuple with 0, 1", "read, output=0"),
    ),
    "evidence width": (
        lambda folder: bp.evidence(fitted(), (torch.zeros(ROWS, 5), Y), progress=False),
        errors.DataError,
        ("rows: the inputs do not", "or such an example"),
    ),
    "evidence double": (
        lambda folder: bp.evidence(fitted(), (X.double(), Y), progress=False),
        errors.DataError,
        ("rows: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "evidence nan": (
        lambda folder: bp.evidence(fitted(), (NAN, Y), progress=False),
        errors.DataError,
        ("rows: the inputs hold NaN", "or drop such rows"),
    ),
    "evidence None": (
        lambda folder: bp.evidence(fitted(), None, progress=False),
        errors.DataError,
        ("rows: NoneType holds no rows.", "Dataset, or a DataLoader"),
    ),
    "evidence unequal lengths": (
        lambda folder: bp.evidence(fitted(), (X, Y[:3]), progress=False),
        errors.DataError,
        ("rows: 24 rows of inputs", "every row needs both"),
    ),
    "evidence empty": (
        lambda folder: bp.evidence(fitted(), (X[:0], Y[:0]), progress=False),
        errors.DataError,
        ("rows: no rows. Give at least one",),
    ),
    "evidence network": (
        lambda folder: bp.evidence(net(), (X, Y)),
        errors.PosteriorError,
        (
            "evidence() takes the result of fit(), or a gated model, and got Sequential",
            "bp.evidence(result, (x, y))",
        ),
    ),
    "evidence many": (
        lambda folder: bp.evidence(fitted(), (torch.cat([X, X]), torch.cat([Y, Y])), progress=False),
        errors.PosteriorError,
        ("rows= has 48 rows, and", "a unit saves there"),
    ),
    "evidence units": (
        lambda folder: bp.evidence(fitted(), (X, Y), units="some", progress=False),
        errors.PosteriorError,
        ("evidence() cannot be had: units='some'", "as {'fc1': [3, 7]}"),
    ),
    "evidence draws": (
        lambda folder: bp.evidence(fitted(), (X, Y), draws=0, progress=False),
        errors.PosteriorError,
        ("evidence() cannot be had: draws=0", "number, at least 1"),
    ),
    "evidence seed": (
        lambda folder: bp.evidence(fitted(), (X, Y), seed="a", progress=False),
        errors.PosteriorError,
        ("seed='a' must be a whole", "in 0 … 4294967295"),
    ),
    "evidence estimator": (
        lambda folder: bp.evidence(fitted(), (X, Y), estimator=5, progress=False),
        errors.SettingsError,
        ("estimator=5 is none: give a", "enumeration, or an Estimator"),
    ),
    "evidence others": (
        lambda folder: bp.evidence(fitted(), (X, Y), others="x", progress=False),
        errors.PosteriorError,
        ("evidence() cannot be had: others='x'", "be 'posterior' or 'hard'"),
    ),
    "evidence x": (
        lambda folder: bp.evidence(fitted(), X, progress=False),
        errors.DataError,
        ("rows: inputs alone, and rows", "targets). Give (x, y)"),
    ),
    "diagnose None": (
        lambda folder: bp.diagnose(None),
        errors.PosteriorError,
        ("A NoneType holds no posterior", "or what bayesprune.posterior.read() returns"),
    ),
    "diagnose network": (
        lambda folder: bp.diagnose(net()),
        errors.PosteriorError,
        ("A Sequential holds no posterior", "or what bayesprune.posterior.read() returns"),
    ),
    "diagnose rows x": (
        lambda folder: bp.diagnose(fitted(), rows=X),
        errors.DataError,
        ("rows: inputs alone, and rows", "targets). Give (x, y)"),
    ),
    "diagnose rows width": (
        lambda folder: bp.diagnose(fitted(), rows=(torch.zeros(3, 5), Y[:3]), draws=5),
        errors.DataError,
        ("rows: the inputs do not", "or such an example"),
    ),
    "diagnose rows nan": (
        lambda folder: bp.diagnose(fitted(), rows=(NAN, Y), draws=5),
        errors.DataError,
        ("rows: the inputs hold NaN", "or drop such rows"),
    ),
    "diagnose rows targets": (
        lambda folder: bp.diagnose(fitted(), rows=(X, Y + 5), draws=5),
        errors.LikelihoodError,
        ("rows: Categorical: targets run from", "widen the last layer"),
    ),
    "diagnose draws": (
        lambda folder: bp.diagnose(fitted(), draws=0),
        errors.PosteriorError,
        ("draws=0: must be a whole number, at least 1",),
    ),
    "diagnose seed": (
        lambda folder: bp.diagnose(fitted(), seed="a", draws=5),
        errors.PosteriorError,
        ("seed='a' must be a whole", "in 0 … 4294967295"),
    ),
    "diagnose seed -1": (
        lambda folder: bp.diagnose(fitted(), seed=-1, draws=5),
        errors.PosteriorError,
        ("seed=-1 must be a whole", "in 0 … 4294967295"),
    ),
    "diagnose list": (
        lambda folder: bp.diagnose([fitted(), net()]),
        errors.PosteriorError,
        ("Posterior.of takes the results of fit(), and got Sequential",),
    ),
    "diagnose empty": (
        lambda folder: bp.diagnose([]),
        errors.PosteriorError,
        ("Posterior.of takes the results of fit(), and got none",),
    ),
    "diagnose ranks": (
        lambda folder: bp.diagnose(fitted(), ranks=5, draws=5),
        errors.PosteriorError,
        ("ranks=5 must be a pair", "among so many draws"),
    ),
    "diagnose str": (
        lambda folder: bp.diagnose("run"),
        errors.PosteriorError,
        ("Posterior.of takes the results of", "got str, str, str"),
    ),
    "to_arviz None": (
        lambda folder: bp.Posterior.of(None),
        errors.PosteriorError,
        ("Posterior.of takes the results of fit(), and got NoneType",),
    ),
    "to_arviz 5": (
        lambda folder: bp.Posterior.of(5),
        errors.PosteriorError,
        ("Posterior.of takes the results of fit(), and got int",),
    ),
    "to_arviz thin": (
        lambda folder: bp.Posterior.of(fitted()).to_arviz(draws=5, thin=0),
        errors.PosteriorError,
        ("thin=0: must be a whole number, at least 1",),
    ),
    "to_arviz draws": (
        lambda folder: bp.Posterior.of(fitted()).to_arviz(draws="a"),
        errors.PosteriorError,
        ("draws='a': must be a whole number, at least 1",),
    ),
    "to_arviz prior": (
        lambda folder: bp.Posterior.of(fitted()).to_arviz(draws=5, prior="a"),
        errors.PosteriorError,
        ("prior='a': a whole number of", "or 0 for none"),
    ),
    "to_arviz rows": (
        lambda folder: bp.Posterior.of(fitted()).to_arviz(draws=5, rows=(X.double(), Y)),
        errors.DataError,
        ("rows: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "to_arviz seed": (
        lambda folder: bp.Posterior.of(fitted()).to_arviz(draws=5, seed="a"),
        errors.PosteriorError,
        ("seed='a' must be a whole", "in 0 … 4294967295"),
    ),
    "certify width": (
        lambda folder: bp.certify(
            pruned(), torch.randn(300, 5), alpha=0.5, trained_on=X, loss="disagreement", progress=False
        ),
        errors.CertificateError,
        ("The training rows have 4 numbers each", "Give both as the network takes them"),
    ),
    "certify None": (
        lambda folder: bp.certify(None, X, alpha=0.5),
        errors.CertificateError,
        ("Cannot certify a NoneType: give", "give path=Units(rule, fit=result) besides"),
    ),
    "certify rows None": (
        lambda folder: bp.certify(pruned(), None, alpha=0.5),
        errors.CertificateError,
        ("Calibration rows: NoneType holds no rows.", "Give a pair (inputs, targets)"),
    ),
    "certify gated": (
        lambda folder: bp.certify(gate(), X, alpha=0.5),
        errors.CertificateError,
        ("Cannot certify a GatedModel: give", "give path=Units(rule, fit=result) besides"),
    ),
    "certify alpha": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=2),
        errors.CertificateError,
        ("alpha=2 must lie between 0", "allowed, such as 0.02"),
    ),
    "certify alpha str": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha="a"),
        errors.CertificateError,
        ("alpha='a' must lie between 0", "allowed, such as 0.02"),
    ),
    "certify path": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=0.5, path=5),
        errors.CertificateError,
        ("path=5: give one of magnitude,", "of bayesprune.certify.paths, or networks"),
    ),
    "certify path str": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=0.5, path="zz"),
        errors.CertificateError,
        ("path='zz': there is none of", "of magnitude, magnitude-layers, units"),
    ),
    "certify loss": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=0.5, loss=5),
        errors.CertificateError,
        ("loss=5: give one of error,", "a loss of bayesprune.certify.losses"),
    ),
    "certify loss str": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=0.5, loss="zz"),
        errors.CertificateError,
        ("loss='zz': there is none of", "excess, new-errors, disagreement, selective"),
    ),
    "certify rule": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=0.5, rule=5),
        errors.CertificateError,
        ("rule=5: give one of fixed-sequence,", "a rule of bayesprune.certify.rules"),
    ),
    "certify pvalue": (
        lambda folder: bp.certify(pruned(), (X, Y), alpha=0.5, p_value=5),
        errors.CertificateError,
        ("p_value=5: give 'binomial', 'hoeffding-bentkus' or", "or one of bayesprune.certify.pvalues"),
    ),
    "certify double": (
        lambda folder: bp.certify(pruned(), (X.double(), Y), alpha=0.5, trained_on=X + 1, progress=False),
        errors.CertificateError,
        ("Network 'reference': does not run", "it was trained on"),
    ),
    "certify int": (
        lambda folder: bp.certify(
            pruned(), ((1000 * X).long(), Y), alpha=0.5, trained_on=X + 1, progress=False
        ),
        errors.CertificateError,
        ("Network 'reference': does not run", "it was trained on"),
    ),
    "certify batch_size": (
        lambda folder: bp.certify(
            pruned(), (X, Y), alpha=0.5, batch_size=0, trained_on=X + 1, progress=False
        ),
        errors.CertificateError,
        ("batch_size=0 must be a whole number, at least 1",),
    ),
    "certify batch_size s": (
        lambda folder: bp.certify(
            pruned(), (X, Y), alpha=0.5, batch_size="a", trained_on=X + 1, progress=False
        ),
        errors.CertificateError,
        ("batch_size='a' must be a whole number, at least 1",),
    ),
    "certify targets": (
        lambda folder: bp.certify(pruned(), (X, Y + 9), alpha=0.5, trained_on=X + 1, progress=False),
        errors.CertificateError,
        ("Loss 'error': the labels run", "count them from 0"),
    ),
    "certify dict": (
        lambda folder: bp.certify(pruned(), {"x": X}, alpha=0.5),
        errors.CertificateError,
        ("The loss 'error' needs labels, and there are none", "give rows=(x, y)"),
    ),
}

WORKS = {
    "certify numpy": lambda folder: bp.certify(
        pruned(), (X.numpy(), Y.numpy()), alpha=0.5, trained_on=X + 1, progress=False
    ),
    "evaluate result": lambda folder: bp.evaluate(fitted(), (X, Y)),
    "evaluate loader": lambda folder: bp.evaluate(gate(), loader(X, Y)),
    "evaluate numpy": lambda folder: bp.evaluate(gate(), (X.numpy(), Y.numpy())),
    "evidence loader": lambda folder: bp.evidence(fitted(), loader(X, Y), progress=False),
    "evidence numpy": lambda folder: bp.evidence(fitted(), (X.numpy(), Y.numpy()), progress=False),
    "diagnose rows numpy": lambda folder: bp.diagnose(fitted(), rows=(X.numpy(), Y.numpy()), draws=5),
    "certify targets float": lambda folder: bp.certify(
        pruned(), (X, Y.float()), alpha=0.5, trained_on=X + 1, progress=False
    ),
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
