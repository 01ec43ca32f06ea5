"""The schedulers of `torch.optim.lr_scheduler` as pure functions of the step count.

Names are torch's in snake case, arguments and defaults torch's; the learning rate comes first, in place of the
optimizer. Where torch changes the last value step by step, these compute each from the count alone. `torch_cycles` has
those that rise and fall.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ...control import fori_loop
from ..arguments import function
from ..values import Scalar, Schedule, scalar
from .basic import join_schedules, linear_schedule, polynomial_schedule
from .lengths import length

__all__ = [
    "constant_lr",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "polynomial_lr",
    "sequential_lr",
    "step_lr",
]


def step_lr(init_value: Scalar, step_size: int, gamma: Scalar = 0.1) -> Schedule:
    r"""Multiplied by `gamma` every `step_size` steps, $v\, \gamma^{\lfloor t / n \rfloor}$: `StepLR`.

    Raises `ValueError` where `step_size` is not positive.

    >>> [step_lr(1.0, 2, 0.5)(t).item() for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    scalar(init_value, "init_value"), scalar(gamma, "gamma")
    length(step_size, "step_size", "step_lr")
    return lambda count: init_value * gamma ** (torch.as_tensor(count) // step_size)


def multi_step_lr(init_value: Scalar, milestones: Iterable[int], gamma: Scalar = 0.1) -> Schedule:
    r"""Multiplied by `gamma` at each milestone, $v\, \gamma^{|\{m : m \le t\}|}$: `MultiStepLR`.

    A milestone may be given twice. Raises `ValueError` for negative ones.

    >>> [multi_step_lr(1.0, [1, 3], 0.5)(t).item() for t in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    scalar(init_value, "init_value"), scalar(gamma, "gamma")
    places = [length(milestone, "a milestone", "multi_step_lr", least=0) for milestone in milestones]

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        passed = torch.zeros_like(step)
        for place in places:
            passed = passed + (step >= place)
        return init_value * gamma**passed

    return schedule


def constant_lr(init_value: Scalar, factor: Scalar = 1.0 / 3, total_iters: int = 5) -> Schedule:
    """`factor * init_value` for `total_iters` steps, then `init_value`: `ConstantLR`.

    Raises `ValueError` for a factor outside [0, 1] and a negative length.

    >>> [constant_lr(1.0, 0.5, 2)(t).item() for t in range(4)]
    [0.5, 0.5, 1.0, 1.0]
    """
    scalar(init_value, "init_value")
    _part(factor, "factor", "constant_lr")
    length(total_iters, "total_iters", "constant_lr", least=0)
    return lambda count: init_value * torch.where(torch.as_tensor(count) < total_iters, factor, 1.0)


def linear_lr(
    init_value: Scalar, start_factor: Scalar = 1.0 / 3, end_factor: Scalar = 1.0, total_iters: int = 5
) -> Schedule:
    """From `start_factor` to `end_factor` times `init_value` in a straight line: `LinearLR`.

    Raises `ValueError` for factors outside [0, 1] (a `start_factor` of 0 too) and a length that is not positive.

    >>> [linear_lr(1.0, 0.5, 1.0, 2)(t).item() for t in range(4)]
    [0.5, 0.75, 1.0, 1.0]
    """
    scalar(init_value, "init_value")
    _part(start_factor, "start_factor", "linear_lr")
    _part(end_factor, "end_factor", "linear_lr")
    if not isinstance(start_factor, Tensor) and start_factor == 0:
        raise ValueError("linear_lr got start_factor=0: for a start at zero write linear_schedule(0.0, value, steps).")
    length(total_iters, "total_iters", "linear_lr")
    factor = linear_schedule(start_factor, end_factor, total_iters)
    return lambda count: init_value * factor(count)


def exponential_lr(init_value: Scalar, gamma: Scalar) -> Schedule:
    r"""Multiplied by `gamma` at every step, $v\, \gamma^t$: `ExponentialLR`.

    >>> [exponential_lr(1.0, 0.5)(t).item() for t in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    scalar(init_value, "init_value"), scalar(gamma, "gamma")
    return lambda count: init_value * gamma ** torch.as_tensor(count)


def polynomial_lr(init_value: Scalar, total_iters: int = 5, power: Scalar = 1.0) -> Schedule:
    r"""Down to 0 along a power, $v\, (1 - \min(t, n) / n)^p$: `PolynomialLR`.

    Raises `ValueError` where `total_iters` is not positive.

    >>> [polynomial_lr(1.0, 4, 2)(t).item() for t in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    length(total_iters, "total_iters", "polynomial_lr")
    return polynomial_schedule(init_value, 0.0, power, total_iters)


def lambda_lr(init_value: Scalar, lr_lambda: Callable[[Tensor], Scalar]) -> Schedule:
    r"""Times a function of the count, $v\, f(t)$: `LambdaLR`. The count comes to the function as a tensor.

    >>> lambda_lr(1.0, lambda count: 0.5**count)(2).item()
    0.25
    """
    scalar(init_value, "init_value"), function(lr_lambda, "lr_lambda", "lambda count: 0.5**count")
    return lambda count: init_value * lr_lambda(torch.as_tensor(count))


def multiplicative_lr(init_value: Scalar, lr_lambda: Callable[[Tensor], Scalar]) -> Schedule:
    r"""Multiplied by a function of the count at every step, $v \prod_{i=1}^t f(i)$: `MultiplicativeLR`.

    The product is computed anew at every step, in a loop of as many turns as steps: for a long run find the product
    and write `lambda_lr`. Under `jit` what `lr_lambda` closes over has forward-mode derivatives alone.

    >>> [multiplicative_lr(1.0, lambda count: 1 / count)(t).item() for t in range(4)]
    [1.0, 1.0, 0.5, 0.1666666716337204]
    """
    scalar(init_value, "init_value"), function(lr_lambda, "lr_lambda", "lambda count: 0.5")

    def schedule(count: Tensor) -> Tensor:
        step = torch.as_tensor(count)
        factor = torch.as_tensor(lr_lambda(torch.ones_like(step)), device=step.device)
        one = torch.ones_like(factor, dtype=torch.promote_types(factor.dtype, torch.get_default_dtype()))
        return init_value * fori_loop(1, step + 1, lambda i, product: product * lr_lambda(i), one)

    return schedule


def sequential_lr(schedulers: Sequence[Schedule], milestones: Sequence[int]) -> Schedule:
    """One schedule after another, each from its own step 0: `SequentialLR`, and `join_schedules` under torch's names.

    In torch the schedulers share an optimizer's learning rate; here each has its own first argument. Raises
    `ValueError` as `join_schedules` does.

    >>> schedule = sequential_lr([constant_lr(1.0, 0.5, 9), exponential_lr(1.0, 0.5)], milestones=[2])
    >>> [schedule(t).item() for t in range(5)]
    [0.5, 0.5, 1.0, 0.5, 0.25]
    """
    return join_schedules(schedulers, milestones)


def _part(value: Scalar, name: str, rule: str) -> None:
    if not isinstance(scalar(value, name), Tensor) and not 0 <= value <= 1:
        raise ValueError(f"{rule} got {name}={value}, and needs 0 <= {name} <= 1: a part of the learning rate.")
