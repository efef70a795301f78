"""Outputs of a three-class network, drawn so that every risk is known."""

import torch

CASES = ("both right", "broken", "repaired", "both wrong", "wrong in two ways")
"""What candidate and reference make of a row."""

_CANDIDATE = torch.tensor([0, 1, 0, 1, 1])
_REFERENCE = torch.tensor([0, 0, 1, 1, 2])


def rows(case, sure):
    """Outputs for rows whose label is 0.

    Args:
        case: (rows,), positions in CASES.
        sure: (rows,), bool: whether the candidate's confidence is above 0.9.

    Returns:
        Of the candidate (rows, 3), of the reference (rows, 3), labels (rows,).
    """
    height = torch.where(sure, 8.0, 1.0).unsqueeze(1)
    outputs = torch.eye(3)[_CANDIDATE[case]] * height
    return outputs, torch.eye(3)[_REFERENCE[case]] * 8.0, torch.zeros(len(case), dtype=torch.int64)


RISKS = {
    "error": lambda p: p[1] + p[3] + p[4],
    "excess": lambda p: p[1] - p[2],
    "new-errors": lambda p: p[1],
    "disagreement": lambda p: p[1] + p[2] + p[4],
    "selective": lambda p: p[1] + p[3] + p[4],  # where confidence is independent of the case
}
"""Name of a loss → its risk, from the probabilities of the cases."""
