#!/usr/bin/env bash
# torch.onnx.export writes an LSTM or GRU for sequences of any length the first time in a process, and never again.
#
# Version: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, numpy 2.4.6, on a CPU.
# Expected: an export does not hang on what was exported before: the same module, the same dynamic_shapes, the same
#     file. At worst it always works, or always fails.
# Seen: the first export with a dynamic length gives a file for any length. The second of the same module raises that
#     tracing inferred a static length, and so does each one after it; after a mere torch.export.export of any LSTM
#     the first one does too. The exporter puts a loop over time in the place of the operator's unrolling
#     (torch/export/_patches.py), in a table behind a cache that is filled when the operator is first looked up and
#     that nobody empties. Emptying the operator's cache before each export gives the first file each time.
# PYTHON=... names another interpreter. It downloads PyTorch, gigabytes where pip takes a build for CUDA.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import sys
import warnings

warnings.simplefilter("ignore")
import torch
from torch import nn

CELLS = {"LSTM": (nn.LSTM, torch.ops.aten.lstm.input), "GRU": (nn.GRU, torch.ops.aten.gru.input)}


class Last(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def length(module):
    """The length that the file takes, or that there is none."""
    shapes = ({0: torch.export.Dim("rows"), 1: torch.export.Dim.DYNAMIC},)
    x = torch.randn(2, 5, 4)
    try:
        program = torch.onnx.export(
            module, (x,), dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes
        )
    except torch.onnx.errors.OnnxExporterError as problem:
        cause = problem
        while cause.__cause__ is not None:
            cause = cause.__cause__
        assert "inferred a static shape of 5" in str(cause), cause
        return "refused: the length is 5"
    size = program.model_proto.graph.input[0].type.tensor_type.shape.dim[1]
    return "any length" if size.dim_param else f"length {size.dim_value}"


name, way = sys.argv[1:]
kind, operator = CELLS[name]
module = Last(kind).eval()
if way == "after torch.export":
    torch.export.export(module, (torch.randn(2, 5, 4),))
for number in range(3):
    if way == "cache emptied":
        operator._dispatch_cache.clear()
    print(f"{name}, {way}, export {number + 1}: {length(module)}")
END

"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 onnx==1.23.2 onnx-ir==1.1.0 onnxscript==0.7.2 numpy==2.4.6
for cell in LSTM GRU; do
  for way in "one after the other" "after torch.export" "cache emptied"; do
    "$folder/venv/bin/python" "$folder/look.py" "$cell" "$way" 2> "$folder/errors" | tee -a "$folder/seen" \
      || { cat "$folder/errors"; exit 1; }
  done
done

for cell in LSTM GRU; do cat <<END; done | diff "$folder/seen" - || { echo "That is no longer what was seen."; exit 1; }
$cell, one after the other, export 1: any length
$cell, one after the other, export 2: refused: the length is 5
$cell, one after the other, export 3: refused: the length is 5
$cell, after torch.export, export 1: refused: the length is 5
$cell, after torch.export, export 2: refused: the length is 5
$cell, after torch.export, export 3: refused: the length is 5
$cell, cache emptied, export 1: any length
$cell, cache emptied, export 2: any length
$cell, cache emptied, export 3: any length
END
