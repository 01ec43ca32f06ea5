"""The two engines behind `value_and_grad` mean the same, also where a caller's own autograd or mode surrounds them."""

import pytest
import torch

from funcnet import grad, jit, random, tree, value_and_grad
from funcnet.transforms.gradients import _autograd_engine, _func_engine

X = random.normal(random.key(0), (3,))


@pytest.mark.parametrize("engine", [_func_engine, _autograd_engine])
def test_none_is_no_leaf(engine):
    f = lambda p: ((p["a"] ** 2).sum(), {"n": None, "t": p["a"]})  # noqa: E731
    value, aux, (grads,) = engine(f, (0,), True, ({"a": X, "b": None},), {})
    assert torch.equal(grads["a"], 2 * X)
    assert grads["b"] is None
    assert aux["n"] is None
    assert torch.equal(value, (X**2).sum())


def test_second_order_with_none():
    inner = lambda x: grad(lambda p: (p["a"] ** 3).sum())({"a": x, "b": None})["a"].sum()  # noqa: E731
    assert torch.allclose(grad(inner)(X), 6 * X)


def test_inference_mode_does_not_zero_the_gradient():
    f = lambda x: (x**2).sum()  # noqa: E731
    with torch.inference_mode():
        assert torch.equal(grad(f)(X), 2 * X)
        made_here = X.clone()
    assert torch.equal(grad(f)(made_here), 2 * X)


def test_a_tensor_closed_over_keeps_its_own_graph():
    # A gradient penalty: what grad returns is differentiated again, by torch, in what the function closed over.
    def penalty(gradient, w):
        return (gradient(lambda x: (w * x * x).sum())(X) ** 2).sum() + w.sum()

    ours, torchs = (torch.ones(3, requires_grad=True) for _ in range(2))
    penalty(grad, ours).backward()
    penalty(torch.func.grad, torchs).backward()
    assert torch.equal(ours.grad, torchs.grad)
    assert torch.allclose(ours.grad, 8 * X**2 + 1)


def test_a_graph_is_kept_only_where_there_is_one():
    w = torch.ones(3, requires_grad=True)
    f = lambda x: ((w * x).sum(), x * 2)  # noqa: E731
    (value, _), gradient = value_and_grad(f, has_aux=True)(X)
    assert value.requires_grad
    assert gradient.requires_grad
    with torch.no_grad():
        results = value_and_grad(f, has_aux=True)(X)
    plain = value_and_grad(lambda x: ((2 * x).sum(), x * 2), has_aux=True)(X)
    assert not any(leaf.requires_grad for leaf in tree.leaves((results, plain)))


@pytest.mark.parametrize("surrounding", [grad, torch.func.grad])
def test_a_jitted_function_inside_a_gradient_is_refused_by_both(surrounding):
    def loss(p):  # the jitted function takes no differentiated argument, but closes over one
        return jit(lambda x: (p * x).sum(), backend="aot_eager")(X)

    with pytest.raises(TypeError, match=r"is jitted, and was called inside grad"):
        surrounding(loss)(torch.ones(3))


def test_torchs_own_forward_mode_goes_through_a_gradient():
    x = torch.tensor(2.0)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.tensor(1.0))
        got = torch.autograd.forward_ad.unpack_dual(grad(lambda x: x**3)(dual))
        assert (got.primal, got.tangent) == (12.0, 12.0)


@pytest.mark.parametrize("engine", [value_and_grad, torch.func.grad_and_value])
def test_aux_goes_on_in_the_callers_graph(engine):
    w = (X + 1).requires_grad_()
    f = lambda x: ((x**2).sum(), {"of w": (w * x).sum(), "w": w, "of x": x.exp()})  # noqa: E731
    x = X.clone()
    results = engine(f, has_aux=True)(x)
    (value, aux), gradient = results if engine is value_and_grad else results[::-1]
    assert not any(leaf.requires_grad for leaf in (value, gradient, aux["of x"]))
    (slope,) = torch.autograd.grad(aux["of w"] + (2 * aux["w"]).sum(), w)
    assert torch.equal(slope, x + 2)


def test_a_value_that_is_a_callers_leaf_keeps_its_graph():
    w = torch.tensor(3.0, requires_grad=True)
    value, gradient = value_and_grad(lambda x: w)(X)
    assert value.requires_grad
    assert not gradient.any()
