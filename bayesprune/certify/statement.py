"""What a certificate says, in one sentence, and what it rests on."""

from __future__ import annotations

from typing import Any

from bayesprune.certify.losses import Loss
from bayesprune.certify.size import kept, percent

ASSUMES = (
    "The calibration rows are independent draws from the source that new rows come from, and were not used "
    "to train, prune or choose any network of the path; alpha, delta, loss, path and rule were fixed before "
    "they were looked at."
)


def statement_of(record: dict[str, Any], loss: Loss) -> str:
    """The guarantee in one sentence.

    Args:
        record: of a certificate.
        loss: what is bounded.
    """
    confidence, rows = percent(1 - record["delta"]), f"{record['calibration']['rows']:,}"
    draw = f"With probability at least {confidence} over the draw of the {rows} calibration rows"
    promise = loss.promise(percent(record["alpha"]))
    if record["certified"] is None:
        return f"Nothing is guaranteed: of no network on the path could it be shown that it {promise}."
    chosen = record["path"][record["certified"]]
    left = kept(chosen, record["reference"]["parameters"])
    read = f", read at its output {record['output']!r}" if "output" in record else ""
    return f"{draw}, the certified network{read}, which {left}, {promise}."
