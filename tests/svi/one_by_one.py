"""The slow road to a budget: every step looks at every unit, on slopes of the whole cost."""

import torch

from bayesprune.structure.groups import WHOLE
from bayesprune.svi.fitter import WITHIN


def trim(fitter, keep, candidates, *, high, low, strict):
    """Take out candidates until the ratio is at most ``high``."""
    able = candidates.clone()
    while True:
        ratios, adds = fitter.slopes(keep)
        if float(ratios.max()) <= high:
            return keep
        cost = adds[ratios > min(high, 1.0)].sum(0)
        after = (ratios.unsqueeze(1) - adds).amax(0)
        free = able & keep & (cost > 0)
        fine = free & (after >= low)
        if bool(fine.any()):
            unit = int(torch.where(fine, fitter.gain / cost, torch.inf).argmin())
        elif bool(free.any()) and not strict:
            unit = int(torch.where(free, after, -torch.inf).argmax())
        else:
            return keep
        smaller = keep.clone()
        smaller[unit] = False
        closed = fitter.close(smaller)
        if closed is None or (strict and fitter.ratio(closed) < low):
            able[unit] = False
        else:
            keep = closed


def fill(fitter, keep, candidates):
    """Put candidates back while there is room, the most gain for its cost first, up to the window."""
    able = candidates & ~keep
    while True:
        ratios, adds = fitter.slopes(keep)
        fits = able & ((ratios.unsqueeze(1) + adds) <= 1).all(0) & (adds.sum(0) > 0)
        if float(ratios.max()) >= 1 - WITHIN or not bool(fits.any()):
            return keep
        unit = int(torch.where(fits, fitter.gain / adds.sum(0), -torch.inf).argmax())
        larger = keep.clone()
        larger[[unit, *_partners(fitter, unit, candidates)]], able[unit] = True, False
        closed = fitter.close(larger)
        if closed is not None and bool(closed[unit]) and fitter.ratio(closed) <= 1:
            keep = closed


def _partners(fitter, unit, candidates):
    """One unit of each group that owns a unit's columns with it, the best: alone nobody would read it."""
    parts, slots = fitter.gated.slices(), fitter.gated.network.slots
    group = next(name for name, part in parts.items() if part.start <= unit < part.stop)
    own = next((s for s in slots if s.group == group and s.reads), None)
    if own is None:
        return _inside(fitter, unit - parts[group].start, group, candidates)
    columns = own.unit_ids == unit - parts[group].start
    partners = []
    for slot in slots:
        if (slot.tensor, slot.dim) == (own.tensor, own.dim) and slot.group != group:
            ids = slot.unit_ids[columns & (slot.unit_ids >= 0)].unique()
            shared = parts[slot.group].start + ids
            shared = shared[candidates[shared]]
            if len(shared):
                partners.append(int(shared[fitter.gain[shared].argmax()]))
    return partners


def _inside(fitter, section, group, candidates):
    """The best unit of every group that lives inside a section."""
    parts, slots = fitter.gated.slices(), fitter.gated.network.slots
    owned = {s.tensor for s in slots if s.group == group and int(s.unit_ids[0]) == section}
    owned = {s.tensor for s in slots if s.dim == WHOLE} & owned
    names = {s.group for s in slots if s.reads and s.tensor in owned}
    names -= {s.group for s in slots if s.reads and s.tensor not in owned}
    best = []
    for name in names:
        gain = torch.where(candidates[parts[name]], fitter.gain[parts[name]], -torch.inf)
        best.append(parts[name].start + int(gain.argmax()))
    return best
