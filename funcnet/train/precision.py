"""Which numbers a step keeps, computes with and returns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from funcnet import tree

__all__ = ["POLICIES", "Precision"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Precision:
    """A policy of dtypes: what parameters are kept in, what is computed with, and what comes out.

    Only floating leaves are cast; keys, labels and counts stay.

    Args:
        param: of the parameters, and so of their gradients and of the optimizer.
        compute: of the parameters and inputs inside the loss.
        output: of its value and metrics.
        autocast: the dtype of `torch.autocast`, which chooses operation by operation, instead of casting everything.
        tf32: whether matrix products of float32 on a GPU may round their inputs to 10 bits; see `around`.

    >>> policy = Precision.named("bfloat16")
    >>> policy.cast_inputs({"x": torch.ones(1), "label": torch.tensor(3)})
    {'x': tensor([1.], dtype=torch.bfloat16), 'label': tensor(3)}
    """

    param: torch.dtype = torch.float32
    compute: torch.dtype = torch.float32
    output: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    tf32: bool = False

    def __post_init__(self) -> None:
        """Check the dtypes."""
        for name in ("param", "compute", "output", "autocast"):
            dtype = getattr(self, name)
            if not (dtype is None and name == "autocast") and not (
                isinstance(dtype, torch.dtype) and dtype.is_floating_point
            ):
                raise TypeError(
                    f"Precision got {name}={dtype!r}, which is no floating dtype. Write {name}=torch.bfloat16, or a "
                    "whole policy by its name: Precision.named('bfloat16')."
                )

    @classmethod
    def named(cls, name: str) -> "Precision":
        """The policy of a name: float32, tf32, float64, bfloat16, float16, autocast-bfloat16, autocast-float16.

        "bfloat16" and "float16" keep parameters in float32 (master weights), compute in half precision and return
        float32. float16 needs a `LossScale`.

        Raises:
            ValueError: there is no such policy.
        """
        if name not in POLICIES:
            near = get_close_matches(str(name), POLICIES, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"There is no precision policy {name!r}; there are {', '.join(POLICIES)}.{hint}")
        return POLICIES[name]

    def cast_params(self, params: Any) -> Any:
        """Parameters as they are kept."""
        return tree.cast(params, self.param)

    def cast_inputs(self, inputs: Any) -> Any:
        """Parameters or inputs as they are computed with."""
        return tree.cast(inputs, self.compute)

    def cast_output(self, output: Any) -> Any:
        """Results as they are returned."""
        return tree.cast(output, self.output)

    def apply(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """The loss under this policy, to be differentiated in its place.

        Parameters, state and batch are cast on the way in, value and metrics on the way out, and the new state back to
        the dtypes it had, where what was not written, such as frozen weights, keeps every digit. The cast is part of
        what is differentiated, so gradients come back in the dtype of the parameters. A loss that should add up in
        float32 casts the model's output itself: `policy.cast_output(logits)`.
        Running statistics in bfloat16 move by 1/256 of their value or not at all; the policy "autocast-bfloat16"
        leaves them in float32.

        Args:
            loss: `loss(params, state, batch, key) -> (value, (state, metrics))`, as `make_step` takes it.
        """

        @wraps(loss)
        def under(params: Any, state: Any, batch: Any, key: Any) -> Any:
            device = next((leaf.device.type for leaf in tree.leaves(params) if isinstance(leaf, Tensor)), "cpu")
            # Without its cache of casts, which knows nothing of transforms.
            autocast: Any = (
                nullcontext() if self.autocast is None else torch.autocast(device, self.autocast, cache_enabled=False)
            )
            with autocast:
                lent = self.cast_inputs(state)
                value, (new, metrics) = loss(self.cast_inputs(params), lent, self.cast_inputs(batch), key)
            return self.cast_output(value), (_restored(new, lent, state), self.cast_output(metrics))

        return under

    def around(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function with this policy's backend flags set around each call, and put back afterwards.

        TF32 is a flag of torch's for the whole process: other threads see it while a call lasts. It must cover the
        derivative too, so put it around the step, outermost: `policy.around(jit(step, donate=0))`. Where no flag is
        asked for, the function itself is returned.
        """
        if not self.tf32:
            return function

        @wraps(function)
        def flagged(*args: P.args, **kwargs: P.kwargs) -> R:
            with _tf32():
                return function(*args, **kwargs)

        return flagged


POLICIES = {
    "float32": Precision(),
    "tf32": Precision(tf32=True),
    "float64": Precision(torch.float64, torch.float64, torch.float64),
    "bfloat16": Precision(compute=torch.bfloat16),
    "float16": Precision(compute=torch.float16),
    "autocast-bfloat16": Precision(autocast=torch.bfloat16),
    "autocast-float16": Precision(autocast=torch.float16),
}


def _restored(new: Any, lent: Any, old: Any) -> Any:
    """A new state in the dtypes of the old, of which a cast copy was lent; one of another structure is left as it is.

    Numbers that come back as they were lent are the old ones, which the cast has rounded. They are told by their
    values, since a leaf that nobody wrote may come back as a copy.
    """
    if tree.structure(new) != tree.structure(old):
        return new

    def one(leaf: Any, cast: Any, like: Any) -> Any:
        both = isinstance(leaf, Tensor) and isinstance(like, Tensor)
        if not (both and leaf.is_floating_point() and like.is_floating_point()):
            return leaf
        if leaf is cast:
            return like
        wide = leaf.to(like.dtype)
        if leaf.shape != like.shape or cast.dtype == like.dtype:
            return wide
        return torch.where((leaf == cast) | (leaf.isnan() & cast.isnan()), like, wide)

    return tree.map(one, new, lent, old)


@contextmanager
def _tf32() -> Iterator[None]:
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before
