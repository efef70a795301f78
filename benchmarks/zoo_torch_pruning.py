"""The zoo again, cut by Torch-Pruning as its users set it, beside what zoo.py found for bayesprune.

    pip install --no-deps torch-pruning==1.6.1       # and torchvision or timm, as zoo.py says
    python benchmarks/zoo_torch_pruning.py [--family timm] [--only resnet18 vit_b_16]

Its pruner is told what its examples tell it: the classifier is left whole (``ignored_layers``), heads of
attention are told (``num_heads``, where a module has that attribute and makes queries, keys and values by
linear layers), widths that torchvision's and timm's vision transformers note are set afterwards, and timm's
attention gets a ``forward`` that reads no width from its input. 30 % of every layer goes by its group
magnitude. The networks are those of zoo.py, in float64: the same random weights and statistics.

"Exact" is asked with the masks that it chose itself: a copy of the whole network whose readers of removed
channels have zeros in their columns has to return what the cut network returns, to 1e-10. That is only a
question where removing a channel means that nobody reads it: where a layer norm, a group norm or an attention
lost channels it then normalises over fewer of them, or divides by another width, by intention, and the row
says so.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import zoo_networks
from reporting import write_results
from tqdm import tqdm
from zoo_measure import CLASSES, count, outputs, told
from zoo_networks import MAKERS, SIZE, batch, build, call, names

RESULTS = Path(__file__).parent / "results"
SHARE, TOLERANCE = 0.3, 1e-10
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.MultiheadAttention)
MAKES = ("qkv", "q", "k", "v", "query", "key", "value", "q_proj", "k_proj", "v_proj", "kv")
Record = dict[str, Any]


def heads_of(network: nn.Module) -> dict[nn.Module, int]:
    """Layer → heads, as a user reads them off the modules."""
    return {
        layer: int(module.num_heads)
        for module in network.modules()
        if isinstance(getattr(module, "num_heads", None), int)
        for name in MAKES
        if isinstance(layer := getattr(module, name, None), nn.Linear)
    }


def attention_heads(network: nn.Module) -> int:
    """What a vision transformer's width has to stay a multiple of."""
    return max((m.num_heads for m in network.modules() if isinstance(m, nn.MultiheadAttention)), default=1)


def classifiers(network: nn.Module) -> list[nn.Module]:
    """Layers whose rows are the classes."""
    widths = {nn.Linear: "out_features", nn.Conv2d: "out_channels"}
    return [m for m in network.modules() if getattr(m, widths.get(type(m), "none"), None) == CLASSES]


def note_(module: nn.Module) -> None:
    """Set the widths that a module has noted, as the pruner's examples do after a cut."""
    qkv, patches = getattr(module, "qkv", None), getattr(module, "conv_proj", None)
    if isinstance(qkv, nn.Linear) and isinstance(getattr(module, "head_dim", None), int):
        module.head_dim = qkv.out_features // (3 * module.num_heads)
        if type(module).__module__.startswith("timm.") and type(module).__name__ == "Attention":
            module.forward = functools.partial(attend, module)
    if isinstance(patches, nn.Conv2d) and isinstance(getattr(module, "hidden_dim", None), int):
        module.hidden_dim = patches.out_channels


def attend(module: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """timm's attention, without a size that it reads from its input: (B, N, C) → (B, N, C')."""
    qkv = module.qkv(x).unflatten(-1, (3, module.num_heads, module.head_dim)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    mixed = nn.functional.scaled_dot_product_attention(module.q_norm(q), module.k_norm(k), v)
    return module.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Readers:
    """A copy of the whole network, in which nobody reads what the pruner removes."""

    def __init__(self, network: nn.Module) -> None:
        self.twin = copy.deepcopy(network)
        self.names = {module: name for name, module in network.named_modules()}
        self.left: dict[str, Tensor] = {}
        self.other = False  # something was removed that means more than that nobody reads it

    @torch.no_grad()
    def forget_(self, module: nn.Module, channels: list[int], makes: bool) -> None:
        """The pruner is about to remove channels of a layer: rows where it makes them, else columns."""
        self.other |= isinstance(module, NORMS) or not isinstance(module, nn.Module)  # or a bare parameter
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        if makes or depthwise or not isinstance(module, nn.Linear | nn.Conv2d):
            return
        name = self.names[module]
        weight, groups = self.twin.get_submodule(name).weight, getattr(module, "groups", 1)
        width = groups * weight.shape[1]
        left = self.left.get(name, torch.arange(width))
        gone = left[channels]
        rows = weight.unflatten(0, (groups, -1))
        for channel in gone.tolist():
            rows[channel // weight.shape[1], :, channel % weight.shape[1]] = 0
        keep = torch.ones(len(left), dtype=torch.bool)
        keep[channels] = False
        self.left[name] = left[keep]


def cut_(network: nn.Module, example: Any, readers: Readers) -> float:
    """Let the pruner have its way; seconds of the processor."""
    import torch_pruning

    network.eval()
    begun, heads = time.process_time(), heads_of(network)
    pruner = torch_pruning.pruner.BasePruner(
        network,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SHARE,
        ignored_layers=classifiers(network),
        num_heads=dict(heads),
        round_to=attention_heads(network) if hasattr(network, "conv_proj") else None,
        forward_fn=call,
    )
    for group in pruner.step(interactive=True):
        for dependency, channels in group:
            makes = pruner.DG.is_out_channel_pruning_fn(dependency.handler)
            readers.forget_(dependency.target.module, [int(c) for c in channels], makes)
        group.prune()
    for module in network.modules():
        note_(module)
    return time.process_time() - begun


def measure(name: str) -> Record:
    """One network: does it run, what is left, is it exact?"""
    network, example = build(name, torch.float64), batch(name, torch.float64)
    whole, dense = outputs(network, example)["eval"], count(network)
    readers = Readers(network)
    try:
        seconds = cut_(network, example, readers)
    except Exception as problem:  # whatever it meets in a network of others
        return {"failed": f"while it was cut: {told(problem)}"}
    record: Record = {"parameters_left_percent": 100 * count(network) / dense, "cpu_seconds": seconds}
    found = outputs(network, example)
    if broken := [mode for mode, value in found.items() if isinstance(value, Exception)]:
        return {**record, "failed": f"in {broken[0]} mode: {told(found[broken[0]])}"}
    masked = outputs(readers.twin, example)["eval"]
    if readers.other:
        return {**record, "exact": None}
    scale = masked.abs().max().clamp_min(1.0)
    same = found["eval"].shape == masked.shape
    difference = float((found["eval"] - masked).abs().max() / scale) if same else None
    effect = float((whole - masked).abs().max() / scale)
    exact = difference is not None and difference <= TOLERANCE and effect > 1e-3
    return {**record, "difference": difference, "effect": effect, "exact": exact}


def ask(name: str, arguments: argparse.Namespace) -> Record:
    """What a process of its own found."""
    words = [sys.executable, __file__, "--measure", name, "--size", str(arguments.size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=arguments.timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "failed": f"time-out after {arguments.timeout:.0f} s"}
    if done.returncode:
        return {"name": name, "failed": (done.stderr.strip().splitlines() or [""])[-1][:300]}
    return {"name": name, **json.loads(done.stdout.strip().splitlines()[-1])}


def show(runs: list[Record], ours: Mapping[str, Record]) -> Record:
    """A row for each network, ours beside it; and counts."""
    print(f"{'network':34} {'parameters left':>16} {'ours':>6} {'seconds':>8} {'ours':>6}  exact")
    for run in sorted(runs, key=lambda run: run["name"]):
        mine = ours.get(run["name"], {})
        seconds = sum(mine.get(f"cpu_seconds_{what}", float("nan")) for what in ("analysis", "cut"))
        exact = {True: "exact", False: "not exact", None: "removed from norms or attention"}
        said = run.get("failed") or exact[run["exact"]]
        print(
            f"{run['name']:34} {run.get('parameters_left_percent', float('nan')):14.0f} % "
            f"{mine.get('parameters_left_percent', float('nan')):4.0f} % "
            f"{run.get('cpu_seconds', float('nan')):8.1f} {seconds:6.1f}  {said}"
        )
    counts = {
        "networks": len(runs),
        "failed": sum("failed" in run for run in runs),
        "exact": sum(run.get("exact") is True for run in runs),
        "not_exact": sum(run.get("exact") is False for run in runs),
        "not_asked": sum("exact" in run and run["exact"] is None for run in runs),
    }
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families = [name or "torchvision" for name in MAKERS if name != "transformers"]
    parser.add_argument("--family", choices=families, default="torchvision")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these networks alone; others stay in the record"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="height and width of torchvision's images")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a network")
    parser.add_argument("--measure", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    zoo_networks.SIZE = arguments.size
    if arguments.measure:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        print("\n" + json.dumps(measure(arguments.measure)))
        return
    suffix = "" if arguments.family == "torchvision" else f"_{arguments.family}"
    beside = RESULTS / f"zoo{suffix}.json"
    ours = (
        {r["name"]: r for r in json.loads(beside.read_text())["results"]["runs"]} if beside.exists() else {}
    )
    out = RESULTS / f"zoo{suffix}_torch_pruning.json"
    asked = arguments.only or names(arguments.family)
    before = json.loads(out.read_text())["results"]["runs"] if arguments.only and out.exists() else []
    runs = [run for run in before if run["name"] not in asked]
    runs += [ask(name, arguments) for name in tqdm(asked, unit="network", disable=None)]
    results = {"share": SHARE, "size": arguments.size, "summary": show(runs, ours), "runs": runs}
    write_results(out, vars(arguments), results)


if __name__ == "__main__":
    main()
