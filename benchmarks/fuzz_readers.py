"""Every reader of files on files that were changed: how each change ends, by reader and kind of change.

    python benchmarks/fuzz_readers.py --mutations 27000 --seed 0

Harmless files of every kind are made, and changed in one place each: values, keys and nesting of JSON, bytes,
single bits, lengths, types and shapes of tensors. A change must end in a named error (exit code 2 on the
command line), in a result equal to that of the unchanged file, or be found by whoever is asked (a certificate
is then false). Where a file holds plain figures without a checksum, another value can also be told as it is
written, and a network whose checksums were made anew, as a forger would, may fail when it is run.
Each reader runs in a process of its own, with a limit on its memory and on the time of each change:
a library that ends the process is counted, and the next change goes on.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reporting import write_results
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import bayesprune as bp
from bayesprune.certify import Certificate, TrainingRows, verify
from bayesprune.certify.signing import _private_key, _public_key
from bayesprune.cli.folder import read_run
from bayesprune.errors import BayespruneError
from bayesprune.export.architecture import digest_of
from bayesprune.export.tensors import digest, tensor_bytes
from bayesprune.posterior import diagnose
from bayesprune.posterior.arviz import read, unwrap
from bayesprune.posterior.evidence import EvidenceTable, read_evidence, write_evidence
from bayesprune.programs import load_model
from bayesprune.report.reading import read_runs
from bayesprune.report.write import names_of, render
from bayesprune.selection.front import FrontFigures, read_front, write_front

RESULTS = Path(__file__).parent / "results" / "fuzz_readers.json"
MEMORY, SECONDS = 3 * 2**30, 20.0
"""Of addresses, beyond what a reader begins with; of processor time, for a change."""
RIGHT = ("named error", "equal", "found", "as written", "fails when run")
ODD = (
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    1e308,
    -0.5,
    "",
    "x",
    "../../x",
    "\u00e9",
    [],
    {},
    [[]],
    {"": 0},
)
"""What a value is replaced by."""
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.int32)

Change = Callable[[random.Random, bytes], bytes]


# ---------------------------------------------------------------------------------------------- changes


def _bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _bit(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _length(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.7:
        return content[: rng.randrange(len(content) + 1)]
    return content + rng.randbytes(rng.randint(1, 64))


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)
    return found


def _json(rng: random.Random, content: bytes) -> bytes:
    """One value replaced, doubled, moved or taken out, one key renamed, or nesting without end."""
    value = json.loads(content)
    places = _places(value, [])
    home, key = rng.choice(places)
    kind = rng.choice(("replace", "replace", "replace", "swap", "drop", "rename", "repeat", "deep", "number"))
    if kind == "replace":
        home[key] = rng.choice(ODD)
    elif kind == "swap":
        other, at = rng.choice(places)
        home[key] = json.loads(json.dumps(other[at]))
    elif kind == "drop":
        del home[key]
    elif kind == "rename" and isinstance(home, dict):
        home[rng.choice((f"{key}x", "", "__class__"))] = home.pop(key)
    elif kind == "repeat" and isinstance(home, list):
        home.insert(key, home[key])
    elif kind in ("deep", "number"):
        home[key] = "MARK"
        text = "[" * 50_000 + "]" * 50_000 if kind == "deep" else rng.choice(("9" * 5000, "1e999", "NaN"))
        return json.dumps(value).replace('"MARK"', text).encode()
    elif type(home[key]) in (int, float):
        home[key] += rng.choice((1, -1, 0.5))
    return json.dumps(value).encode()


def _tensors(rng: random.Random, content: bytes) -> bytes:
    """One tensor of another type, shape or name, or none at all."""
    from safetensors.torch import load, save

    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__")
    tensors = load(content)
    name = rng.choice(sorted(tensors))
    tensor, kind = tensors.pop(name), rng.choice(("dtype", "flat", "more", "less", "rename", "drop"))
    changed = {
        "dtype": lambda: tensor.to(rng.choice(DTYPES)),
        "flat": lambda: tensor.reshape(-1),
        "more": lambda: tensor.unsqueeze(0),
        "less": lambda: tensor[: max(len(tensor) - 1, 0)] if tensor.ndim else tensor,
        "rename": lambda: tensor,
    }
    if kind != "drop":
        tensors[name + "x" * (kind == "rename")] = changed[kind]().contiguous().clone()
    return bytes(save(tensors, metadata))


def _arrays(rng: random.Random, content: bytes) -> bytes:
    """One array of draws of another type, shape, name or content, or none; or one attribute."""
    import h5py

    held = io.BytesIO(content)
    with h5py.File(held, "a") as file:
        group = file[rng.choice(sorted(file))]
        name = rng.choice(sorted(group))
        kind = rng.choice(("numbers", "numbers", "numbers", "dtype", "more", "rename", "drop", "attribute"))
        array = group[name]
        if kind == "rename":
            group.move(name, rng.choice((f"{name}x", "gate:x", "inclusion_prob:x")))
        elif kind == "drop":
            del group[name]
        elif kind == "attribute":
            place = rng.choice((array, group))
            key = rng.choice([*sorted(place.attrs), "scale_factor", "_FillValue", "units", "coordinates"])
            place.attrs.pop(key, None)
            place.attrs[key] = rng.choice(
                (0, -1, 1e308, "x", "nan", "", [1, 2], "float64", "seconds since x")
            )
        elif array.dtype.kind in "iuf" and kind == "numbers":
            odd = (0, -1, 1, 100) + (1e30, float("nan"), float("inf"), -float("inf")) * (
                array.dtype.kind == "f"
            )
            values = array[()].reshape(-1).copy()
            values[rng.randrange(values.size) if rng.random() < 0.5 else slice(None)] = rng.choice(odd)
            array[...] = values.reshape(array.shape)
        else:
            values, attributes = array[()], dict(array.attrs)
            del group[name]
            values = values[None] if kind == "more" and array.ndim else values
            types = ("f2", "f8", "i8", "u1", "?", "S3", "c16")
            values = values if array.dtype.kind == "O" or kind == "more" else values.astype(rng.choice(types))
            group.create_dataset(name, data=values)
            for key in attributes.keys() - {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"}:
                group[name].attrs[key] = attributes[key]
    return held.getvalue()


BINARY: dict[str, Change] = {"bytes": _bytes, "one bit": _bit, "length": _length}
JSON = {"JSON": _json, **BINARY}
TENSORS = {"tensors": _tensors, **BINARY}
ARRAYS = {"arrays": _arrays, **BINARY}


# ---------------------------------------------------------------------------------------------- readers


@dataclass(frozen=True)
class Reader:
    """A reader, its files, and what can be done to them.

    Attributes:
        make: writes unchanged files into a folder.
        read: of that folder, to something that tells results apart.
        files: each with the changes that are tried.
        share: of all changes.
        checked: whether the files have checksums, so that no change may give another result.
        after: what a forger would do after a change.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: dict[str, dict[str, Change]]
    share: float = 1.0
    checked: bool = False
    after: Callable[[Path], None] = field(default=lambda folder: None)


class Residual(nn.Module):
    """No sequence, so that it is saved as a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.norm(self.first(x)).relu())


X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def _sequence() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.1), nn.Linear(6, 3)
    ).eval()


def _outputs(folder: Path) -> bytes:
    network = bp.load(folder)
    with torch.no_grad(), _running():
        return bytes(network(X).contiguous().numpy().tobytes()) + str(network.training).encode()


def _seal(folder: Path) -> None:
    """Give both files of a network each other's checksum again: then it is for their readers to see."""
    with contextlib.suppress(Exception):  # what cannot be sealed stays as it is
        path, tensors = folder / "architecture.json", folder / "pruned.safetensors"
        description = json.loads(path.read_text())
        content = tensor_bytes(load_file(tensors), digest_of(description))
        tensors.write_bytes(content)
        path.write_text(json.dumps({**description, "tensors_sha256": digest(content)}))


def _fitted(folder: Path | None = None, resume: bool = False, stop: bool = False) -> Any:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.5))
    gated = bp.gate(network, X[:1], prior=prior, likelihood=bp.Categorical(rows=len(X)))

    def halt(epoch: Any) -> None:
        if stop and epoch.epoch == 2:
            raise KeyboardInterrupt

    more = {} if folder is None else {"checkpoint": folder, "resume": resume, "on_epoch": halt}
    return bp.fit(gated, (X, Y), epochs=3, batch_size=40, seed=0, progress=False, **more)


def _checkpoint(folder: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        _fitted(folder, stop=True)
    kept = sorted(folder.glob("epoch-*.safetensors"))
    for old in kept[:-1]:
        old.unlink()
    kept[-1].rename(folder / "epoch-0002.safetensors")


def _resumed(folder: Path) -> bytes:
    result = _fitted(folder, resume=True)
    parts = [value.detach().numpy().tobytes() for value in result.gated.state_dict().values()]
    return b"".join(parts) + repr([epoch.elbo for epoch in result.history]).encode()


def _run(folder: Path) -> None:
    from bayesprune.cli.diagnose import write_posterior
    from bayesprune.cli.measure import measure, over_seeds
    from bayesprune.cli.settings import Settings, versions
    from bayesprune.files import write_json

    result = _fitted()
    _, figures = measure(result, bp.data.Split(X, Y))
    figures = {"seed": 0, **figures}
    write_posterior(result, bp.data.Split(X, Y), bp.data.Split(X[:30], Y[:30]), folder)
    settings = Settings("little", "svi_shrink", "digits", epochs=3, batch_size=40, price={"0": 1.5})
    record = {"format_version": 1, "settings": settings.to_json(), "versions": versions()}
    write_json(folder / "run.json", {**record, "sha256": {"data": "a1" * 32}})
    told = {"program": "little", "inference": "svi_shrink", "data": "digits", "epochs": 3, "price": None}
    seeds = {**over_seeds([figures]), "seeds": [figures]}
    write_json(folder / "result.json", {**told, "versions": versions(), **seeds})


ANSWERS: dict[str, Any] = {}


def _draws(folder: Path) -> None:
    """The draws of a run, but few, so that what is changed is mostly what is read."""
    from bayesprune.posterior import write

    draws = _fitted().posterior().to_arviz(draws=20, rows=(X[:5], Y[:5]), observed=True)
    write(draws, folder / "posterior.nc")


def _page(folder: Path) -> str:
    """The report without its plots and its draws, which have readers of their own here."""
    if not ANSWERS:
        container = read(folder / "posterior.nc")
        ANSWERS.update(answers=diagnose(container), groups=unwrap(container))
    runs = read_runs([folder])
    return str(render(runs, names_of(runs), ANSWERS["answers"], ANSWERS["groups"], []))


def _settings(folder: Path) -> str:
    return repr(read_run(folder)[0])


def _diagnosis(folder: Path) -> str:
    return str(diagnose(read(folder / "posterior.nc")))


def _evidence(folder: Path) -> None:
    import numpy as np

    names, numbers = np.array(["0"] * 4 + ["1"] * 3), np.linspace(0.1, 0.9, 7)
    table = EvidenceTable(
        names, np.arange(7), inclusion=numbers, price=numbers, estimate=numbers, estimate_error=numbers,
        exact=numbers * np.nan, exact_error=numbers, removed={"0": 2}, conditions="others as they are",
    )  # fmt: skip
    write_evidence(table, folder / "evidence.json")


def _table(folder: Path) -> str:
    found = read_evidence(folder / "evidence.json")
    return f"{found}{found.margin}"


def _front(folder: Path) -> None:
    import numpy as np

    cost, ends = np.linspace(50, 10, 5), np.linspace(1, 9, 10).reshape(5, 2)
    front = FrontFigures(
        cost, 10 * ends, ends[:, 0], ends, cost, ends[:, 1], "macs", "rmse", "weights as they are"
    )
    write_front(front, folder / "front.json")


def _points(folder: Path) -> str:
    found = read_front(folder / "front.json")
    return f"{found}{found.undominated}"


def _certificate(folder: Path) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(X), Y).backward()
        optimiser.step()
    found = bp.certify(network, (X, Y), alpha=0.4, trained_on=X + 1, progress=False)
    found.certificate.write(folder / "certificate.json")
    bp.save(found.network, folder, X[:1])
    bp.save(network, folder / "reference", X[:1])


def _printed(folder: Path) -> str:
    return str(Certificate.read(folder / "certificate.json"))


def _verified(folder: Path) -> str:
    answer = verify(
        folder / "certificate.json", bp.load(folder), (X, Y), reference=bp.load(folder / "reference")
    )
    return f"{str(answer) if answer else 'FOUND'}"


def _monitor(folder: Path) -> None:
    from bayesprune.certify.losses import Error
    from bayesprune.certify.monitor import Martingale, Monitor

    _certificate(folder)
    state = Monitor.of(Certificate.read(folder / "certificate.json"))
    state.observe(Error().scores(torch.eye(2)[Y], torch.eye(2)[Y], 1 - Y)).write(folder / "monitor.json")
    Martingale.of(X[:, 0]).observe(X[:9, 1]).write(folder / "martingale.json")


def _watched(folder: Path) -> str:
    from bayesprune.certify.monitor import Monitor

    state = Monitor.read(folder / "monitor.json", Certificate.read(folder / "certificate.json"))
    return f"{state}{state!r}"


def _stream(folder: Path) -> str:
    from bayesprune.certify.monitor import Martingale

    return repr(Martingale.read(folder / "martingale.json").observe([0.5, -0.5]))


def _training_rows(folder: Path) -> None:
    TrainingRows.of(X).write(folder / "rows.safetensors")


def _known(folder: Path) -> str:
    return str(TrainingRows.read(folder / "rows.safetensors").among(X).tolist())


def _rows(folder: Path) -> None:
    save_file({"x": X, "y": Y}, folder / "rows.safetensors")


def _calibration(folder: Path) -> str:
    from bayesprune.certify import CalibrationRows
    from bayesprune.cli.calibration import rows_of_file

    return CalibrationRows.of(rows_of_file(folder / "rows.safetensors")).sha256


def _keys(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)


def _public(folder: Path) -> bytes:
    own = _private_key(folder / "key.pem").public_key().public_bytes_raw()
    return bytes(own + _public_key(folder / "public.pem").public_bytes_raw())


PARTS = [
    f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]


def _idx(folder: Path) -> None:
    for number, name in enumerate(PARTS):
        shape = (12, 3, 3) if "images" in name else (12,)
        values = bytes(i % 3 for i in range(108 if "images" in name else 12))
        content = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + values
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if number % 2 else content)


def _cifar(folder: Path) -> None:
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (folder / name).write_bytes(b"".join(bytes([label]) + bytes(range(256)) * 12 for label in range(4)))


def _data(folder: Path) -> str:
    data = bp.data.load(folder)
    sums = [(part.x.double().sum().item(), part.y.tolist()) for part in (data.train, data.test)]
    return f"{data.classes} {sums}"


PROGRAM = '''"""A program."""
EPOCHS = {"digits": 3, "*": 5}
BATCH_SIZE = 64
INFERENCE = "svi_shrink"


def model(train, classes, price):
    return None
'''


def _program(folder: Path) -> None:
    (folder / "mine.py").write_text(PROGRAM)


def _loaded(folder: Path) -> str:
    found = load_model(str(folder / "mine.py"))
    return f"{found.epochs} {found.batch_sizes} {found.inference}"


NETWORK_FILES = {"architecture.json": JSON, "pruned.safetensors": TENSORS}
READERS: dict[str, Reader] = {
    "network, sequence": Reader(
        lambda folder: bp.save(_sequence(), folder, X[:2]), _outputs, NETWORK_FILES, 2, checked=True
    ),
    "network, graph": Reader(
        lambda folder: bp.save(_graph(), folder, X[:2]), _outputs, NETWORK_FILES, 1, checked=True
    ),
    "network, sequence, checksums made anew": Reader(
        lambda folder: bp.save(_sequence(), folder, X[:2]), _outputs, NETWORK_FILES, 1, after=_seal
    ),
    "network, graph, checksums made anew": Reader(
        lambda folder: bp.save(_graph(), folder, X[:2]), _outputs, NETWORK_FILES, 1, after=_seal
    ),
    "checkpoint": Reader(_checkpoint, _resumed, {"epoch-0002.safetensors": TENSORS}, 1, checked=True),
    "report of a run": Reader(_run, _page, {"result.json": JSON, "run.json": JSON}, 1.5),
    "run to resume": Reader(_run, _settings, {"run.json": JSON}),
    "posterior.nc": Reader(_draws, _diagnosis, {"posterior.nc": ARRAYS}, 1.5),
    "evidence.json": Reader(_evidence, _table, {"evidence.json": JSON}),
    "front.json": Reader(_front, _points, {"front.json": JSON}),
    "certificate, printed": Reader(_certificate, _printed, {"certificate.json": JSON}, 1.5),
    "certificate, verified": Reader(_certificate, _verified, {"certificate.json": JSON}, 0.7),
    "certificate, watched": Reader(_monitor, _watched, {"monitor.json": JSON}, 0.5),
    "stream, watched": Reader(_monitor, _stream, {"martingale.json": JSON}, 0.5),
    "digests of training rows": Reader(_training_rows, _known, {"rows.safetensors": TENSORS}),
    "rows of calibration": Reader(_rows, _calibration, {"rows.safetensors": TENSORS}),
    "PEM keys": Reader(_keys, _public, {"key.pem": BINARY, "public.pem": BINARY}, 0.5),
    "IDX": Reader(_idx, _data, dict.fromkeys(PARTS, BINARY), 1.5),
    "CIFAR": Reader(_cifar, _data, {"data_batch_1.bin": BINARY, "test_batch.bin": BINARY}, 0.7),
    "programs": Reader(_program, _loaded, {"mine.py": BINARY}, 0.3),
}


def _graph() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


# ---------------------------------------------------------------------------------------------- one change


class FailsWhenRun(Exception):
    """A network with new checksums that PyTorch does not run: loud, and no fault of a reader."""


@contextlib.contextmanager
def _running() -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        raise FailsWhenRun from problem


class TooSlow(BaseException):
    """A change takes longer than it may."""


def _alarm(*_: Any) -> None:
    raise TooSlow


def outcome(reader: Reader, folder: Path, whole: Any) -> tuple[str, str]:
    """How reading changed files ends, and the exception where it is a raw one."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        found = reader.read(folder)
    except BayespruneError:
        return "named error", ""
    except TooSlow:
        return "too slow", ""
    except MemoryError:
        return "too large", ""
    except FailsWhenRun:
        return ("another result" if reader.checked else "fails when run"), ""
    except Exception as problem:
        last = problem.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        line = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""
        return "raw", f"{type(problem).__name__} {line}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if found == whole:
        return "equal", ""
    return "found" if found == "FOUND" else "another result" if reader.checked else "as written", ""


def changes(reader: Reader, count: int, seed: int) -> list[tuple[str, str, int]]:
    """(file, kind of change, its own seed), the kinds in turn."""
    pairs = [(file, kind) for file, kinds in reader.files.items() for kind in kinds]
    return [(*pairs[number % len(pairs)], seed * 1_000_003 + number) for number in range(count)]


def try_all(reader: Reader, todo: list[tuple[str, str, int]]) -> Iterator[tuple[str, str, str]]:
    """(kind, outcome, exception) of every change; in this process."""
    signal.signal(signal.SIGPROF, _alarm)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as base:
        kept, folder = Path(base) / "kept", Path(base) / "tried"
        kept.mkdir()
        reader.make(kept)
        shutil.copytree(kept, folder)
        whole = reader.read(folder)
        for file, kind, seed in todo:
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            content = (kept / file).read_bytes()
            (folder / file).write_bytes(reader.files[file][kind](random.Random(seed), content))
            reader.after(folder)
            yield kind, *outcome(reader, folder, whole)


def apart(reader: Reader, todo: list[tuple[str, str, int]]) -> Iterator[tuple[str, str, str]]:
    """The same in a process of its own; where a library ends it, in a new one from the next change on."""
    while todo:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(reader, todo, writing)
        os.close(writing)
        done = 0
        with os.fdopen(reading) as lines:
            for line in lines:
                done += 1
                kind, how, what = json.loads(line)
                yield kind, how, what
        os.waitpid(child, 0)
        if done < len(todo):
            yield todo[done][1], "the process ended", ""
            done += 1
        todo = todo[done:]


def _child(reader: Reader, todo: list[tuple[str, str, int]], writing: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code = 1
    try:
        with os.fdopen(writing, "w", buffering=1) as out:
            for line in try_all(reader, todo):
                out.write(json.dumps(line) + "\n")
        code = 0
    finally:
        os._exit(code)


def fuzz(name: str, count: int, seed: int) -> dict[str, Any]:
    """Counts of one reader: by kind of change and by how it ended."""
    reader, begun = READERS[name], time.monotonic()
    counts: dict[str, Counter[str]] = {}
    raw: Counter[str] = Counter()
    for kind, how, what in apart(reader, changes(reader, count, seed)):
        counts.setdefault(kind, Counter())[how] += 1
        if what:
            raw[what] += 1
    total = sum(counts.values(), Counter())
    wrong = sum(number for how, number in total.items() if how not in RIGHT)
    print(f"{name}: {count:,} changes, {wrong} wrong; {dict(total)} {dict(raw)}", flush=True)
    kinds = {kind: dict(found) for kind, found in counts.items()}
    found = {"changes": count, "wrong": wrong, "ended": dict(total), "by_kind": kinds, "raw": dict(raw)}
    return {**found, "seconds": round(time.monotonic() - begun, 1)}


def main() -> int:
    """All readers, each with its share."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutations", type=int, default=27_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    shares = sum(READERS[name].share for name in asked.readers)
    results = {
        name: fuzz(name, round(asked.mutations * READERS[name].share / shares), asked.seed)
        for name in asked.readers
    }
    total = {key: sum(found[key] for found in results.values()) for key in ("changes", "wrong")}
    print(f"in all: {total['changes']:,} changes, {total['wrong']} wrong")
    write_results(asked.out, vars(asked), {"readers": results, "total": total})
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
