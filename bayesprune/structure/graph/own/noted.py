"""Sizes that modules note as attributes: found by trying, and set so that a class does what its graph does.

A class may read its sizes not from its tensors but from numbers that it has kept: ``self.num_heads``,
``self.split_size``. Which of them they are is nowhere said. So the network is followed along its graph to the
first use of a parameter that gives something else; a number of a module that was being run there gets the
value that it would have for the new sizes; and it keeps it if the network then follows its graph further.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from bayesprune.structure.graph.capture.bind import alike
from bayesprune.structure.graph.own.around import shortcuts
from bayesprune.structure.graph.own.excerpt import Excerpt, Excerpts
from bayesprune.structure.graph.own.noted_values import (
    MOST_VALUES,
    SIZED,
    Change,
    Entries,
    entries_of,
    scaled_by,
    sizes_noted_by,
    values_after,
)
from bayesprune.structure.graph.own.reading import Read, reading
from bayesprune.structure.graph.own.signs import (
    Passed,
    Progress,
    Reference,
    Run,
    Shapes,
    progress_of,
    reference_of,
)
from bayesprune.structure.graph.own.stand_in import KINDS, ZERO, Module, StandIn, modules_gone

MOST_TRIALS = 64
"""Runs for one place at which a network and its graph go apart."""

MOST_IN_VAIN, LEAST_IN_VAIN = 16.0, 4.0
"""How often the network may be run from start to end in vain: for all places at which nothing helps, and for
one of them, whatever the others have taken. A run that stops half way is half of one."""

NEXT = 10**9
"""More values than there are between two uses of parameters."""

RunIn = Callable[[nn.Module, bool], list[Tensor]]
"""Runs a module on the example, in training or not: the tensors of what it returns."""


@dataclass(frozen=True)
class Noted:
    """A size that a module notes, and what it becomes.

    Attributes:
        module: name of the module.
        attribute: its name there.
        value: a whole number, or a list or tuple of them.
    """

    module: str
    attribute: str
    value: Any

    def set_(self, network: nn.Module) -> None:
        """Let the module note it."""
        setattr(network.get_submodule(self.module), self.attribute, self.value)

    def now(self, network: nn.Module) -> Noted:
        """What the module notes now."""
        value = vars(network.get_submodule(self.module))[self.attribute]
        return Noted(self.module, self.attribute, value)

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}".lstrip(".")


def without_shortcuts(network: nn.Module) -> list[Noted]:
    """What lets a network call all of its modules, where something else stands in for some of them."""
    return [Noted(*of) for of in shortcuts(network)]


Trial = Sequence[Noted | StandIn | Excerpt | Module]
"""Changes that are made together."""


@dataclass(frozen=True)
class Found:
    """What came of a search.

    Attributes:
        changes: that are to be made; none where there is a problem.
        module: name of the module in which it goes apart from what it follows; None where it does not.
        problem: what the module raises there, if anything.
        outputs: training or not → what the network returned with all changes, and what it ought to.
    """

    changes: tuple[Noted | StandIn | Excerpt, ...]
    module: str | None = None
    problem: Exception | None = None
    outputs: Mapping[bool, tuple[list[Tensor], list[Tensor]]] = field(default_factory=dict)

    def told(self) -> str:
        """Why the network cannot be of its own class."""
        return told(self.module or "it", self.problem)

    @property
    def excerpts(self) -> list[Excerpt]:
        """Modules that run as their graphs."""
        return [change for change in self.changes if isinstance(change, Excerpt)]


def told(what: str, problem: Exception | None) -> str:
    """Why something cannot be of its own class.

    Args:
        what: does not run, or computes something else.
        problem: that it raises, if it does.
    """
    if problem is None:
        return f"{what} does not compute the same with the sizes that are left"
    said = str(problem).partition("\n")[0].rstrip(".")
    return f"{what} does not run with the sizes that are left ({type(problem).__name__}: {said})"


def noted_sizes(
    network: nn.Module,
    followed: Mapping[bool, nn.Module],
    of: nn.Module,
    run: RunIn,
    before: Shapes,
    gone: Collection[str] = (),
    excerpts: Excerpts | None = None,
) -> Found:
    """Find the sizes that a network notes of parameters that have been cut, and what stands in for lost ones.

    Args:
        network: of the user's class, with the parameters that are left; afterwards it has what was found.
        followed: training or not → what it ought to compute in that mode.
        of: module of the parameters of ``followed``, under the names that they have in the network.
        run: runs a module in a mode, training or not.
        before: name of a parameter → its shape before the cut.
        gone: names of the tensors that went with their sections.
        excerpts: what can be put in the place of a module in which nothing helps.

    Returns:
        What is to be changed so that it computes that; or the module in which nothing helps.
    """
    search, outputs = _Search(network, before, gone, excerpts), dict[bool, Any]()
    for training, graph in followed.items():

        def run_(module: nn.Module, training: bool = training) -> list[Tensor]:
            return run(module, training)

        if outputs:  # what was found in another mode most often serves in this one too
            outputs[training] = _both(network, graph, run_)
            if outputs[training] is not None:
                continue
        reference = reference_of(graph, of, run_)
        progress, done = search.follow(reference, run_)
        if not done:
            return Found((), search.place(progress), progress.problem)
        outputs = {training: (progress.outputs, reference.outputs)}
    return Found((*search.standing.values(), *search.noted.values(), *search.taken.values()), outputs=outputs)


def _both(network: nn.Module, graph: nn.Module, run: Run) -> tuple[list[Tensor], list[Tensor]] | None:
    """What a network returns and what it ought to, if these are alike."""
    try:
        ours = run(network)
    except Exception:  # whatever a forward says to sizes that it was not written for
        return None
    theirs = run(graph)
    return (ours, theirs) if alike(ours, theirs) else None


class _Search:
    """One network whose attributes and modules are changed until it does what a reference does."""

    reference: Reference
    run: Run
    read: Read

    def __init__(
        self, network: nn.Module, before: Shapes, gone: Collection[str], excerpts: Excerpts | None
    ) -> None:
        self.network, self.gone, self.excerpts = network, gone, excerpts
        self.in_vain = 0.0
        self.taken: dict[str, Excerpt] = {}
        self.taken_kinds: set[type] = set()
        self.noted: dict[tuple[str, str], Noted] = {}
        self.original: dict[tuple[str, str], Noted] = {}
        self.standing: dict[str, StandIn] = {}
        self.whole: dict[str, Module] = {}  # what they stand in for
        self.changes = {
            name: [(o, n) for o, n in zip(before[name], parameter.shape, strict=True) if o != n]
            for name, parameter in network.named_parameters()
            if name in before and name not in gone and parameter.ndim == len(before[name])
        }
        self._keep_([StandIn(name, ZERO) for name in modules_gone(network, gone)])

    def follow(self, reference: Reference, run: Run) -> tuple[Progress, bool]:
        """Follow a reference: how far it comes, and whether that is to the end."""
        self.reference, self.run = reference, run
        progress: Progress | None = self._progress()
        while progress is not None and not self._done(progress):
            last = progress
            progress = self._taken_out(last, alike=True) or self._further(last) or self._taken_out(last)
        return (last, False) if progress is None else (progress, True)

    def place(self, progress: Progress) -> str:
        """Name of the innermost module that may read a size other than its parameters' own."""
        modules = [m for m in progress.modules if m in self.names]
        at = [m for m in modules if progress.problem is not None or not isinstance(m, SIZED)]
        return self.names[at[0]] if at else ""

    def _progress(self, known: int = 0, passed: Mapping[nn.Module, Passed] | None = None) -> Progress:
        return progress_of(self.network, self.reference, self.run, known, passed)

    def _done(self, progress: Progress) -> bool:
        outputs = progress.outputs
        return outputs is not None and alike(outputs, self.reference.outputs)

    def _further(self, start: Progress) -> Progress | None:
        """One more size noted, or several, so that the network follows further; None where none helps."""
        modules, ran = self._modules(start), 0.0
        with reading(modules) as self.read:
            base = self._progress(start.uses, start.passed)
        for module in [part for passed in start.passed for part in passed.modules()]:
            self.read.pop(module, None)  # has not been run
        most = max(LEAST_IN_VAIN, MOST_IN_VAIN - self.in_vain)
        left = MOST_TRIALS
        for alternatives in self._trials(base):
            best: tuple[Progress, Trial] | None = None
            for trial in itertools.islice(alternatives, left):
                if ran >= most:
                    break
                best_yet = base if best is None else best[0]
                progress = self._tried(trial, base, best_yet)
                left, ran = left - 1, ran + self._share(progress)
                if self._is_further(progress, best_yet):
                    best = progress, trial
                if self._done(progress) or progress.uses > base.uses:
                    break
            if best is not None:
                self._keep_(best[1])
                return best[0]
        self.in_vain += ran
        return None

    def _is_further(self, progress: Progress, than: Progress) -> bool:
        return self._done(progress) or progress.score > than.score

    def _share(self, progress: Progress) -> float:
        """How much of the network was run."""
        return (progress.uses + 1) / (len(self.reference.uses) + 1)

    def _taken_out(self, start: Progress, alike: bool = False) -> Progress | None:
        """The smallest module at the place that runs as its graph, so that the network follows further.

        Args:
            start: where it is.
            alike: only modules of a class of which another one runs so already.
        """
        if self.excerpts is None or (alike and not self.taken_kinds):
            return None
        names = [self.names[m] for m in start.modules if m in self.names and not isinstance(m, SIZED)]
        why = told("it", start.problem)
        length = {name: self.excerpts.length(name) for name in names if name not in self.taken}
        for name in sorted((name for name in length if length[name]), key=length.__getitem__):
            kind = type(self.network.get_submodule(name))
            if alike and kind not in self.taken_kinds:
                continue
            excerpt = self.excerpts.of(name, why)
            if excerpt is None:
                continue
            progress = self._tried([excerpt], start)
            if self._done(progress) or progress.uses > start.uses:
                self.taken_kinds.add(kind)
                return self._with_others(excerpt, why, progress)
        return None

    def _with_others(self, excerpt: Excerpt, why: str, alone: Progress) -> Progress:
        """Keep an excerpt, and those of modules of its class that have lost units of the same parameters."""
        kind, lost = type(self.network.get_submodule(excerpt.module)), self._lost(excerpt.module)
        names = [
            name for module, name in self.names.items() if type(module) is kind and name != excerpt.module
        ]
        others = [self.excerpts.of(n, why) for n in names if self._lost(n) == lost]  # type: ignore[union-attr]
        together = [other for other in others if other is not None]
        self._keep_([excerpt])
        if together:
            progress = self._tried(together, alone)
            if self._done(progress) or progress.uses >= alone.uses:
                self._keep_(together)
                return progress
        return alone

    def _lost(self, module: str) -> set[str]:
        """Which parameters of a module have lost units, under their names in it."""
        return {name for name, changes in self._below(f"{module}.").items() if changes}

    def _tried(self, trial: Trial, start: Progress, best: Progress | None = None) -> Progress:
        """How far the network gets with changes.

        Modules that it is beyond are not run again, where nothing is changed in them; where it gets further,
        and what they are given could be something else with the changes, they are after all.

        Args:
            trial: the changes, which are taken back.
            start: where it gets without.
            best: where it gets with others; by default to the next use of a parameter.
        """
        passed = {module: of for module, of in start.passed.items() if not self._changes(module, trial)}
        before = []
        for change in trial:
            before.append(change.now(self.network))
            change.set_(self.network)
        try:
            progress = self._progress(start.uses, passed)
            early = any(self.network.get_submodule(change.module) in progress.early for change in trial)
            if early and self._is_further(progress, best or Progress(start.uses, NEXT)):
                progress = self._progress(start.uses)
            return progress
        finally:
            for change in before[::-1]:
                change.set_(self.network)

    def _changes(self, module: nn.Module, trial: Trial) -> bool:
        """Whether changes are made in a module, or are not known to be made elsewhere."""
        name = self.names.get(module)
        return name is None or any(f"{change.module}.".startswith(f"{name}.") for change in trial)

    def _keep_(self, trial: Trial) -> None:
        for change in trial:
            if isinstance(change, Noted):
                key = change.module, change.attribute
                self.original.setdefault(key, change.now(self.network))
                self.noted[key] = change
            elif isinstance(change, Excerpt):
                self._forget_(f"{change.module}.")
                self.taken[change.module] = change
            elif isinstance(change, StandIn):
                self.whole.setdefault(change.module, change.now(self.network))
                self.standing[change.module] = change
            else:
                self.standing.pop(change.module)
            change.set_(self.network)
        self.names = {module: name for name, module in self.network.named_modules()}

    def _forget_(self, inside: str) -> None:
        """What was changed inside of a module that is not run any more."""
        for found in (self.standing, self.taken):
            for name in [name for name in found if f"{name}.".startswith(inside)]:
                del found[name]
        for key in [key for key in self.noted if f"{key[0]}.".startswith(inside)]:
            del self.noted[key]

    # ---- what is tried

    def _trials(self, progress: Progress) -> Iterator[Iterator[Trial]]:
        """Alternatives: what is known of other modules of a class; one change in a module; several in one."""
        modules, near, several = self._modules(progress), self._near(progress), []
        likewise: Trial = [*self._stand_likewise(), *self._likewise()]
        yield iter([likewise] if likewise else [])
        inside = [n for m in modules for n in [*self.standing][::-1] if f"{n}.".startswith(self._prefix(m))]
        ran = [name for name in dict.fromkeys(inside) if self.network.get_submodule(name) in modules]
        for name in ran:
            yield self._instead(name)
        for module in modules:
            read = self.read.get(module)
            names = [name for name in sizes_noted_by(module) if read is None or name in read]
            options = [list(self._options(module, name, near)) for name in names]
            yield ([size] for one in options for size in one)
            several.append([one for one in options if one])
        for options in several:
            pairs = (itertools.product(*pair) for pair in itertools.combinations(options, 2))
            together: list[Trial] = [[one[0] for one in options]] if len(options) > 1 else []
            yield itertools.chain(together, map(list, itertools.chain.from_iterable(pairs)))
        for name in dict.fromkeys(inside):
            yield iter(()) if name in ran else self._instead(name)

    def _modules(self, progress: Progress) -> list[nn.Module]:
        """Modules that may have read a number wrong; behind them those that they are parts of, which may have
        called them in a method of another name than ``forward``."""
        found = dict.fromkeys(module for module in progress.modules if module in self.names)
        for module in list(found):
            name = self.names[module]
            while name:
                name = name.rpartition(".")[0]
                found.setdefault(self.network.get_submodule(name))
        return list(found)

    def _prefix(self, module: nn.Module) -> str:
        """What the names of a module's parts begin with."""
        name = self.names[module]
        return f"{name}." if name else ""

    def _instead(self, name: str) -> Iterator[Trial]:
        """What else could stand in for a module; or for the modules inside of it, so that it runs."""
        yield from ([StandIn(name, kind)] for kind in KINDS if kind != self.standing[name].kind)
        whole = self.whole[name]
        gone = [t.removeprefix(f"{name}.") for t in self.gone if t.startswith(f"{name}.")]
        inside = modules_gone(whole.itself, gone)
        if inside:
            yield [whole, *(StandIn(f"{name}.{part}", ZERO) for part in inside)]

    def _stand_likewise(self) -> list[StandIn]:
        """What stands in for modules of a class stands in for the others that are left at zero."""
        known = {type(self.whole[n].itself): s.kind for n, s in self.standing.items() if s.kind != ZERO}
        kinds = {name: known.get(type(self.whole[name].itself), ZERO) for name in self.standing}
        return [StandIn(name, kind) for name, kind in kinds.items() if kind != self.standing[name].kind]

    def _near(self, progress: Progress) -> list[Change]:
        """Changes of the parameters that are used before and after the place."""
        uses = self.reference.uses[max(0, progress.uses - 1) : progress.uses + 1]
        return [c for names, _ in uses for name in sorted(names) for c in self.changes.get(name, ())]

    def _options(self, module: nn.Module, attribute: str, near: list[Change]) -> Iterator[Noted]:
        """What a module could note of the new sizes instead, the likeliest first."""
        old = self._old(module, attribute)
        own = [c for of in self._below(self._prefix(module)).values() for c in of]
        everywhere = [c for of in self.changes.values() for c in of]
        values = dict.fromkeys([old, *values_after(old, [*near, *own], everywhere)])
        values.pop(entries_of(vars(module)[attribute]), None)
        for value in list(values)[:MOST_VALUES]:
            yield self._size(module, attribute, value)

    def _old(self, module: nn.Module, attribute: str) -> Entries:
        """What it noted of the old sizes."""
        noted = self.original.get((self.names[module], attribute))
        return entries_of(vars(module)[attribute] if noted is None else noted.value)

    def _size(self, module: nn.Module, attribute: str, entries: Entries) -> Noted:
        """In the form in which the module notes it."""
        form = vars(module)[attribute]
        value = entries[0] if type(form) is int else type(form)(entries)
        return Noted(self.names[module], attribute, value)

    def _below(self, below: str) -> dict[str, list[Change]]:
        """Changes of the parameters whose names begin so, under the rest of them."""
        return {t.removeprefix(below): of for t, of in self.changes.items() if t.startswith(below)}

    def _likewise(self) -> list[Noted]:
        """What other modules of a class would note, of the parameters of the same names in them."""
        known = [(size, self._rules(size)) for size in self.noted.values()]
        return [
            self._size(module, size.attribute, scaled)
            for module, name in self.names.items()
            for size, rules in known
            if type(module) is type(self.network.get_submodule(size.module))
            and size.attribute in vars(module)
            and (name, size.attribute) not in self.noted
            and (scaled := self._scaled(module, size.attribute, rules)) is not None
        ]

    def _rules(self, size: Noted) -> list[tuple[str, int]]:
        """Parameters of its module, and which of their changes: a size that is known follows them."""
        module = self.network.get_submodule(size.module)
        old = self._old(module, size.attribute)
        of = self._below(self._prefix(module))
        new = entries_of(size.value)
        return [
            (t, i) for t, changes in of.items() for i, c in enumerate(changes) if scaled_by(old, c) == new
        ]

    def _scaled(self, module: nn.Module, attribute: str, rules: list[tuple[str, int]]) -> Entries | None:
        """A size that follows the first of such changes; None where it stays what it was."""
        of, old = self._below(self._prefix(module)), self._old(module, attribute)
        changes = [of[t][i] for t, i in rules if i < len(of.get(t, ()))]
        scaled = next(filter(None, (scaled_by(old, change) for change in changes)), old)
        return None if scaled == old else scaled
