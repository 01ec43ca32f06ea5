"""The derivatives everyone computes first, each beside the value it must have."""

from typing import Any

import torch

from funcnet import grad, hessian, jacrev, per_example_grad, tree, value_and_grad

T = torch.tensor


def show(what: str, found: Any, expected: Any) -> None:
    """Print a result beside the expected value, and insist on it."""
    tree.map(torch.testing.assert_close, found, expected)
    print(f"{what:<44} {tree.map(torch.Tensor.tolist, found)!s:<32} expected {tree.map(torch.Tensor.tolist, expected)}")


def relu_squared(x: torch.Tensor) -> torch.Tensor:
    """A Python branch on a value: grad follows the side that was taken."""
    return x**2 if x > 0 else 0 * x


def power(x: torch.Tensor, n: int) -> torch.Tensor:
    """x**n by an unrolled loop."""
    result = torch.ones_like(x)
    for _ in range(n):
        result = result * x
    return result


def squared_error(w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean of (x w - y)**2 over a batch."""
    return ((x @ w - y) ** 2).mean()


def main(argv: list[str] | None = None) -> int:
    """Print every derivative."""
    show("x^2 + 2x at 3: slope", grad(lambda x: x**2 + 2 * x)(T(3.0)), T(8.0))
    show("x^2 + 3x + 1 at 2: slope", grad(lambda x: x**2 + 3 * x + 1)(T(2.0)), T(7.0))
    show("x^2 + y^3 + 10 at (2, 3)", grad(lambda x, y: x**2 + y**3 + 10, (0, 1))(T(2.0), T(3.0)), (T(4.0), T(27.0)))

    # The argument may be any tree of tensors; its gradient is a tree of the same kind.
    params = {"w": T([1.0, -2.0]), "b": T(3.0)}
    value, grads = value_and_grad(lambda p: (p["w"] ** 2).sum() + p["b"])(params)
    show("sum of w^2, plus b: value", value, T(8.0))
    show("sum of w^2, plus b: gradient", grads, {"w": 2 * params["w"], "b": T(1.0)})

    show("x^3 at 2: second derivative", grad(grad(lambda x: x**3))(T(2.0)), T(12.0))
    show("(xy, x + y) at (2, 3): Jacobian", jacrev(lambda v: torch.stack([v.prod(), v.sum()]))(T([2.0, 3.0])),
         T([[3.0, 2.0], [1.0, 1.0]]))  # fmt: skip
    show("x^2 y at (2, 3): Hessian", hessian(lambda v: v[0] ** 2 * v[1])(T([2.0, 3.0])), T([[6.0, 4.0], [4.0, 0.0]]))

    w, x, y = T([1.0, 1.0]), T([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), T([0.0, 0.0, 2.0])
    each = T([[2.0, 0.0], [0.0, 8.0], [0.0, 0.0]])  # 2 (x w - y) x, a row an example
    show("squared error: a gradient an example", per_example_grad(squared_error)(w, x, y), each)
    show("squared error: gradient of the mean", grad(squared_error)(w, x, y), each.mean(0))

    show("a branch: x > 0", grad(relu_squared)(T(3.0)), T(6.0))
    show("a branch: x <= 0", grad(relu_squared)(T(-3.0)), T(0.0))
    show("a loop: x^5 at 2", grad(power)(T(2.0), 5), T(80.0))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
