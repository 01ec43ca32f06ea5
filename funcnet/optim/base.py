"""What a gradient transformation is: the contract that every optimizer here keeps, which is Optax's.

A transformation is two pure functions. `init(params)` returns its state; `update(updates, state, params)` returns new
updates, to be added to the parameters, and the new state. Optimizers are chains of small transformations:

    optimizer = adam(1e-3)
    opt_state = optimizer.init(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)

What every transformation promises:

- `params` is always passed, so that swapping one optimizer for another changes no call;
- updates keep their structure, shapes, dtypes and devices; no argument is changed; nothing returned by `init` shares
  memory with the parameters;
- the state is NamedTuples of tensors: step counts are int32 0-dim tensors, and moments of half-precision parameters
  are float32, since a bfloat16 moment cannot hold `0.999 * nu + 0.001 * g**2`;
- hyperparameters are Python numbers or 0-dim tensors; where the docstring says so, also a schedule. The first update
  uses `schedule(0)`;
- everything works under grad, vmap (over parameters, states and hyperparameters), jvp, jit, and their nestings.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from ..tree import PyTree, flatten, leaves, map, unflatten
from ..tree.mismatch import match
from . import fast

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "TransformInit",
    "TransformUpdate",
    "advance",
    "apply_updates",
    "chain",
    "identity",
]

Scalar: TypeAlias = float | Tensor
"""A Python number, or a 0-dim tensor: to change without a recompile, to vmap over, to differentiate."""

Schedule: TypeAlias = Callable[[Tensor], Scalar]
"""From an int32 0-dim step count, the first being 0, to a value."""

ScalarOrSchedule: TypeAlias = Scalar | Schedule


class TransformInit(Protocol):
    """The first half of a transformation."""

    def __call__(self, params: PyTree) -> Any:
        """The state before the first update, for these parameters; it shares no memory with them."""


class TransformUpdate(Protocol):
    """The second half of a transformation."""

    def __call__(self, updates: PyTree, state: Any, params: PyTree, **extra: Any) -> tuple[PyTree, Any]:
        """Turn updates (at first the gradients) into new updates, and the state into the next.

        `extra` holds what only some rules use (a loss value, a Hessian's diagonal): a chain hands it to all, and a
        rule takes what it knows and ignores the rest.
        """


class GradientTransformation(NamedTuple):
    """A pair of pure functions, `init(params)` and `update(updates, state, params, **extra)`."""

    init: TransformInit
    update: TransformUpdate


class Advancing(GradientTransformation):
    """A transformation that can also add its updates to the parameters, which spares eager steps fresh memory."""

    advance: Callable[..., tuple[PyTree, Any]]

    @classmethod
    def of(cls, transformation: GradientTransformation, advance: Callable[..., tuple[PyTree, Any]]) -> "Advancing":
        """The same transformation, with `advance(updates, state, params, **extra) -> (params, state)`."""
        new = cls(*transformation)
        new.advance = advance
        return new


def advance(
    optimizer: GradientTransformation, updates: PyTree, state: Any, params: PyTree, **extra: Any
) -> tuple[PyTree, Any]:
    """`update` and `apply_updates` in one: the new parameters, and the new state.

    >>> from funcnet.optim import scale
    >>> advance(scale(-0.5), {"w": torch.tensor(2.0)}, EmptyState(), {"w": torch.tensor(3.0)})
    ({'w': tensor(2.)}, EmptyState())
    """
    if isinstance(optimizer, Advancing):
        return optimizer.advance(updates, state, params, **extra)
    updates, state = optimizer.update(updates, state, params, **extra)
    return apply_updates(params, updates), state


class EmptyState(NamedTuple):
    """The state of a rule that remembers nothing."""


def init_empty(params: PyTree) -> EmptyState:
    """The `init` of a rule that remembers nothing."""
    return EmptyState()


def identity() -> GradientTransformation:
    """Leave the updates as they are.

    >>> identity().update({"w": 1.0}, EmptyState(), {"w": 2.0})
    ({'w': 1.0}, EmptyState())
    """
    return GradientTransformation(init_empty, lambda updates, state, params, **extra: (updates, state))


def chain(*args: GradientTransformation) -> GradientTransformation:
    """Apply transformations one after another; the state is the tuple of their states.

    Raises `ValueError` where the state was made by a chain of another length.

    >>> from funcnet.optim import scale
    >>> double_twice = chain(scale(2.0), scale(2.0))
    >>> updates, state = double_twice.update({"w": torch.tensor(1.0)}, (EmptyState(), EmptyState()), None)
    >>> updates["w"].item()
    4.0
    """

    def init(params: PyTree) -> tuple[Any, ...]:
        return tuple(link.init(params) for link in args)

    def run(
        links: Sequence[GradientTransformation], updates: PyTree, state: Sequence[Any], params: PyTree, extra: Any
    ) -> tuple[PyTree, tuple[Any, ...]]:
        new_states = []
        for link, own in zip(links, state, strict=True):
            updates, new = link.update(updates, own, params, **extra)
            new_states.append(new)
        return updates, tuple(new_states)

    def check(state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != len(args):
            found = f"a tuple of {len(state)}" if isinstance(state, tuple) else f"a {type(state).__name__}"
            raise ValueError(
                f"chain.update got {found} as state for {len(args)} transformations: pass what optimizer.init(params) "
                "or the last update returned; the order is update(updates, state, params)."
            )

    def update(updates: PyTree, state: tuple[Any, ...], params: PyTree, **extra: Any) -> tuple[PyTree, tuple[Any, ...]]:
        check(state)
        return run(args, updates, state, params, extra)

    def advancing(
        updates: PyTree, state: tuple[Any, ...], params: PyTree, **extra: Any
    ) -> tuple[PyTree, tuple[Any, ...]]:
        check(state)
        updates, states = run(args[:-1], updates, state[:-1], params, extra)
        params, last = advance(args[-1], updates, state[-1], params, **extra)
        return params, (*states, last)

    whole = GradientTransformation(init, update)
    return Advancing.of(whole, advancing) if args and isinstance(args[-1], Advancing) else whole


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
    return unflatten(treedef, [(p + u).to(p.dtype) for p, u in zip(values, added, strict=True)])


def scaled(updates: PyTree, factor: Scalar) -> PyTree:
    """Every leaf times one number, in the leaf's dtype."""
    values, treedef = flatten(updates)
    if fast.usable(values) and fast.is_constant(factor):
        return unflatten(treedef, fast.scale(values, factor))
    return unflatten(treedef, [(value * factor).to(value.dtype) for value in values])


def increment(count: Tensor) -> Tensor:
    """The next step count, which stays at the largest int32 rather than wrap to a negative one."""
    return count.clamp(max=torch.iinfo(torch.int32).max - 1) + 1


def zero_count(params: PyTree) -> Tensor:
    """A step count of 0, an int32 0-dim tensor on the device of the parameters."""
    first = next((leaf for leaf in leaves(params) if isinstance(leaf, Tensor)), None)
    return torch.zeros((), dtype=torch.int32, device=None if first is None else first.device)


def moment_zeros(params: PyTree, dtype: torch.dtype | None = None) -> PyTree:
    """Zeros to accumulate in: of the given dtype, else the parameter's, or float32 where that is of half precision."""
    return map(lambda leaf: torch.zeros_like(leaf, dtype=dtype or wide(leaf.dtype)), params)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of `dtype` may be accumulated: at least float32."""
    if dtype.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return torch.promote_types(dtype, torch.float32)


def scalar(value: Scalar, name: str) -> Scalar:
    """Check a hyperparameter: a number or a 0-dim tensor.

    Raises `TypeError` for anything else, and `ValueError` for a tensor with axes, which would broadcast.
    """
    if isinstance(value, Tensor):
        if value.ndim:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, where one value is needed: it would broadcast against every "
                f"leaf. For one value per member write vmap over it, as in vmap(lambda {name}: ...)(values)."
            )
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a {type(value).__name__}, not a number or a 0-dim tensor: write {name}=1e-3.")
    return value


def is_schedule(value: ScalarOrSchedule, name: str) -> "TypeIs[Schedule]":
    """Whether a hyperparameter is a schedule; anything that is neither that nor a scalar raises `TypeError`."""
    if isinstance(value, Tensor | int | float) and not isinstance(value, bool):
        scalar(value, name)
        return False
    if not callable(value) or isinstance(value, torch.nn.Module | type):
        raise TypeError(
            f"{name} is a {type(value).__name__}, not a number, a 0-dim tensor or a schedule: write {name}=1e-3, or a "
            f"function of the step count such as {name}=optim.cosine_decay_schedule(1e-3, 1000)."
        )
    return True


def value_at(schedule: Schedule, count: Tensor, name: str) -> Scalar:
    """The value of a schedule, checked to be one value."""
    return scalar(schedule(count), f"the value of the schedule {name}")
