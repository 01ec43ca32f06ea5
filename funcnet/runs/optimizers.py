"""Optimizers by name."""

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import optim, random
from funcnet.optim import GradientTransformation, Scalar, Schedule, contrib
from funcnet.runs.errors import RunError, known, refusing
from funcnet.runs.grammar import call, parse

__all__ = ["Chosen", "choose", "names"]

Rate = Scalar | Schedule

# Where the function has no default of its own, or no rate at all: what its authors or users begin with. Others: 1e-3.
_RATES = {
    "adadelta": 1.0,
    "adafactor": 0.01,
    "adagrad": 0.01,
    "fromage": 0.01,
    "lars": 0.1,
    "lion": 1e-4,
    "muon": 0.02,
    "noisy_sgd": 0.1,
    "novograd": 0.01,
    "optimistic_gradient_descent": 0.1,
    "rprop": 0.01,
    "sgd": 0.1,
    "sign_sgd": 1e-4,
    "signum": 1e-4,
    "sm3": 0.1,
    "soap": 3e-3,
}
_HIDDEN = ("mask", "weight_decay_mask", "trust_ratio_mask", "key", "linesearch", "params", "base_optimizer")


class Chosen(NamedTuple):
    """An optimizer that lacks its learning rate."""

    text: str
    make: Callable[[Rate | None], GradientTransformation]
    rate: float | None
    """The learning rate that it begins with where none is asked for; None where it finds its own."""
    follows: bool
    """Whether it takes a schedule."""

    def build(self, rate: Rate | None) -> GradientTransformation:
        """The optimizer at this learning rate.

        Raises:
            RunError: an option has a value that it refuses.
        """
        with refusing(repr(self.text)):
            made = self.make(rate)
            made.init({"weight": torch.ones(2, 2)})
            return made


@cache
def _found() -> dict[str, Callable[..., GradientTransformation]]:
    found: dict[str, Callable[..., GradientTransformation]] = {}
    for room in (contrib, optim):
        for name, function in vars(room).items():
            if name.startswith(("_", "scale_by_")) or not inspect.isfunction(function):
                continue
            parameters = inspect.signature(function).parameters
            needed = {p.name for p in parameters.values() if p.default is p.empty}
            if "learning_rate" in parameters and needed <= {"learning_rate"}:
                found[name] = function
    return dict(sorted(found.items()))


def names() -> list[str]:
    """The optimizers of funcnet.optim, by name."""
    return list(_found())


def choose(text: str, weight_decay: float | None = None, key: Tensor | None = None) -> Chosen:
    """The optimizer that a text names: `adamw:b1=0.9,b2=0.95`, or with torch's own arguments `torch:Adam,amsgrad=true`.

    Args:
        text: a name with options.
        weight_decay: goes to the optimizer's own argument where it has one; else this share of the parameters is
            added to the gradient, as torch's SGD and Adam do.
        key: of the noise of those that draw some; default `random.key(0)`.

    Raises:
        RunError: there is no such optimizer or option.

    >>> choose("sgd:momentum=0.9").rate
    0.1
    """
    named = parse(text)
    function: Callable[..., GradientTransformation]
    if named.name == "torch":
        if not named.args:
            raise RunError(f"{text!r} names no class: write torch:Adam or torch:SGD,momentum=0.9.")
        with refusing(repr(text)):
            optim.from_torch(named.args[0], lr=1e-3)
        title = f"torch:{named.args[0]}"
        kind = getattr(torch.optim, named.args[0])
        parameters = {k: p for k, p in inspect.signature(kind).parameters.items() if k != "params"}
        named, argument, function = named._replace(args=named.args[1:]), "lr", partial(optim.from_torch, named.args[0])
        own, follows = float(parameters["lr"].default), True
        takes = list(parameters)
        if named.args:
            raise RunError(f"{text!r}: {named.args[0]!r} is too much. Write torch:SGD,momentum=0.9.")
    else:
        name = title = known(named.name.replace("-", "_"), names(), "optimizer")
        function, argument = _found()[name], "learning_rate"
        parameters = dict(inspect.signature(function).parameters)
        default = parameters[argument].default
        own = _RATES.get(name, 1e-3 if default is inspect.Parameter.empty else default)
        follows = "Callable" in str(parameters[argument].annotation)
        takes = [p for p in parameters if p not in _HIDDEN]
    for option in named.options:
        if option == argument:
            raise RunError(f"{text!r}: write the learning rate as --lr {named.options[argument]}.")
        known(option, takes, f"option of {title}")
    decays = next((p for p in ("weight_decay", "weight_decay_rate") if p in takes), None)
    if decays in named.options and weight_decay is not None:
        raise RunError(f"{text!r} has a weight decay, and {weight_decay} is asked for beside it: leave one out.")

    def make(rate: Rate | None) -> GradientTransformation:
        given: dict[str, Any] = {} if rate is None else {argument: rate}
        if "key" in parameters:
            given["key"] = random.key(0) if key is None else key
        if weight_decay is not None and decays is not None:
            given[decays] = weight_decay
        if named.name == "torch":
            made: GradientTransformation = function(**{**given, **named.options})
        else:
            made = call(named, function, given, _HIDDEN)
        if weight_decay and decays is None:
            return optim.chain(optim.add_decayed_weights(weight_decay), made)
        return made

    return Chosen(text, make, own, follows)
