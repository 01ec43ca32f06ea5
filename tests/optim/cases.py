"""What an entry of the registry is: a call that builds the same transformation or schedule here and in optax."""

from typing import Any, NamedTuple

import hypothesis.strategies as st

COSINE = ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 7, "alpha": 0.1})


class Case(NamedTuple):
    """One call of a factory that both libraries have; arguments may be cases as well.

    `drawn` holds strategies for keyword arguments that the comparison on random trees draws; `extra` names keywords
    that `update` needs ("value": the loss); `tuned` overrides arguments where it has to converge; `without` says which
    contract does not hold, and why: "convergence", "smooth" (derivatives through it), "learning rate" (none to vary),
    "empty" (leaves without elements, in optax), "single" (float32 says nothing).
    """

    name: str
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never changed
    schedule: tuple[str, dict[str, Any]] | None = None  # given as learning_rate where set
    room: str = ""  # "contrib", where optax keeps it there
    drawn: dict[str, st.SearchStrategy[Any]] = {}  # noqa: RUF012
    extra: tuple[str, ...] = ()
    tuned: dict[str, Any] = {}  # noqa: RUF012
    without: dict[str, str] = {}  # noqa: RUF012
    rtol: float = 1e-9  # of optax's values in float64
    single = 1e-5  # and in float32; no field, but for a subclass to change

    def __str__(self):
        text = ", ".join(f"{k}={v!s}" for k, v in self.kwargs.items())
        return f"{self.name}({text}{', ' + self.schedule[0] if self.schedule else ''})"

    def build(self, library, **overrides):
        kwargs = self.kwargs | overrides
        if self.schedule and "learning_rate" not in overrides:
            kwargs["learning_rate"] = getattr(library, self.schedule[0])(**self.schedule[1])
        kwargs = {k: built(v, library) for k, v in kwargs.items()}
        home = getattr(library, self.room) if self.room else library
        return getattr(home, self.name)(**kwargs)

    def keywords(self, step):
        """What `update` is given beside its trees at a step."""
        return {"value": 1.5 / (1 + step)} if "value" in self.extra else {}


def built(value, library):
    """An argument, with the cases in it built."""
    if isinstance(value, Case):
        return value.build(library)
    if isinstance(value, dict):
        return {k: built(v, library) for k, v in value.items()}
    return value
