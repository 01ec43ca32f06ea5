"""`check_parameter_count` and `check_seeded`: what a model holds, and where its randomness comes from."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from funcnet import MissingKeyError, Model, counts, random, tree
from funcnet.testing.agreement import raised_in
from funcnet.testing.failures import CheckError, compare, explain
from funcnet.testing.subjects import (
    Call,
    ModelCase,
    Subject,
    cases,
    examine,
    is_model,
    model_calls,
    model_case,
    model_of,
)

__all__ = ["check_parameter_count", "check_seeded"]

_KEYS = 64
_ENOUGH = 8  # numbers: fewer may well be dropped alike for every key


def check_parameter_count(subject: Subject, expected: int | Mapping[str, int] | None = None) -> str:
    """Hold that a model has as many parameters as it should.

    Every torch layer must hold what its hyperparameters say (`funcnet.counts`); a layer that is parametrized or hooked
    is passed by. A tied tensor counts once.

    Args:
        subject: a `Model`, a built module or a module's class.
        expected: how many the whole model has, or how many each of some submodules has, by path.

    Returns:
        How many there are.

    Raises:
        CheckError: naming the submodule, with its formula.

    >>> check_parameter_count(nn.Conv2d(3, 16, 3), (3 * 3 * 3 + 1) * 16)
    '448 parameters'
    >>> check_parameter_count(nn.Sequential(nn.Linear(256, 10, bias=False)), {"0": 2570})
    Traceback (most recent call last):
    ...
    funcnet.testing.CheckError: check_parameter_count: submodule '0' (Linear) has 2560 parameters, expected 2570: \
256*10.
    """
    model, _, params, state = model_of(subject, random.key(0))
    module, rows = model.bind(params, state), counts.parameters(model).rows
    for row in rows:
        layer = module.get_submodule(row.path)
        held = sum(p.numel() for p in layer.parameters())
        if row.expected is not None and held != row.expected and _is_plain(layer):
            raise _miscounted(
                row.path, row.kind, f"holds {held} parameters where its sizes make {row.expected.formula}"
            )
    totals = {"": expected} if isinstance(expected, int) else expected or {}
    for path, total in totals.items():
        mine = [row for row in rows if not path or row.path == path or row.path.startswith(f"{path}.")]
        if not mine:
            raise ValueError(f"{model!r} has no submodule {path!r} to count.")
        found = sum(row.count for row in mine)
        if found != total:
            terms = "; ".join(
                f"{row.path}: {row.formula}" if row.path != path else row.formula for row in mine if row.count
            )
            raise _miscounted(
                path, mine[0].kind, f"has {found} parameters, expected {total}: {terms or 'none of its own'}"
            )
    return f"{sum(row.count for row in rows)} parameters"


def _is_plain(layer: nn.Module) -> bool:
    """Whether torch's own formula must hold: other classes, parametrizations and hooks may add what they like."""
    own = type(layer).__module__.startswith("torch.nn.")
    return own and not parametrize.is_parametrized(layer) and not layer._forward_pre_hooks


def _miscounted(path: str, kind: str, what: str) -> CheckError:
    where = f"submodule {path!r} ({kind})" if path else f"the model ({kind})"
    return CheckError(f"check_parameter_count: {where} {what}.", check="parameter_count", submodule=path or None)


def check_seeded(subject: Subject, *example: Any, key: Tensor | None = None) -> str:
    """Hold that randomness comes from the key: the same key, the same draws; another key, others; no key, an error.

    For a model: `init` is a function of its key, and different keys give different parameters; training draws from its
    key alone, and raises `MissingKeyError` without; evaluation needs none. A function is called as `f(key, *example)`.

    Args:
        subject: a function of a key, a `Model`, a built module or a module's class.
        *example: what it is called with; after the key, for a function.
        key: the first key. Default `random.key(0)`.

    Returns:
        What draws, in a phrase.

    Raises:
        CheckError: naming the leaf, the index and the submodule.

    >>> check_seeded(random.normal, (3,))
    'draws'
    >>> import torch
    >>> check_seeded(nn.Dropout, torch.ones(8))
    'training draws'
    """

    def body(subject: Subject, example: tuple[Any, ...], key: Tensor) -> str:
        if not is_model(subject):
            (call,) = cases(subject, (key, *example), key)
            _same_draws(call)
            _other_draws(call, 0, key)
            return "draws"
        case = model_case(subject, example, key)
        if not case.built:
            _check_init(case.model, key)
        if case.needs_key:
            raise _draws_in_evaluation(case)
        evaluation, training = model_calls(case)
        _same_draws(evaluation)
        _same_draws(training)
        params, state = case.params, case.state
        try:
            without = case.model.apply(params, state, *example, train=True)
        except MissingKeyError:
            _other_draws(training, 2, key)
            return "training draws"
        again = case.model.apply(params, state, *example, train=True)
        difference = compare(again, without, exact=True)
        if difference is not None:
            raise CheckError(f"{training.title} draws from elsewhere than the key: {difference} as before.")
        return "draws nothing"

    return examine("seeded", body, subject, example, key)


def _check_init(model: Model, key: Tensor) -> None:
    first, second, other = model.init(key), model.init(key), model.init(random.fold_in(key, 1))
    difference = compare(second, first, exact=True)
    if difference is not None:
        kind, _, name = difference.leaf.partition(".")
        what = "params" if kind == "0" else "state"
        raise CheckError(
            f"{model!r}.init(key) is not a function of its key: {what} leaf {name!r} at index {difference.place} is "
            f"{difference.got} at a second call, and was {difference.want}. Draw in the constructor with torch, whose "
            f"draws come from the key; numpy's and Python's do not.",
            leaf=f"{what}.{name}",
            index=difference.place,
            submodule=name.rpartition(".")[0] or None,
        )
    varied = [name for name, leaf in first[0].items() if leaf.numel() > 1 and bool((leaf != leaf.flatten()[0]).any())]
    if varied and compare(other[0], first[0], exact=True) is None:
        raise CheckError(
            f"{model!r}.init gives the same parameters for every key: {varied[0]!r} among them. Draw them in the "
            f"constructor with torch's own functions; for pretrained weights write Model.from_module(module).",
            leaf=f"params.{varied[0]}",
            submodule=varied[0].rpartition(".")[0] or None,
        )


def _draws_in_evaluation(case: ModelCase) -> CheckError:
    try:
        case.model(case.params, case.state, *case.example)
    except MissingKeyError as error:
        return CheckError(
            f"{case.model!r} draws random numbers in evaluation: {explain(error)} A functional dropout wants "
            f"training=self.training.",
            submodule=raised_in(error),
        )
    return CheckError(f"{case.model!r} draws random numbers in one evaluation and not in the next.")


def _same_draws(call: Call) -> None:
    difference = compare(call.f(*call.args), call.f(*call.args), exact=True)
    if difference is not None:
        raise CheckError(
            f"{call.title} draws other numbers for the same key: {difference}.",
            leaf=difference.leaf,
            index=difference.place,
        )


def _other_draws(call: Call, position: int, key: Tensor) -> None:
    """Some key must make a difference."""
    first = call.f(*call.args)
    for other in random.split(key, _KEYS):
        args = (*call.args[:position], other, *call.args[position + 1 :])
        if compare(call.f(*args), first, exact=True) is not None:
            return
    if tree.size(first) < _ENOUGH:
        return
    raise CheckError(f"{call.title} draws, and gives the same result for {_KEYS} different keys: its key is ignored.")
