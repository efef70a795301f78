"""How long analysis, trial cuts and a cut take, and their memory: this build, another one, Torch-Pruning.

    python benchmarks/analysis_speed.py --against CHECKOUT [--only resnet50 timm:coat_tiny] [--rounds 3]
    python benchmarks/analysis_speed.py --alone --depths 8 16 32 64 128 256 512

``CHECKOUT`` is a folder that holds another version of this repository: ``git worktree add CHECKOUT COMMIT``.
For every network all three are measured in turn, each time in a process of its own, after a small network
that loads what is loaded once; times are the processor's, on one thread, and medians over the rounds.
``gate`` is the analysis with its trial cuts, ``cut`` removes 30 % of every group's units; Torch-Pruning's are
building a magnitude pruner with the classifier ignored, and its step at a ratio of 0.3. Memory is the peak
beyond what was resident before the network was built, over that of building and running it, as in ``zoo.py``.
Networks have random weights: LeNet-5, torchvision's as in ``zoo_networks.py``, timm's by ``timm:NAME`` at the
size of their configuration, and ``depth:N``, N residual convolutions of 8 channels. Over several depths the
exponent is told with which seconds grow with the operations of a forward pass.

    pip install --no-deps torchvision==0.28.0 torch-pruning==1.6.1 timm==1.0.31   # beside torch 2.13
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parent))
import zoo_networks
from tqdm import tqdm
from zoo_measure import memory, removal, tracked

HERE = Path(__file__).resolve().parents[1]
FAMILIES = (
    "lenet5", "alexnet", "convnext_tiny", "densenet121", "densenet201", "efficientnet_b0",
    "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet1_0", "mobilenet_v2",
    "mobilenet_v3_large", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x1_0", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_16", "wide_resnet50_2",
)  # fmt: skip
"""LeNet-5, and one or two of each of torchvision's families."""

Record = dict[str, Any]


class Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network and two rows for it."""
    torch.manual_seed(0)
    if name == "lenet5":
        return nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        ), torch.randn(2, 1, 28, 28)  # fmt: skip
    if name.startswith("depth:"):
        blocks = [Block(8) for _ in range(int(name[6:]) // 2)]
        tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *tail), torch.randn(2, 3, 8, 8)
    return zoo_networks.build(name, torch.float32), zoo_networks.batch(name, torch.float32)


# One network and one tool, in a process of its own


def measure(name: str, tool: str) -> Record:
    """Seconds of the processor for both steps, and memory."""
    warnings.simplefilter("ignore")
    start = time.process_time()
    run(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 4), tool)
    first = time.process_time() - start
    with tracked() as forward:
        network, example = build(name)
        forward.start()
        with torch.no_grad():
            network.eval()(example)
        network.train()
    with tracked(forward.floor) as work:
        gate, cut = run(network, example, tool)
    sizes = {"operations": operations(network, example)} if name.startswith("depth:") else {}
    return {"gate": gate, "cut": cut, "first": first, **sizes, **memory(forward, work)}


@torch.no_grad()
def operations(network: nn.Module, example: Tensor) -> int:
    """How many operations PyTorch runs for a forward pass in evaluation."""
    with _Counted() as counted:
        network.eval()(example)
    return counted.number


class _Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def run(network: nn.Module, example: Tensor, tool: str) -> tuple[float, float]:
    """Seconds to find what can go, and to let 30 % of it go."""
    times = [time.process_time()]
    if tool == "torch_pruning":
        import torch_pruning

        last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        pruner = torch_pruning.pruner.BasePruner(
            network.eval(),
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.3,
            ignored_layers=[last],
        )
        times.append(time.process_time())
        pruner.step()
    else:
        from bayesprune.structure.graph import analyse

        analysis = analyse(network, example)
        times.append(time.process_time())
        analysis.cut(removal([(g.name, g.size) for g in analysis.groups if not g.optional], 0.3))
    times.append(time.process_time())
    return times[1] - times[0], times[2] - times[1]


# All of them


def ask(name: str, tool: str, root: Path, arguments: argparse.Namespace) -> Record:
    """What a process of its own found, or why there is nothing."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, __file__, "--measure", name, tool, "--size", str(arguments.size)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=arguments.timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"error": f"time-out after {arguments.timeout:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [""])[-1][:300]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compared(name: str, tools: dict[str, Path], arguments: argparse.Namespace) -> Record:
    """Medians over the rounds, in which the tools take turns."""
    runs: dict[str, list[Record]] = {tool: [] for tool in tools}
    for _ in range(arguments.rounds):
        for tool, root in tools.items():
            runs[tool].append(ask(name, tool, root, arguments))
    return {"name": name, **{tool: _median(several) for tool, several in runs.items()}}


def _median(runs: list[Record]) -> Record:
    errors = [run for run in runs if "error" in run]
    if errors:
        return errors[0]
    keys = [key for key, value in runs[0].items() if value is not None]
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def ratio(record: Record) -> float | None:
    """Seconds of this build over those of the other one."""
    if "gate" not in record.get("against", {}) or "gate" not in record["this"]:
        return None
    return _total(record["this"]) / _total(record["against"])


def _total(times: Record) -> float:
    return float(times["gate"] + times["cut"])


def show(records: list[Record]) -> Record:
    """Print a row for every network; return what it comes to."""
    print(f"{'network':26} {'other build':>14} {'this build':>14} {'ratio':>6} {'Torch-Pruning':>14} memory")
    for record in records:
        share = ratio(record)
        memories = [record.get(t, {}).get("memory_ratio") for t in ("against", "this")]
        print(
            f"{record['name']:26} {_told(record.get('against')):>14} {_told(record['this']):>14} "
            f"{'–' if share is None else f'{share:.2f}':>6} {_told(record.get('torch_pruning')):>14} "
            + " → ".join("–" if m is None else f"{m:.2f}" for m in memories)
        )
    shares = [share for record in records if (share := ratio(record)) is not None]
    both = [record for record in records if ratio(record) is not None]
    summary: Record = {"networks": len(records), "compared": len(shares)}
    if shares:
        summary |= {
            "median_ratio": statistics.median(shares),
            "largest_ratio": max(shares),
            "median_seconds_against": statistics.median(_total(r["against"]) for r in both),
            "median_seconds_this": statistics.median(_total(r["this"]) for r in both),
        }
    summary |= growth(records)
    print(summary)
    return summary


def growth(records: list[Record]) -> Record:
    """How this build's seconds grow with the operations of ``depth:N``: the exponent of a power.

    It is the slope of log seconds over log operations, by least squares over all depths, and between the two
    deepest; 1 is growth in proportion.
    """
    found = [r["this"] for r in records if r["name"].startswith("depth:") and "gate" in r["this"]]
    if len(found) < 2:
        return {}
    points = [(math.log(times["operations"]), math.log(_total(times))) for times in found]
    (x1, y1), (x2, y2) = points[-2:]
    return {
        "growth_exponent": statistics.linear_regression(*zip(*points, strict=True)).slope,
        "growth_exponent_deepest": (y2 - y1) / (x2 - x1),
    }


def _told(times: Record | None) -> str:
    if times is None:
        return "–"
    return "failed" if "error" in times else f"{times['gate']:.2f} + {times['cut']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="a checkout of another version; none by default")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=FAMILIES, help="; ".join(FAMILIES))
    parser.add_argument("--all", action="store_true", help="every classification network of torchvision")
    parser.add_argument("--depths", nargs="+", type=int, help="residual convolutions, instead of networks")
    parser.add_argument("--alone", action="store_true", help="without Torch-Pruning")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--size", type=int, default=64, help="height and width of torchvision's images")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one measurement")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "TOOL"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="results/analysis_speed.json by default, or …_depth.json")
    arguments = parser.parse_args()
    zoo_networks.SIZE = arguments.size
    torch.set_num_threads(1)
    if arguments.measure:
        print("\n" + json.dumps(measure(*arguments.measure)))
        return
    from reporting import write_results  # of this build: what is measured may be another one

    names = zoo_networks.names() if arguments.all else list(arguments.only)
    if arguments.depths:
        names = [f"depth:{depth}" for depth in arguments.depths]
    tools = {"against": arguments.against.resolve()} if arguments.against else {}
    tools |= {"this": HERE}
    if not arguments.alone and importlib.util.find_spec("torch_pruning") is not None:
        tools |= {"torch_pruning": HERE}
    kind = "_depth" if arguments.depths else ""
    out = arguments.out or HERE / "benchmarks" / "results" / f"analysis_speed{kind}.json"
    records: list[Record] = []
    for name in tqdm(names, desc="networks", disable=None):
        records.append(compared(name, tools, arguments))
        write_results(out, vars(arguments), {"networks": records}, quiet=True)
    results = {"other_build": _commit(arguments.against), "summary": show(records), "networks": records}
    write_results(out, vars(arguments), results)


def _commit(checkout: Path | None) -> str | None:
    if checkout is None:
        return None
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
