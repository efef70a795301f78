"""What a certificate costs: 50 candidates of LeNet-5, 10,000 calibration rows, one forward pass each.

    python benchmarks/certify_speed.py [--threads 2] [--rows 10000] [--verify]

It is the size that counts: the network has its initial weights, and the loss is disagreement with it.
Unstructured candidates have the dense network's size; structured ones are physically smaller. Processor
seconds are of all threads together, and do not depend on what else the machine is doing; wall seconds do.
"""

import argparse
import time
from pathlib import Path

import torch
from mnist_network import dense_network
from reporting import write_results

import bayesprune as bp
from bayesprune.certify import verify

LIMIT = 60.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--verify", action="store_true", help="time the verification too")
    parser.add_argument("--data-dir", type=Path, default=None)
    out = Path(__file__).parent / "results" / "certify_speed.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = bp.data.load("mnist", arguments.data_dir)
    torch.manual_seed(0)
    network, x = dense_network(data.train, "lenet5"), data.test.x[: arguments.rows]
    network(x[:100])
    results = {"threads": arguments.threads, "rows": len(x)}
    for path in ("magnitude", "units"):
        wall, processor = time.perf_counter(), time.process_time()
        found = bp.certify(
            network,
            x,
            alpha=0.5,
            loss="disagreement",
            path=path,
            trained_on=data.train.x[:100],
            progress=False,
        )
        row = {
            "candidates": len(found.certificate.record["path"]),
            "wall_seconds": round(time.perf_counter() - wall, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
        }
        if arguments.verify:
            wall = time.perf_counter()
            row["true"] = bool(verify(found.certificate, found.network, x, reference=network))
            row["verify_wall_seconds"] = round(time.perf_counter() - wall, 1)
        results[path] = row
        within = "within" if row["wall_seconds"] <= LIMIT else "NOT within"
        print(path, row, within, f"{LIMIT:.0f} s", flush=True)
    write_results(arguments.out, vars(arguments), results)


if __name__ == "__main__":
    main()
