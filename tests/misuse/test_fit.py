"""What fit and its recipe are called wrongly with."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune import errors
from tests.misuse.small import (
    BAD,
    NAN,
    ROWS,
    Dicts,
    Residual,
    Stream,
    X,
    Y,
    fit,
    fitted,
    gate,
    loader,
    net,
    normed,
)

REFUSED = {
    "fit int64": (
        lambda folder: fit(train=(X.long(), Y)),
        errors.DataError,
        ("train: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "fit double": (
        lambda folder: fit(train=(X.double(), Y)),
        errors.DataError,
        ("train: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "fit half": (
        lambda folder: fit(train=(X.half(), Y)),
        errors.DataError,
        ("train: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "fit sparse": (
        lambda folder: fit(train=(X.to_sparse(), Y)),
        errors.DataError,
        ("train: the inputs are a", "dense: give them .to_dense()"),
    ),
    "fit width": (
        lambda folder: fit(train=(torch.zeros(ROWS, 5), Y)),
        errors.DataError,
        ("train: the inputs do not", "or such an example"),
    ),
    "fit graph double": (
        lambda folder: fit(gate(Residual()), train=(X.double(), Y)),
        errors.DataError,
        ("train: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "fit graph width": (
        lambda folder: fit(gate(Residual()), train=(torch.zeros(ROWS, 5), Y)),
        errors.DataError,
        ("train: the inputs do not", "or such an example"),
    ),
    "fit 3d": (
        lambda folder: fit(train=(X[:, None], Y)),
        errors.DataError,
        ("train: the inputs do not", "or such an example"),
    ),
    "fit numpy double": (
        lambda folder: fit(train=(X.numpy().astype("float64"), Y.numpy())),
        errors.DataError,
        ("train: the inputs do not", "example torch.float32: give x.float()"),
    ),
    "fit dict": (
        lambda folder: fit(train={"x": X, "y": Y}),
        errors.DataError,
        ("train: a dict with the", "a DataLoader by collate_fn="),
    ),
    "fit x": (
        lambda folder: fit(train=X),
        errors.DataError,
        ("train: inputs alone, and rows", "targets). Give (x, y)"),
    ),
    "fit x,": (
        lambda folder: fit(train=(X,)),
        errors.DataError,
        ("train: inputs alone, and rows", "targets). Give (x, y)"),
    ),
    "fit triple": (
        lambda folder: fit(train=(X, Y, Y)),
        errors.DataError,
        ("train: 3 parts, and rows", "a DataLoader by collate_fn="),
    ),
    "fit None": (
        lambda folder: fit(train=None),
        errors.DataError,
        ("train: NoneType holds no rows.", "Dataset, or a DataLoader"),
    ),
    "fit targets None": (
        lambda folder: fit(train=(X, None)),
        errors.DataError,
        ("train: the targets are NoneType:", "array, such as torch.tensor(value)"),
    ),
    "fit lists": (
        lambda folder: fit(train=(X.tolist(), Y.tolist())),
        errors.DataError,
        ("train: the inputs are list:", "array, such as torch.tensor(value)"),
    ),
    "fit Dict data set": (
        lambda folder: fit(train=Dicts()),
        errors.DataError,
        ("train, rows 20 …: a", "a DataLoader by collate_fn="),
    ),
    "fit unequal lengths": (
        lambda folder: fit(train=(X, Y[:5])),
        errors.DataError,
        ("train: 24 rows of inputs", "every row needs both"),
    ),
    "fit targets float": (
        lambda folder: fit(train=(X, Y.float())),
        errors.LikelihoodError,
        ("train: Categorical: targets have type", "class numbers: use targets.long()"),
    ),
    "fit targets int32": (
        lambda folder: fit(train=(X, Y.int())),
        errors.LikelihoodError,
        ("train: Categorical: targets have type", "class numbers: use targets.long()"),
    ),
    "fit targets (n,1)": (
        lambda folder: fit(train=(X, Y[:, None])),
        errors.LikelihoodError,
        ("train: Categorical: targets have shape (24, 1)", "use targets.squeeze(1)"),
    ),
    "fit targets +1": (
        lambda folder: fit(train=(X, Y + 1)),
        errors.LikelihoodError,
        ("train: Categorical: targets run from", "widen the last layer"),
    ),
    "fit targets neg": (
        lambda folder: fit(train=(X, Y - 1)),
        errors.LikelihoodError,
        ("train: Categorical: targets run from", "widen the last layer"),
    ),
    "fit targets onehot": (
        lambda folder: fit(train=(X, torch.eye(2)[Y])),
        errors.LikelihoodError,
        ("train: Categorical: targets have type", "targets.argmax(1) where they are one-hot rows"),
    ),
    "fit targets bool": (
        lambda folder: fit(train=(X, Y.bool())),
        errors.LikelihoodError,
        ("train: Categorical: targets have type", "class numbers: use targets.long()"),
    ),
    "fit targets of no dimension": (
        lambda folder: fit(train=(X, torch.tensor(1))),
        errors.DataError,
        ("train: the targets are a", "of rows: (rows, ...)"),
    ),
    "fit nan": (
        lambda folder: fit(train=(NAN, Y)),
        errors.DataError,
        ("train: the inputs hold NaN", "or drop such rows"),
    ),
    "fit rows": (
        lambda folder: fit(gate(likelihood=bp.Categorical(rows=5))),
        errors.LikelihoodError,
        ("The likelihood was told of", "Build it with rows=24"),
    ),
    "fit meta x": (
        lambda folder: fit(train=(X.to("meta"), Y)),
        errors.DataError,
        ("train: the inputs are on", "load them on 'cpu'"),
    ),
    "fit stream": (
        lambda folder: fit(train=Stream()),
        errors.DataError,
        ("train: how many rows an", "the whole training set"),
    ),
    "fit stream rows0": (
        lambda folder: fit(train=Stream(), rows=0),
        errors.DataError,
        ("rows=0 must be a whole", "of the training set"),
    ),
    "fit loader dict": (
        lambda folder: fit(train=DataLoader(Dicts(), batch_size=8)),
        errors.DataError,
        ("train, batch 1 of epoch", "a DataLoader by collate_fn="),
    ),
    "fit loader triple": (
        lambda folder: fit(train=loader(X, Y, Y)),
        errors.DataError,
        ("train, batch 1 of epoch", "a DataLoader by collate_fn="),
    ),
    "fit loader x": (
        lambda folder: fit(train=loader(X)),
        errors.DataError,
        ("train, batch 1 of epoch", "targets). Give (x, y)"),
    ),
    "fit loader bad label": (
        lambda folder: fit(train=loader(X, BAD)),
        errors.LikelihoodError,
        ("train, batch 3 of epoch", "widen the last layer"),
    ),
    "fit loader width": (
        lambda folder: fit(train=loader(torch.zeros(ROWS, 5), Y)),
        errors.DataError,
        ("train, batch 1 of epoch", "or such an example"),
    ),
    "fit loader nan": (
        lambda folder: fit(train=loader(NAN, Y)),
        errors.DataError,
        ("train, batch 3 of epoch", "or drop such rows"),
    ),
    "fit loader double": (
        lambda folder: fit(train=loader(X.double(), Y)),
        errors.DataError,
        ("train, batch 1 of epoch", "example torch.float32: give x.float()"),
    ),
    "fit loader of a last batch of one": (
        lambda folder: fit(gate(normed(), likelihood=bp.Categorical(rows=17)), train=loader(X[:17], Y[:17])),
        errors.DataError,
        ("train: the network does not", "drop_last=True in the DataLoader"),
    ),
    "fit batch norm batch_size 1": (
        lambda folder: fit(gate(normed()), batch_size=1),
        errors.DataError,
        ("train: the network does not", "a batch_size above 1"),
    ),
    "fit loader batch_size": (
        lambda folder: fit(train=loader(X, Y), batch_size=4),
        errors.SettingsError,
        ("batch_size=4 stands beside train, a", "the loader with batch_size=4"),
    ),
    "fit epochs 1.5": (
        lambda folder: fit(epochs=1.5),
        errors.SettingsError,
        ("fit cannot start: epochs=1.5 must", "number, at least 1"),
    ),
    "fit epochs str": (
        lambda folder: fit(epochs="3"),
        errors.SettingsError,
        ("fit cannot start: epochs='3' must", "number, at least 1"),
    ),
    "fit epochs 0": (
        lambda folder: fit(epochs=0),
        errors.SettingsError,
        ("fit cannot start: epochs=0 must", "number, at least 1"),
    ),
    "fit epochs None": (
        lambda folder: fit(epochs=None),
        errors.SettingsError,
        ("fit cannot start: epochs=None must", "number, at least 1"),
    ),
    "fit epochs True": (
        lambda folder: fit(epochs=True),
        errors.SettingsError,
        ("fit cannot start: epochs=True must", "number, at least 1"),
    ),
    "fit batch_size 2.5": (
        lambda folder: fit(batch_size=2.5),
        errors.SettingsError,
        ("batch_size=2.5 must be a whole number, at least 1",),
    ),
    "fit batch_size 0": (
        lambda folder: fit(batch_size=0),
        errors.SettingsError,
        ("batch_size=0 must be a whole number, at least 1",),
    ),
    "fit batch_size str": (
        lambda folder: fit(batch_size="8"),
        errors.SettingsError,
        ("batch_size='8' must be a whole number, at least 1",),
    ),
    "fit seed a": (
        lambda folder: fit(seed="a"),
        errors.SettingsError,
        ("fit cannot start: seed='a' must", "in 0 … 4294967295"),
    ),
    "fit seed big": (
        lambda folder: fit(seed=2**70),
        errors.SettingsError,
        ("fit cannot start: seed=1180591620717411303424 must", "in 0 … 4294967295"),
    ),
    "fit seed -1": (
        lambda folder: fit(seed=-1),
        errors.SettingsError,
        ("fit cannot start: seed=-1 must", "in 0 … 4294967295"),
    ),
    "fit seed 1.5": (
        lambda folder: fit(seed=1.5),
        errors.SettingsError,
        ("fit cannot start: seed=1.5 must", "in 0 … 4294967295"),
    ),
    "fit seed None": (
        lambda folder: fit(seed=None),
        errors.SettingsError,
        ("fit cannot start: seed=None must", "in 0 … 4294967295"),
    ),
    "fit cuda": (
        lambda folder: fit(device="cuda"),
        errors.SettingsError,
        ("device='cuda' cannot be used here:", "CUDA enabled. Take device='cpu'"),
    ),
    "fit tpu": (
        lambda folder: fit(device="tpu"),
        errors.SettingsError,
        ("device='tpu' cannot be used here:", "string: tpu. Take device='cpu'"),
    ),
    "fit meta": (
        lambda folder: fit(device="meta"),
        errors.SettingsError,
        ("device='meta' cannot be used here:", "no numbers. Take device='cpu'"),
    ),
    "fit device None": (
        lambda folder: fit(device=None),
        errors.SettingsError,
        ("device=None cannot be used here:", "one of:. Take device='cpu'"),
    ),
    "fit device 3": (
        lambda folder: fit(device=3),
        errors.SettingsError,
        ("device=3 cannot be used here:", "is available. Take device='cpu'"),
    ),
    "fit recipe": (
        lambda folder: fit(recipe="fast"),
        errors.SettingsError,
        ("fit cannot start: recipe='fast' must", "bp.Recipe(...), or left out"),
    ),
    "fit recipe dict": (
        lambda folder: fit(recipe={}),
        errors.SettingsError,
        ("fit cannot start: recipe={} must", "bp.Recipe(...), or left out"),
    ),
    "fit recipe empty dict": (
        lambda folder: fit(recipe={"a": 1}),
        errors.SettingsError,
        ("fit cannot start: recipe={'a': 1}", "bp.Recipe(...), or left out"),
    ),
    "fit shrink": (
        lambda folder: fit(shrink=5),
        errors.SettingsError,
        ("fit cannot start: shrink=5 must", "bp.Shrink(...), or left out"),
    ),
    "fit estimator": (
        lambda folder: fit(recipe=bp.Recipe(estimator="magic")),
        errors.SettingsError,
        ("estimator='magic' is not known; there", "concrete, arm, reinforce, enumeration"),
    ),
    "fit on_epoch": (
        lambda folder: fit(on_epoch=5),
        errors.SettingsError,
        ("fit cannot start: on_epoch=5 must", "Epoch, or left out"),
    ),
    "fit checkpoint": (
        lambda folder: fit(checkpoint=5),
        errors.SettingsError,
        ("fit cannot start: checkpoint=5 must", "file, or left out"),
    ),
    "fit targets of pixels": (
        lambda folder: fit(train=(X, Y[:, None, None].expand(-1, 2, 2))),
        errors.LikelihoodError,
        ("train: Categorical: targets have shape (24, 2, 2)", "one a pixel or position take Own"),
    ),
    "fit resume that is no choice": (
        lambda folder: fit(resume="yes", checkpoint=folder + "/c"),
        errors.SettingsError,
        ("fit cannot start: resume='yes'", "must be True or False"),
    ),
    "fit progress that is no choice": (
        lambda folder: fit(progress="bar"),
        errors.SettingsError,
        ("fit cannot start: progress='bar'", "must be True or False"),
    ),
    "fit resume": (
        lambda folder: fit(resume=True),
        errors.SettingsError,
        ("fit cannot start: resume=True has", "name the folder, checkpoint='…'"),
    ),
    "fit checkpoint file": (
        lambda folder: fit(checkpoint=__file__),
        errors.SettingsError,
        ("must be the name of a folder, and not of a file",),
    ),
    "fit validation unequal lengths": (
        lambda folder: fit(validation=(X, Y[:4])),
        errors.DataError,
        ("validation: 24 rows of inputs", "every row needs both"),
    ),
    "fit validation width": (
        lambda folder: fit(validation=(torch.zeros(4, 5), Y[:4])),
        errors.DataError,
        ("validation: the inputs do not", "or such an example"),
    ),
    "fit validation 5": (
        lambda folder: fit(validation=5),
        errors.DataError,
        ("validation: int holds no rows.", "Dataset, or a DataLoader"),
    ),
    "fit validation nan": (
        lambda folder: fit(validation=(NAN, Y)),
        errors.DataError,
        ("validation: the inputs hold NaN", "or drop such rows"),
    ),
    "fit validation targets": (
        lambda folder: fit(validation=(X, Y + 5)),
        errors.LikelihoodError,
        ("validation: Categorical: targets run from", "widen the last layer"),
    ),
    "fit plain": (
        lambda folder: fit(net()),
        errors.SettingsError,
        ("fit takes a gated model", "fit it is result.gated"),
    ),
    "fit None g": (
        lambda folder: bp.fit(None, (X, Y)),
        errors.SettingsError,
        ("fit takes a gated model", "fit it is result.gated"),
    ),
    "fit result": (
        lambda folder: fit(fitted()),
        errors.SettingsError,
        ("fit takes a gated model", "fit it is result.gated"),
    ),
    "recipe lr str": (
        lambda folder: bp.Recipe(learning_rate="a"),
        errors.SettingsError,
        ("The recipe cannot be used:", "must be a number"),
    ),
    "recipe decide None": (
        lambda folder: bp.Recipe(decide=None),
        errors.SettingsError,
        ("The recipe cannot be used:", "must be a number"),
    ),
    "recipe gates": (
        lambda folder: bp.Recipe(gates=5),
        errors.SettingsError,
        ("The recipe cannot be used:", "must be a bp.GateSteps(...)"),
    ),
    "recipe shrink": (
        lambda folder: bp.Recipe(shrink=None),
        errors.SettingsError,
        ("The recipe cannot be used:", "must be a bp.Shrink(...)"),
    ),
    "recipe warm": (
        lambda folder: bp.Recipe(warmup="a"),
        errors.SettingsError,
        ("The recipe cannot be used:", "must be a number"),
    ),
    "shrink every": (
        lambda folder: bp.Recipe(shrink=bp.Shrink(every=1.5)),
        errors.SettingsError,
        ("The recipe cannot be used:", "be a whole number"),
    ),
    "recipe estimator": (
        lambda folder: bp.Recipe(estimator=5),
        errors.SettingsError,
        ("The recipe cannot be used:", "'curved', or an Estimator"),
    ),
    "GateSteps": (
        lambda folder: bp.Recipe(gates=bp.GateSteps(every=2.5)),
        errors.SettingsError,
        ("The recipe cannot be used:", "be a whole number"),
    ),
}

WORKS = {
    "fit numpy": lambda folder: fit(train=(X.numpy(), Y.numpy())),
    "fit numpy labels": lambda folder: fit(train=(X, Y.numpy())),
    "fit split": lambda folder: fit(train=bp.data.Split(X, Y)),
    "fit TensorDataset": lambda folder: fit(train=TensorDataset(X, Y)),
    "fit requires_grad": lambda folder: fit(train=(X.clone().requires_grad_(), Y)),
    "fit noncontig": lambda folder: fit(train=(X.T.contiguous().T, Y)),
    "fit stream rows": lambda folder: fit(train=Stream(), rows=ROWS),
    "fit stream loader": lambda folder: fit(
        train=DataLoader(Stream(), batch_size=8), batch_size=None, rows=ROWS
    ),
    "fit loader None": lambda folder: fit(train=loader(X, Y), batch_size=None),
    "fit batch_size big": lambda folder: fit(batch_size=10**6),
    "fit validation loader": lambda folder: fit(validation=loader(X, Y)),
    "fit again": lambda folder: fit(fitted().gated),
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
