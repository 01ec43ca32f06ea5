"""One update from the gradients of several steps."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...tree import PyTree, leaves, map
from ..arguments import function, stateful, whole
from ..base import GradientTransformation, with_extra_args_support
from ..leafwise import abs_sq, each, wide
from ..values import increment, zero_count
from .choice import choose

__all__ = [
    "ApplyEvery",
    "MultiSteps",
    "MultiStepsState",
    "ShouldSkipUpdateFunction",
    "apply_every",
    "multi_steps",
    "skip_large_updates",
    "skip_not_finite",
]


class ShouldSkipUpdateFunction(Protocol):
    """Whether to pass over the gradients of one step, and a tree of tensors that tells why."""

    def __call__(self, updates: PyTree, gradient_step: Tensor, params: PyTree) -> tuple[Tensor, PyTree]:
        """A bool 0-dim tensor, and what `MultiStepsState.skip_state` is to hold."""


def skip_not_finite(updates: PyTree, gradient_step: Tensor, params: PyTree) -> tuple[Tensor, dict[str, Tensor]]:
    """Skip gradients that hold a NaN or an infinity: for `multi_steps`.

    >>> skip_not_finite({"w": torch.tensor([1.0, float("inf")])}, torch.tensor(0), None)
    (tensor(True), {'should_skip': tensor(True), 'num_not_finite': tensor(1)})
    """
    bad = [(~torch.isfinite(leaf)).sum() for leaf in leaves(updates)]
    number = torch.stack(bad).sum() if bad else torch.zeros_like(gradient_step, dtype=torch.int64)
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: PyTree, gradient_step: Tensor, params: PyTree, max_squared_norm: float | Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Skip gradients whose squared norm is not below a number, or a NaN: for `multi_steps`, through a partial.

    >>> skip_large_updates({"w": torch.tensor([3.0, 4.0])}, torch.tensor(0), None, max_squared_norm=16.0)
    (tensor(True), {'should_skip': tensor(True), 'norm_squared': tensor(25.)})
    """
    squares = [abs_sq(leaf.to(wide(leaf.dtype))).sum() for leaf in leaves(updates)]
    norm = torch.stack(squares).sum() if squares else torch.zeros_like(gradient_step, dtype=torch.float32)
    skip = ~(norm < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": norm}


class MultiStepsState(NamedTuple):
    """The gradients gathered so far, and the state of the optimizer that gets them."""

    mini_step: Tensor
    """how many have been gathered; int32, 0-dim"""
    gradient_step: Tensor
    """how many updates the optimizer made; int32, 0-dim"""
    inner_opt_state: Any
    acc_grads: PyTree
    """like the parameters"""
    skip_state: PyTree = ()


class MultiSteps(GradientTransformation):
    """What `multi_steps` returns: a transformation that also tells when it has updated."""

    def __new__(
        cls,
        opt: GradientTransformation,
        every_k_schedule: int | Callable[[Tensor], int | Tensor],
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: torch.dtype | None = torch.float32,
    ) -> "MultiSteps":
        """Gather the gradients of `every_k_schedule` steps, and hand their mean to an optimizer.

        The updates of the other steps are zero. With a loss that is a mean over the batch, k steps of equal batches
        make the update that one step of the whole batch would. Beyond the optimizer's own state this costs one buffer
        like the parameters.

        Args:
            opt: the optimizer; where it counts steps, it counts its own updates.
            every_k_schedule: how many steps, at least 1; or a function of the number of updates made.
            use_grad_mean: whether to hand on the mean of the gradients, not their sum.
            should_skip_update_fn: gradients that are passed over as if the step had not been, such as
                `skip_not_finite`.
            accumulator_dtype: of the buffer, which is at least as wide as the parameters. None takes the dtype of the
                parameters, or float32 where these are of half precision.

        Raises:
            ValueError: `every_k_schedule` is less than 1.

        >>> from funcnet.optim import sgd
        >>> rule = MultiSteps(sgd(1.0), 2)
        >>> state = rule.init({"w": torch.ones(1)})
        >>> for gradient in (1.0, 3.0):
        ...     updates, state = rule.update({"w": torch.tensor([gradient])}, state)
        ...     print(updates["w"], bool(rule.has_updated(state)))
        tensor([0.]) False
        tensor([-2.]) True
        """
        if not callable(every_k_schedule):
            whole(every_k_schedule, "every_k_schedule")
        if should_skip_update_fn is not None:
            function(should_skip_update_fn, "should_skip_update_fn", "optim.skip_not_finite")
        link = with_extra_args_support(opt)

        def init(params: PyTree) -> MultiStepsState:
            count = zero_count(params)

            def buffer(leaf: Tensor) -> Tensor:
                dtype = wide(leaf.dtype)
                return torch.zeros_like(leaf, dtype=torch.promote_types(dtype, accumulator_dtype or dtype))

            nothing = map(torch.zeros_like, params)
            skip_state = () if should_skip_update_fn is None else should_skip_update_fn(nothing, count, params)[1]
            return MultiStepsState(count, count.clone(), link.init(params), map(buffer, params), skip_state)

        def update(
            updates: PyTree, state: MultiStepsState, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, MultiStepsState]:
            number = state.mini_step

            def gather(g: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
                total = total + (g - total) / (number + 1) if use_grad_mean else total + g
                return total, total

            def taken() -> tuple[PyTree, MultiStepsState]:
                gathered, total = each(gather, updates, acc_grads=state.acc_grads)
                emits = number == steps - 1

                def emitted() -> tuple[PyTree, Any, PyTree, Tensor]:
                    new, inner = link.update(gathered, state.inner_opt_state, params, **extra)
                    return new, inner, map(torch.zeros_like, total), increment(state.gradient_step)

                def kept() -> tuple[PyTree, Any, PyTree, Tensor]:
                    return map(torch.zeros_like, updates), state.inner_opt_state, total, state.gradient_step

                new, inner, total, gradient_step = choose(emits, emitted, kept)
                mini_step = ((number + 1) % steps).to(number.dtype)
                return new, MultiStepsState(mini_step, gradient_step, inner, total, skip_state)

            steps = every_k_schedule(state.gradient_step) if callable(every_k_schedule) else every_k_schedule
            whole(steps, "the value of every_k_schedule")
            if should_skip_update_fn is None:
                skip_state: PyTree = ()
                return taken()
            skip, skip_state = should_skip_update_fn(updates, state.gradient_step, params)
            if not isinstance(skip, Tensor) or skip.dtype != torch.bool or skip.ndim:
                what = f"{skip.dtype} of shape {tuple(skip.shape)}" if isinstance(skip, Tensor) else type(skip).__name__
                raise ValueError(
                    f"should_skip_update_fn returned a {what}, where a bool 0-dim "
                    "tensor is needed: reduce over the leaves with .any() or .all()."
                )
            skipped = state._replace(skip_state=skip_state)
            new, after = choose(skip, lambda: (map(torch.zeros_like, updates), skipped), taken)
            return new, after

        return super().__new__(cls, *stateful(MultiStepsState, init, update))

    def has_updated(self, state: MultiStepsState) -> Tensor:
        """Whether the last step made an update: bool, 0-dim.

        A step that was skipped right after an update leaves the counts as they were. It is known by a bool
        `should_skip` in `skip_state`, as `skip_not_finite` and `skip_large_updates` have it; with a function of another
        `skip_state` the answer is that of the last step which was not skipped.
        """
        updated = (state.mini_step == 0) & (state.gradient_step > 0)
        skipped = state.skip_state.get("should_skip") if isinstance(state.skip_state, Mapping) else None
        return updated & ~skipped if isinstance(skipped, Tensor) and skipped.dtype == torch.bool else updated

    def gradient_transformation(self) -> GradientTransformation:
        """The transformation itself."""
        return self


multi_steps = MultiSteps


class ApplyEvery(NamedTuple):
    """The place within the period, and the sum of the updates since it began."""

    count: Tensor  # type: ignore[assignment]  # Optax's name, which tuple.count has too
    """int32, 0-dim"""
    grad_acc: PyTree
    """like the parameters"""


def apply_every(k: int = 1) -> GradientTransformation:
    """Sum the updates and let the sum through every k steps; the others are zero.

    Links before it in a chain still move at every step: for gradients of k steps that make one update use
    `multi_steps`. Raises `ValueError` where `k` is less than 1.

    >>> rule = apply_every(2)
    >>> state = rule.init({"w": torch.ones(1)})
    >>> for _ in range(2):
    ...     updates, state = rule.update({"w": torch.ones(1)}, state)
    ...     print(updates["w"])
    tensor([0.])
    tensor([2.])
    """
    whole(k, "k")

    def init(params: PyTree) -> ApplyEvery:
        zeros = map(lambda leaf: torch.zeros_like(leaf, dtype=wide(leaf.dtype)), params)
        return ApplyEvery(count=zero_count(params), grad_acc=zeros)

    def update(updates: PyTree, state: ApplyEvery, params: PyTree = None, **extra: Any) -> tuple[PyTree, ApplyEvery]:
        place = state.count % k

        def leaf(g: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            total = torch.where(place != 0, total, torch.zeros_like(total)) + g
            return torch.where(place == k - 1, total, torch.zeros_like(total)), total

        new, total = each(leaf, updates, grad_acc=state.grad_acc)
        return new, ApplyEvery(count=(increment(state.count) % k).to(state.count.dtype), grad_acc=total)

    return stateful(ApplyEvery, init, update)
