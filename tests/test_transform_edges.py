"""Transforms at their edges: trees without leaves, arguments named twice, functions of a module in use."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import (
    Model,
    grad,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    per_example_grad,
    random,
    value_and_grad,
    vjp,
    vmap,
)

KEY = random.key(5)
X = random.normal(KEY, (4, 3))


@pytest.mark.parametrize("transform", [grad, value_and_grad, jacfwd, jacrev, hessian, per_example_grad])
@pytest.mark.parametrize("argnums", [(0, 0), (0, -2)])
def test_an_argument_named_twice_is_refused(transform: Any, argnums: tuple[int, int]):
    f = lambda x, y: (x * y).sum()  # noqa: E731
    with pytest.raises(ValueError, match=r"has argnums=\(0, -?\d\), which name an argument twice"):
        transform(f, argnums)(X, X)


def test_a_tree_without_leaves_has_derivatives_without_leaves():
    f = lambda p: X.sum()  # noqa: E731
    for got in (grad(f)({}), jacfwd(f)({}), jacrev(f)({}), hessian(f)({}), hvp(f, ({},), ({},))):
        assert got == {}
    output, tangent = jvp(f, ({"a": None},), ({"a": None},))
    assert torch.equal(output, X.sum())
    assert torch.equal(tangent, torch.tensor(0.0))
    output, linear = linearize(f, {})
    assert torch.equal(output, X.sum())
    assert torch.equal(linear({}), torch.tensor(0.0))
    jacobian, aux = jacrev(lambda p: ({"y": X}, "aux"), has_aux=True)({})
    assert (jacobian, aux) == ({"y": {}}, "aux")


class Pulled(nn.Module):
    """Draws, and updates state in two ways, in a function that it takes a pullback of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        def hidden(x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            h = self.linear(x)
            F.batch_norm(h.detach(), self.mean, self.var, training=self.training)
            return F.dropout(h, 0.5, self.training).sin()

        h, pull = vjp(hidden, x)
        return F.dropout(pull(h)[0], 0.5, self.training).sum()


def test_a_pullback_that_runs_its_function_again_draws_and_updates_as_the_first_time():
    model = Model(Pulled)
    params, state = model.init(KEY)
    loss = lambda p: model.apply(p, state, X, key=KEY, train=True)  # noqa: E731
    value, want = loss(params)
    (again, got), gradient = value_and_grad(loss, has_aux=True)(params)
    torch.testing.assert_close(again, value)
    for name in want:
        assert type(want[name]) is Tensor
        torch.testing.assert_close(got[name], want[name])
    assert want["calls"] == 1
    assert not torch.equal(want["mean"], state["mean"])
    step = 1e-3 * gradient["linear.weight"]
    moved = [loss({**params, "linear.weight": params["linear.weight"] + s * step})[0] for s in (1, -1)]
    torch.testing.assert_close(
        (moved[0] - moved[1]) / 2e-3, gradient["linear.weight"].square().sum(), rtol=1e-2, atol=0
    )


class Inner(nn.Module):
    """Updates state inside a transform of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.norm = kind, nn.BatchNorm1d(3, affine=False)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        def noted(row: Tensor) -> Tensor:
            self.seen = self.seen + row.detach()
            return row.sin().sum()

        if self.kind == "statistics":
            return vmap(self.norm)(x)
        return vmap(noted)(x) if self.kind == "buffer" else vjp(noted, x[0])[1](x.sum())[0]


@pytest.mark.parametrize(("kind", "name"), [("statistics", "'norm.running_mean'"), ("buffer", "'seen'")])
@pytest.mark.parametrize("outer", [lambda f: f, vmap], ids=["plain", "vmap"])
def test_state_updated_inside_a_vmap_of_the_forward_is_refused(kind: str, name: str, outer: Any):
    model = Model(Inner, kind)
    params, state = model.init(KEY)
    x = random.normal(KEY, (2, 2, 4, 3))
    call = outer(lambda x: model.apply(params, state, x if kind == "statistics" else x[0], train=True)[1])
    with pytest.raises(RuntimeError, match=rf"{name}.* inside a vmap that it opens itself.*update outside of it"):
        call(x if outer is vmap else x[0])


def test_state_updated_inside_a_pullback_of_the_forward_is_an_ordinary_tensor():
    model = Model(Inner, "pullback")
    params, state = model.init(KEY)
    new = model.apply(params, state, X, train=True)[1]["seen"]
    assert repr(new).startswith("tensor(")
    torch.testing.assert_close(new, X[0])
