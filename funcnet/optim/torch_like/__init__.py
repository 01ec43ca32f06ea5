"""The optimizers of torch.optim, with its argument names, defaults and numbers, as transformations.

The rooms: `common` holds what all rules share, then a file a family. What torch does otherwise than Optax's optimizer
of the same name, where that is not the names of the arguments:

| class | torch.optim, and `from_torch` | Optax, and `optim` |
| --- | --- | --- |
| all | `weight_decay` is added to the gradient, but in AdamW, Adafactor, Muon | a link of its own, decoupled |
| all | `maximize` | `optim.scale(-1)` |
| SGD | `dampening`, which spares the first gradient | none |
| Adam | `amsgrad`: the largest mean of squares, corrected by this step's count | the largest corrected one |
| AdamW | decays by 1e-2 | by 1e-4 |
| Adagrad | the sum begins at 0, and $\\varepsilon$ = 1e-10 outside the root; `lr_decay` | at 0.1, and 1e-7 inside |
| Adadelta | a learning rate of 1 | none, which climbs |
| NAdam | the momentum has a schedule (`momentum_decay`) | it is constant |
| RAdam | $\\varepsilon$ is added to the mean of squares' root before its correction | after |
| RMSprop | `alpha` = 0.99, $\\varepsilon$ outside the root, momentum before the learning rate | 0.9, inside, after |
| Rprop | steps at once | one update late, the first is 0 |
| Adafactor | last two axes, of any size; steps at most $1 / \\sqrt t$ | the longest two, from 128 on; no limit |
| Muon | in bfloat16, for matrices only | in the parameters' dtype, with Adam for the rest |
| LBFGS | up to `max_iter` iterations in one update | one |
| ASGD, SparseAdam | | none |
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch

from ..base import GradientTransformation
from .adams import adam, adamax, adamw, nadam, radam, sparse_adam
from .adaptive import adadelta, adagrad, rmsprop
from .descent import asgd, rprop, sgd
from .lbfgs import lbfgs
from .matrices import adafactor, muon

__all__ = ["from_torch"]

_RULES: dict[str, Callable[..., GradientTransformation]] = {
    "ASGD": asgd,
    "Adadelta": adadelta,
    "Adafactor": adafactor,
    "Adagrad": adagrad,
    "Adam": adam,
    "AdamW": adamw,
    "Adamax": adamax,
    "LBFGS": lbfgs,
    "Muon": muon,
    "NAdam": nadam,
    "RAdam": radam,
    "RMSprop": rmsprop,
    "Rprop": rprop,
    "SGD": sgd,
    "SparseAdam": sparse_adam,
}
_HOW = {"foreach", "capturable", "differentiable", "fused"}  # they change no number


def from_torch(optimizer: str | type[torch.optim.Optimizer], **kwargs: Any) -> GradientTransformation:
    """The transformation whose `update` and `apply_updates` are one step of an optimizer of torch.optim.

    Arguments and defaults are those of the class in the torch that is installed (see the module for what Optax does
    otherwise). Numbers may be 0-dim tensors, and `lr` a schedule, where torch has an `lr_scheduler`. `foreach`,
    `fused`, `capturable` and `differentiable` are taken and change nothing. The state's fields have torch's names; of
    half-precision parameters it is float32, where torch's is of half precision too.

    Args:
        optimizer: a name, such as "Adam", or the class.
        **kwargs: arguments of the class but `params`.

    Raises:
        ValueError: there is no such optimizer; a value is one that torch refuses.
        TypeError: the class has no such argument.

    >>> optimizer = from_torch("SGD", lr=0.1, momentum=0.9, dampening=0.5)
    >>> params = {"w": torch.ones(1)}
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update({"w": torch.ones(1)}, state, params)
    >>> updates["w"], state.momentum_buffer["w"]
    (tensor([-0.1400]), tensor([1.4000]))
    """
    name = optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", repr(optimizer))
    rule, original = _RULES.get(name), getattr(torch.optim, name, None)
    if rule is None or original is None or optimizer not in (name, original):
        near = get_close_matches(name.lower(), [known.lower() for known in _RULES], 1)
        meant = [f"{known!r}" for known in _RULES if known.lower() in near]
        raise ValueError(
            f"there is no {optimizer!r} in torch.optim {torch.__version__}"
            + (f": did you mean {meant[0]}? It has " if meant else ": it has ")
            + ", ".join(known for known in _RULES if hasattr(torch.optim, known))
            + "."
        )
    defaults = {key: p.default for key, p in inspect.signature(original).parameters.items() if key != "params"}
    taken = {key: value for key, value in defaults.items() if key in inspect.signature(rule).parameters}
    unknown = [key for key in kwargs if key not in taken and key not in _HOW & defaults.keys()]
    if unknown:
        raise TypeError(
            f"torch.optim.{name} has no argument {unknown[0]!r}: it takes {', '.join(defaults)}."
            + (" The parameters go to init and update." if unknown[0] == "params" else "")
        )
    return rule(**{key: kwargs.get(key, default) for key, default in taken.items()})
