"""What a gradient transformation is: the contract that every optimizer here keeps, which is Optax's.

A transformation is two pure functions. `init(params)` returns its state; `update(updates, state, params)` returns new
updates, to be added to the parameters, and the new state. Optimizers are chains of small transformations:

    optimizer = adam(1e-3)
    opt_state = optimizer.init(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)

What every transformation promises:

- pass `params` always, so that swapping one optimizer for another changes no call: a rule that needs them says so;
- updates keep their structure, shapes, dtypes and devices; no argument is changed; nothing returned by `init` shares
  memory with the parameters;
- the state is NamedTuples of tensors: step counts are int32 0-dim tensors, and moments of half-precision parameters
  are float32, since a bfloat16 moment cannot hold `0.999 * nu + 0.001 * g**2`;
- hyperparameters are Python numbers or 0-dim tensors; where the docstring says so, also a schedule. The first update
  uses `schedule(0)`;
- everything works under grad, vmap (over parameters, states and hyperparameters), jvp, jit, and their nestings.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from ..tree import PyTree, flatten, unflatten
from ..tree.mismatch import match
from . import fast
from .giving import keeps, may_give
from .placing import placed

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "OptState",
    "Params",
    "TransformInit",
    "TransformUpdate",
    "Updates",
    "advance",
    "apply_updates",
    "chain",
    "identity",
    "init_empty_state",
    "named_chain",
    "stateless",
    "with_extra_args",
    "with_extra_args_support",
]

Params: TypeAlias = PyTree
Updates: TypeAlias = PyTree
OptState: TypeAlias = Any


class TransformInit(Protocol):
    """The first half of a transformation."""

    def __call__(self, params: PyTree) -> Any:
        """The state before the first update, for these parameters; it shares no memory with them."""


class TransformUpdate(Protocol):
    """The second half of a transformation."""

    def __call__(self, updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        """Turn updates (at first the gradients) into new updates, and the state into the next.

        `extra` holds what only some rules use (a loss value, a Hessian's diagonal): a chain hands it to all, and a
        rule takes what it knows and ignores the rest.
        """


class GradientTransformation(NamedTuple):
    """A pair of pure functions, `init(params)` and `update(updates, state, params, **extra)`."""

    init: TransformInit
    update: TransformUpdate


GradientTransformationExtraArgs = GradientTransformation


class Advancing(GradientTransformation):
    """A transformation that can also add its updates to the parameters, which spares eager steps fresh memory."""

    advance: Callable[..., tuple[PyTree, Any]]

    @classmethod
    def of(cls, transformation: GradientTransformation, advance: Callable[..., tuple[PyTree, Any]]) -> "Advancing":
        """The same transformation, with `advance(updates, state, params, donate, **extra) -> (params, state)`."""
        new = cls(*transformation)
        new.advance = advance
        return new


def advance(
    optimizer: GradientTransformation,
    updates: PyTree,
    state: Any,
    params: PyTree,
    *,
    donate: bool = False,
    **extra: Any,
) -> tuple[PyTree, Any]:
    """`update` and `apply_updates` in one: the new parameters, and the new state.

    With `donate=True` an eager step may write the new values into the memory of the old `state` and `params`, as
    torch.optim does: reading a tensor that was written over raises `DonatedTensorError` afterwards. Parameters are
    where the optimizer ends in a learning rate, and the state as well in `adam`, `adamw` and `sgd`. Under transforms
    and in `jit`, which has `donate` of its own, and for tensors of a subclass (DTensor) it changes nothing.

    Raises `ValueError` where leaves that are donated share memory with each other or with the updates.

    >>> from funcnet.optim import scale
    >>> advance(scale(-0.5), {"w": torch.tensor(2.0)}, EmptyState(), {"w": torch.tensor(3.0)})
    ({'w': tensor(2.)}, EmptyState())
    """
    if params is None:
        raise ValueError("advance needs the parameters: write optim.advance(optimizer, grads, state, params).")
    if isinstance(optimizer, Advancing):
        return optimizer.advance(updates, state, params, donate and may_give(params, state, updates), **extra)
    updates, state = optimizer.update(updates, state, params, **extra)
    return apply_updates(params, updates), state


class EmptyState(NamedTuple):
    """The state of a rule that remembers nothing."""


def init_empty_state(params: PyTree) -> EmptyState:
    """The `init` of a rule that remembers nothing.

    >>> init_empty_state({"w": torch.ones(1)})
    EmptyState()
    """
    return EmptyState()


def needed(params: PyTree, name: str) -> PyTree:
    """The parameters, for a rule that cannot do without."""
    if params is None:
        raise ValueError(f"{name} needs the parameters: write optimizer.update(grads, state, params).")
    return params


def extra_argument(extra: dict[str, Any], name: str, rule: str, example: str) -> Any:
    """One of the further keywords of `update`, for a rule that cannot do without."""
    if extra.get(name) is None:
        raise ValueError(f"{rule} needs {name}: write optimizer.update(grads, state, params, {name}={example}).")
    return extra[name]


def with_extra_args_support(tx: GradientTransformation) -> GradientTransformation:
    """Let a transformation of your own be given keywords that it does not take: they are dropped.

    Every transformation here takes them already and comes back as it is. Raises `TypeError` for what is none.

    >>> half = GradientTransformation(init_empty_state, lambda updates, state, params=None: (updates, state))
    >>> with_extra_args_support(half).update(1.0, EmptyState(), value=2.0)
    (1.0, EmptyState())
    """
    if not hasattr(tx, "init") or not hasattr(tx, "update"):
        raise TypeError(
            f"a {type(tx).__name__} is no gradient transformation: call the factory, as in optim.adam(1e-3), or write "
            "optim.GradientTransformation(init, update)."
        )
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(tx.update).parameters.values()):
        return tx
    plain: Callable[..., tuple[PyTree, Any]] = tx.update
    return GradientTransformation(tx.init, lambda updates, state, params=None, **extra: plain(updates, state, params))


with_extra_args = with_extra_args_support


def identity() -> GradientTransformation:
    """Leave the updates as they are.

    >>> identity().update({"w": 1.0}, EmptyState(), {"w": 2.0})
    ({'w': 1.0}, EmptyState())
    """
    return _IDENTITY


def stateless(f: Callable[[PyTree, PyTree], PyTree]) -> GradientTransformation:
    """The transformation of a function `f(updates, params) -> updates` that remembers nothing.

    >>> rule = stateless(lambda updates, params: {"w": updates["w"] + params["w"]})
    >>> rule.update({"w": torch.ones(1)}, rule.init(None), {"w": torch.ones(1)})[0]
    {'w': tensor([2.])}
    """
    return GradientTransformation(
        init_empty_state, lambda updates, state, params=None, **extra: (f(updates, params), state)
    )


_IDENTITY = stateless(lambda updates, params: updates)


def chain(*args: GradientTransformation) -> GradientTransformation:
    """Apply transformations one after another; the state is the tuple of their states.

    Raises `ValueError` where the state was made by a chain of another length.

    >>> from funcnet.optim import scale
    >>> double_twice = chain(scale(2.0), scale(2.0))
    >>> updates, state = double_twice.update({"w": torch.tensor(1.0)}, (EmptyState(), EmptyState()), None)
    >>> updates["w"].item()
    4.0
    """
    return _chained([with_extra_args_support(link) for link in args], tuple, tuple, "tuple")


def named_chain(*args: tuple[str, GradientTransformation]) -> GradientTransformation:
    """A chain of `(name, transformation)`, whose state is a dict by these names.

    Raises `ValueError` where two have one name, or the state has others.

    >>> from funcnet.optim import scale
    >>> named_chain(("double", scale(2.0)), ("halve", scale(0.5))).init(None)
    {'double': EmptyState(), 'halve': EmptyState()}
    """
    names = [name for name, _ in args]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"named_chain got two transformations of the name {twice!r}: its state has one place for it.")
    links = [with_extra_args_support(link) for _, link in args]
    return _chained(
        links,
        lambda states: dict(zip(names, states, strict=True)),
        lambda state: [state[name] for name in names if name in state],
        "dict",
    )


def _chained(
    links: Sequence[GradientTransformation],
    pack: Callable[[Sequence[Any]], Any],
    unpack: Callable[[Any], Sequence[Any]],
    kind: str,
) -> GradientTransformation:
    def run(
        links: Sequence[GradientTransformation], updates: PyTree, state: Sequence[Any], params: PyTree, extra: Any
    ) -> tuple[PyTree, list[Any]]:
        new_states = []
        for link, own in zip(links, state, strict=True):
            updates, new = link.update(updates, own, params, **extra)
            new_states.append(new)
        return updates, new_states

    def unpacked(state: Any) -> Sequence[Any]:
        states = unpack(state) if type(state).__name__ == kind else None
        if states is None or len(states) != len(links):
            found = f"a {kind} of {len(state)}" if states is not None else f"a {type(state).__name__}"
            raise ValueError(
                f"chain.update got {found} as state for {len(links)} transformations: pass what optimizer.init(params) "
                "or the last update returned; the order is update(updates, state, params)."
            )
        return states

    def init(params: PyTree) -> Any:
        return pack([link.init(params) for link in links])

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        updates, states = run(links, updates, unpacked(state), params, extra)
        return updates, pack(states)

    # The last that changes anything.
    last = next((n for n in reversed(range(len(links))) if links[n] is not _IDENTITY), 0)

    def advancing(updates: PyTree, state: Any, params: PyTree, donate: bool, **extra: Any) -> tuple[PyTree, Any]:
        states = unpacked(state)
        updates, before = run(links[:last], updates, states[:last], params, extra)
        donate = donate and not keeps(before, params)  # a rule may remember where it was
        params, own = cast(Advancing, links[last]).advance(updates, states[last], params, donate, **extra)
        return params, pack([*before, own, *states[last + 1 :]])

    whole = GradientTransformation(init, update)
    return Advancing.of(whole, advancing) if links and isinstance(links[last], Advancing) else whole


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    r"""Add updates to parameters, $\theta \leftarrow \theta + u$, in the parameters' dtypes.

    Raises `TreeMismatchError` where names or shapes differ: nothing is broadcast.

    >>> apply_updates({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, -0.5])})
    {'w': tensor([1.5000, 1.5000])}
    """
    added = match(updates, params, "updates", "params")
    values, treedef = flatten(params)
    if fast.usable(values, added):
        return unflatten(treedef, fast.add(values, added))
    return unflatten(treedef, [(p + u).to(p.dtype) for p, u in zip(values, placed(added, values), strict=True)])
