"""One network of the zoo, in a process of its own.

    python zoo_measure.py NAME SHARE GIB THREADS SIZE CREATED

After every stage the record so far is printed as one line of JSON, so that a time-out loses only what came
after. Exact means: removal gives what zeros at the input of every reader give.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))
import zoo_networks
from zoo_networks import Batch, batch, build, call

CLASSES = 1000
MODES = {"eval": False, "train": True}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Record = dict[str, Any]
Outputs = dict[str, Any]  # mode → all numbers, or the exception


# What is measured


def measure(name: str, share: float, created: bool, tell: Callable[[Record], None]) -> None:
    """Times and memory in float32, differences in both types, and whether what was saved is what was cut."""
    from bayesprune.structure.graph import analyse
    from bayesprune.structure.plain import graphs_inside

    masked: dict[str, Outputs] = {}
    for dtype_name, dtype in DTYPES.items():
        with tracked() as forward:
            network, example = build(name, dtype, created), batch(name, dtype)
            forward.start()
            whole = outputs(network, example)
        with tracked(forward.floor) as work:
            start = clocks()
            analysis = analyse(network, example)
            analysed = clocks()
            units = [g for g in analysis.groups if not g.optional]  # whole sections are another removal
            alive = removal([(g.name, g.size) for g in units], share)
            small = analysis.cut(alive)
            cut = clocks()
        gates = {group: mask.to(dtype) for group, mask in alive.items()}
        masked[dtype_name] = outputs(analysis.gated, example, gates=gates)
        if dtype is torch.float32:
            tell(
                {
                    "traced": True,
                    "groups": len(analysis.groups),
                    "frozen": sorted({f"{f.place}: {f.reason}" for f in analysis.frozen}),
                    "removable_percent": 100 * removable_share(network, analysis.slots),
                    "in_place": type(small) is type(network),
                    "modules_replaced": list(graphs_inside(small)),
                    "parameters_left_percent": 100 * count(small) / count(network),
                    **spent("analysis", start, analysed),
                    **spent("cut", analysed, cut),
                    **memory(forward, work),
                }
            )
            tell(saved(small, example))
        else:
            tell(own_rounding(analysis.gated, example, gates, masked[dtype_name]))
        del network
        tell(compared(dtype_name, outputs(small, example), masked[dtype_name], whole))
    tell(rounding(masked["float32"], masked["float64"]))


def clocks() -> tuple[float, float]:
    """Time on the wall, and of the processor in this process: the latter leaves other programs' time out."""
    return time.perf_counter(), time.process_time()


def spent(what: str, start: tuple[float, float], end: tuple[float, float]) -> Record:
    return {f"seconds_{what}": end[0] - start[0], f"cpu_seconds_{what}": end[1] - start[1]}


def removal(groups: list[tuple[str, int]], share: float) -> dict[str, Tensor]:
    """group → (size,) bool: a random share of every group goes, at least one unit stays."""
    generator = torch.Generator().manual_seed(1)
    alive = {}
    for name, size in groups:
        gone = min(max(1, round(share * size)), size - 1)
        alive[name] = torch.ones(size, dtype=torch.bool)
        alive[name][torch.randperm(size, generator=generator)[:gone]] = False
    return alive


def removable_share(network: nn.Module, slots: Any) -> float:
    """Share of the channels that belong to a unit: rows of all weights but those of the classifiers."""
    owned: dict[tuple[str, int], Tensor] = {}
    for slot in slots:
        ids = slot.unit_ids >= 0
        owned[slot.tensor, slot.dim] = owned.get((slot.tensor, slot.dim), torch.zeros_like(ids)) | ids
    channels = removable = 0
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and name.endswith("weight") and parameter.shape[0] != CLASSES:
            channels += len(parameter)
            removable += int(owned[name, 0].sum()) if (name, 0) in owned else 0
    return removable / channels


def compared(dtype_name: str, small: Outputs, masked: Outputs, whole: Outputs) -> Record:
    """Relative difference of cut and masked in each mode, and what the removal changed.

    Where the cut network does not run in a mode the difference is ``None``, and the record says why.
    """
    record: Record = {}
    for mode in MODES:
        scale = masked[mode].abs().max().clamp_min(1.0)
        record[f"{dtype_name}_{mode}_effect"] = ((whole[mode] - masked[mode]).abs().max() / scale).item()
        if isinstance(small[mode], Exception):
            record["error"] = f"in {mode} mode: {told(small[mode])}"
            record[f"{dtype_name}_{mode}"] = None
        else:
            record[f"{dtype_name}_{mode}"] = ((small[mode] - masked[mode]).abs().max() / scale).item()
    return record


def saved(small: nn.Module, example: Batch) -> Record:
    """Whether a cut network, saved and loaded, returns the same numbers to the last bit, in each mode."""
    import bayesprune as bp

    record: Record = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            bp.save(small, folder, example)
            loaded = bp.load(folder)
        except Exception as problem:
            return {"loaded": told(problem)}
    before, after = outputs(small, example), outputs(loaded, example)
    record["loaded"] = all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
        for a, b in zip(before.values(), after.values(), strict=True)
    )
    return record


def own_rounding(gated: nn.Module, example: Batch, gates: dict[str, Tensor], masked: Outputs) -> Record:
    """How far float64 outputs move when all parameters do by 1e-13 of themselves, in each mode.

    Far less than 1e-10, but where a network computes a part in float32, as many norms of transformers do:
    there parameters move by half of float32's last digit, for less may round to the same.
    """
    generator = torch.Generator().manual_seed(2)
    with _Types() as seen:
        outputs(gated, example, gates=gates)
    step = 2.0**-24 if torch.float32 in seen.types else 1e-13
    before = [p.clone() for p in gated.parameters()]
    with torch.no_grad():
        for p in gated.parameters():
            if p.is_floating_point():
                p.mul_(1 + step * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    moved = outputs(gated, example, gates=gates)
    with torch.no_grad():
        for p, value in zip(gated.parameters(), before, strict=True):
            p.copy_(value)
    found = {}
    for mode in MODES:
        scale = masked[mode].abs().max().clamp_min(1.0)
        found[f"float64_{mode}_rounding"] = ((moved[mode] - masked[mode]).abs().max() / scale).item()
    return found


class _Types(TorchDispatchMode):
    """Notes the types of all values."""

    def __init__(self) -> None:
        super().__init__()
        self.types = set[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.types |= {leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        return result


def rounding(single: Outputs, double: Outputs) -> Record:
    """How far the masked network's own outputs in float32 lie from those in float64, in each mode."""
    return {
        f"float32_{mode}_rounding": (
            (single[mode] - double[mode]).abs().max() / double[mode].abs().max().clamp_min(1.0)
        ).item()
        for mode in MODES
    }


@torch.no_grad()
def outputs(network: nn.Module, example: Batch, **arguments: Any) -> Outputs:
    """mode → all numbers that the network returns, or why it does not run in that mode.

    Its running statistics are afterwards what they were.
    """
    mode_before = network.training
    buffers = {name: tensor.clone() for name, tensor in network.named_buffers()}
    results: Outputs = {}
    for mode, training in MODES.items():
        try:
            leaves = tree_leaves(call(network.train(training), example, **arguments))
            tensors = [leaf.flatten() for leaf in leaves if isinstance(leaf, Tensor)]
            results[mode] = torch.cat([t for t in tensors if t.is_floating_point()])
        except Exception as problem:  # whatever a wrongly cut network does
            results[mode] = problem
    for name, tensor in network.named_buffers():
        tensor.copy_(buffers[name])
    network.train(mode_before)
    return results


def told(problem: Exception) -> str:
    reason = (str(problem).strip() or repr(problem)).splitlines()[0][:300]
    return f"{type(problem).__name__}: {reason}"


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Memory


class Peak:
    """Peak resident memory of a stretch of code, in bytes above what was resident before.

    Args:
        floor: bytes that count as resident before; by default what is resident now.
    """

    def __init__(self, floor: int | None = None) -> None:
        self.bytes: int | None = None
        self.floor = floor
        self.start()

    def start(self) -> None:
        """Forget the peak so far."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # not Linux, or not allowed: memory stays unknown
            Path("/proc/self/clear_refs").write_text("5")
            self.floor = _status("VmRSS") if self.floor is None else self.floor

    def stop(self) -> None:
        """Note the peak."""
        self.bytes = None if self.floor is None else _status("VmHWM") - self.floor


@contextlib.contextmanager
def tracked(floor: int | None = None) -> Iterator[Peak]:
    """The peak of what runs inside."""
    peak = Peak(floor)
    yield peak
    peak.stop()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def memory(forward: Peak, work: Peak) -> Record:
    """Peaks of building and running the network, and of analysing and cutting it; each holds the network."""
    if not forward.bytes or work.bytes is None:
        return {"forward_mib": None, "work_mib": None, "memory_ratio": None}
    return {
        "forward_mib": forward.bytes / 2**20,
        "work_mib": work.bytes / 2**20,
        "memory_ratio": work.bytes / forward.bytes,
    }


def main() -> None:
    """Measure, printing the record as it grows; whatever goes wrong is part of it."""
    name, share, gibibytes = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(int(sys.argv[4]))
    zoo_networks.SIZE = int(sys.argv[5])
    warnings.simplefilter("ignore")
    if gibibytes:
        limit = int(gibibytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    record: Record = {"traced": False}

    def tell(more: Record) -> None:
        record.update(more)
        print("\n" + json.dumps(record), flush=True)

    tell({})
    try:
        measure(name, share, sys.argv[6] == "created", tell)
    except Exception as problem:  # the zoo goes on; the table says what happened
        tell({"error": told(problem)})


if __name__ == "__main__":
    main()
