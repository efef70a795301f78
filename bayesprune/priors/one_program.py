"""All groups' priors as one Pyro program: a site that several of them name is one site.

A prior is called once for each group. What it names ``f"rate/{group.name}"`` is the group's own; what it
names ``"rate"`` alone is drawn for the first group that asks, and given to the others as it is: Pyro's
handlers outside see it once, so that it is scored, and paid for, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from bayesprune.errors import PriorError
from bayesprune.priors.summed import Choices


class StoredParameters(nn.Module):
    """What a program asks Pyro's store for by ``pyro.param``, kept here as parameters of the model.

    Values are on the constrained space that the program named when it first asked; parameters are not. Pyro's
    global store, which two models would share, never hears of them.

    Attributes:
        unconstrained: name → parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unconstrained = nn.ParameterDict()
        self._constraints: dict[str, constraints.Constraint] = {}
        self.open = True
        """Whether names may still be added: while ``gate`` looks at the program."""

    def value(
        self,
        name: str,
        init: Tensor | Callable[[], Tensor] | None = None,
        constraint: constraints.Constraint = constraints.real,
        event_dim: int | None = None,
    ) -> Tensor:
        """The value of a parameter, made from ``init`` where there is none of that name.

        Args:
            name: as the program calls it.
            init: (...), where it starts, or a function that returns that.
            constraint: where it lives.
            event_dim: of the store's; of no meaning here, since no plate is subsampled.

        Raises:
            PriorError: it is new and has no start, or no real one, or comes after ``gate``.
        """
        key = parameter_name(name)
        if key not in self.unconstrained:
            self.unconstrained[key] = nn.Parameter(self._start(name, init, constraint))
            self._constraints[key] = constraint
        value: Tensor = transform_to(self._constraints[key])(self.unconstrained[key])
        return value

    def _start(self, name: str, init: Any, constraint: constraints.Constraint) -> Tensor:
        if not self.open:
            raise PriorError(
                f"The prior asks for pyro.param({name!r}), which it had not asked for when gate() ran it, so "
                "that nobody learns it: ask for every parameter in every run of the program."
            )
        start = init() if callable(init) else init
        if not isinstance(start, Tensor) or not start.is_floating_point():
            raise PriorError(
                f"pyro.param({name!r}) of the prior starts from {start!r}: give it a tensor of real numbers, "
                f"pyro.param({name!r}, torch.tensor(0.0))."
            )
        found: Tensor = transform_to(constraint).inv(start.detach().clone())
        if not bool(found.isfinite().all()):
            raise PriorError(
                f"pyro.param({name!r}) of the prior starts from {start.tolist()}, which is not inside of its "
                f"constraint {constraint}: start it there."
            )
        return found.detach().clone()


def parameter_name(site: str) -> str:
    """A site's name as a parameter's: those must not hold dots."""
    return site.replace(".", "|")


class OneProgram(Messenger):
    """While it is on, the runs of a prior, or of its guide, for one group after another are one program.

    Args:
        stored: what ``pyro.param`` reads.
        summed: discrete sites that are summed out: they get the value that ``choices`` says, and the handlers
            outside never see them.
        values: of sites that are known; they are not drawn, nor seen by the handlers outside.

    Attributes:
        seen: site → value, of all groups so far.
        choices: of the present run.
    """

    def __init__(
        self,
        stored: StoredParameters,
        summed: frozenset[str] = frozenset(),
        values: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.stored, self.summed = stored, summed
        self.seen: dict[str, Tensor] = dict(values or {})
        self.choices = Choices(())
        self._here: set[str] = set()
        self._store = pyro.get_param_store()
        self._scope = self._store.scope()

    def __enter__(self) -> OneProgram:
        self._scope.__enter__()  # PyroModules write what they hold into the store
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._scope.__exit__(*raised)

    def begin(self, prefix: tuple[int, ...] = ()) -> Choices:
        """The next run of the program, for a group or for other values of what is summed out."""
        self._here.clear()
        self.choices = Choices(prefix)
        return self.choices

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if is_plate(msg["fn"]):
            self._plate(msg)
        elif name in self.summed:
            self._known(msg, self.choices.take(name, msg["fn"]))
        elif name in self.seen and name not in self._here:
            self._known(msg, self.seen[name])
        self._here.add(name)  # a site that one run names twice is Pyro's to complain of

    def _pyro_post_sample(self, msg: Any) -> None:
        self.seen.setdefault(msg["name"], msg["value"])

    def _pyro_param(self, msg: Any) -> None:
        read, name, init = msg["fn"], msg["name"], (*msg["args"], None)[1]
        if isinstance(init, nn.Parameter):  # a module's, which holds it itself
            self._known(msg, transform_to(msg["kwargs"].get("constraint", constraints.real))(init))
            return
        if read == self._store.get_param and name not in self._store:
            read = self.stored.value
        self._known(msg, read(*msg["args"], **msg["kwargs"]))

    def _plate(self, msg: Any) -> None:
        size, part = msg["fn"].size, msg["fn"].subsample_size
        if part is not None and part < size:
            raise PriorError(
                f"Plate {msg['name']!r} of the prior takes {part} of its {size} places at a time: a prior "
                "speaks of all gates in every run, so leave subsample_size out."
            )
        if msg["name"] in self.seen:  # a plate is no random variable: another group's may be of another size
            self._known(msg, torch.arange(size) if msg["value"] is None else msg["value"])

    @staticmethod
    def _known(msg: Any, value: Any) -> None:
        msg["value"], msg["done"], msg["stop"] = value, True, True


def is_plate(fn: Any) -> bool:
    """Whether a site is that of a ``pyro.plate``, which is no random variable."""
    return type(fn).__name__ == "_Subsample"
