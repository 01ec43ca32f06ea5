"""`while_loop`, `fori_loop` and `cond` against jax.lax and Python, eager and in a traced graph."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from funcnet import grad, hessian, hvp, jacfwd, jit, jvp, random, tree, vmap
from funcnet.control import cond, fori_loop, scan, while_loop

KEY = random.key(6)
few = settings(max_examples=6, deadline=None)
slow = pytest.mark.slow


def normal(n, shape):
    return random.normal(random.fold_in(KEY, n), shape, torch.float64)


W, X, XS = normal(0, (3, 3)), normal(1, (3,)), normal(2, (5, 3))
WS = torch.stack([W, 0.5 * W, W + 0.1])


def close(got, want):
    tree.map(torch.testing.assert_close, got, want)


def both(f, *args, backend="eager"):
    """The eager result, which that of the traced graph must equal."""
    want = f(*args)
    close(jit(f, backend=backend)(*args), want)
    return want


# -- while_loop


def grow(w, x):
    return while_loop(
        lambda s: (s["x"] ** 2).sum() < 100,
        lambda s: {"n": s["n"] + 1, "x": 1.5 * s["x"] + torch.tanh(s["x"] @ w) + 0.3},
        {"x": x, "n": 0},
    )


def grow_in_python(w, x):
    n = 0
    while (x**2).sum() < 100:
        n, x = n + 1, 1.5 * x + torch.tanh(x @ w) + 0.3
    return {"x": x, "n": torch.tensor(n)}


@few
@given(st.integers(1, 1000), st.integers(2, 9))
def test_while_is_that_of_lax(start, base):
    jax = pytest.importorskip("jax")
    run = lambda while_loop, start: while_loop(  # noqa: E731 - the same for both
        lambda s: s[0] < 1000, lambda s: (s[0] * base, s[1] + 0.5), (start, start * 1.0)
    )
    want = run(jax.lax.while_loop, jax.numpy.asarray(start))
    got = both(lambda start: run(while_loop, start), torch.tensor(start))
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine.numpy(), np.asarray(theirs))


def test_while_is_a_python_loop():
    close(both(grow, W, X, backend="aot_eager"), grow_in_python(W, X))


def test_while_that_does_not_turn():
    close(both(grow, W, 100 * X), {"x": 100 * X, "n": torch.tensor(0)})


@pytest.mark.parametrize("dims", [(None, 0), (0, None)])
def test_while_under_vmap_stops_each_element_by_itself(dims):
    args = (W, XS) if dims[0] is None else (WS, X)
    each = [grow_in_python(args[0] if d is None else w, x) for w, x, d in _pairs(args, dims)]
    got = both(vmap(grow, dims), *args)
    assert len(set(got["n"].tolist())) > 1
    close(got, tree.stack(each))


def _pairs(args, dims):
    size = next(len(a) for a, d in zip(args, dims, strict=True) if d == 0)
    for i in range(size):
        yield (*(a if d is None else a[i] for a, d in zip(args, dims, strict=True)), dims[0])


def test_while_with_a_predicate_that_vmap_does_not_map():
    f = vmap(lambda x: while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (torch.tensor(0), x)))
    close(both(f, XS), (torch.full((5,), 3), XS**4))


def test_while_forward_mode():
    push = lambda grow: lambda w, x: jvp(lambda w, x: grow(w, x)["x"], (w, x), (w + 1, x))  # noqa: E731
    close(both(push(grow), W, X), push(grow_in_python)(W, X))
    close(both(vmap(push(grow), (None, 0)), W, XS), tree.stack([push(grow_in_python)(W, x) for x in XS]))
    both(jacfwd(lambda w: grow(w, X)["x"]), W)


def test_while_reverse_mode_in_eager_alone():
    loss = lambda w, x: grow(w, x)["x"].sum()  # noqa: E731
    want = grad(lambda w, x: grow_in_python(w, x)["x"].sum(), (0, 1))(W, X)
    close(grad(loss, (0, 1))(W, X), want)
    for f, args in ((grad(loss), (W, X)), (vmap(grad(loss), (0, None)), (WS, X))):
        with pytest.raises(TypeError, match=r"while_loop has no reverse-mode derivative under jit.*fori_loop.*scan"):
            jit(f, backend="eager")(*args)


def test_while_may_be_used_beside_a_gradient():
    f = grad(lambda w, x: (w * grow(w.detach(), x)["n"]).sum())
    close(both(f, W, X), torch.full_like(W, grow(W, X)["n"].item()))


# -- fori_loop


@few
@given(st.integers(-3, 3), st.integers(-3, 6), st.sampled_from([None, 2, True]))
def test_fori_is_that_of_lax(lower, upper, unroll):
    jax = pytest.importorskip("jax")
    want = jax.lax.fori_loop(lower, upper, lambda i, c: c * 2 + i, 1)
    assert both(lambda c: fori_loop(lower, upper, lambda i, c: c * 2 + i, c, unroll=unroll), torch.tensor(1)) == int(
        want
    )
    bounds = torch.tensor([lower, upper])
    if unroll is None:
        assert both(lambda b, c: fori_loop(b[0], b[1], lambda i, c: c * 2 + i, c), bounds, torch.tensor(1)) == int(want)


def test_fori_with_ints_has_every_derivative():
    loss = lambda w, x: fori_loop(0, 4, lambda i, c: torch.tanh(c @ w + i), x).sum()  # noqa: E731
    x = X
    for i in range(4):
        x = torch.tanh(x @ W + i)
    close(both(loss, W, X), x.sum())
    both(grad(loss, (0, 1)), W, X)
    both(vmap(grad(loss), (0, None)), WS, X)


@slow
def test_second_derivatives_of_fori():
    both(hessian(lambda w, x: fori_loop(0, 4, lambda i, c: torch.tanh(c @ w + i), x).sum()), W, X)


def test_fori_with_tensor_bounds_under_vmap_and_jvp():
    loss = lambda n, w: fori_loop(0, n, lambda i, c: torch.tanh(c @ w + i), X).sum()  # noqa: E731
    counts = torch.tensor([0, 3, 1])
    close(both(vmap(loss, (0, None)), counts, W), torch.stack([loss(int(n), W) for n in counts]))
    close(
        both(lambda n, w: jvp(lambda w: loss(n, w), (w,), (w,)), torch.tensor(3), W),
        jvp(lambda w: loss(3, w), (W,), (W,)),
    )


def test_an_element_by_the_number_of_the_turn():
    close(both(lambda w, x: fori_loop(0, 3, lambda i, c: c + w[i[None]][0] * x[i[None]][0], x), W, X), X + X @ W)


# -- cond


def choose(p, w, x):
    def yes(x):
        return {"a": torch.sin(x @ w), "b": x.sum()}

    def no(x):
        return {"b": x.prod(), "a": 2 * x * w.sum()}

    out = cond(p > 0, yes, no, x)
    return (out["a"] * out["b"]).sum()


def choose_in_python(p, w, x):
    a, b = (torch.sin(x @ w), x.sum()) if p > 0 else (2 * x * w.sum(), x.prod())
    return (a * b).sum()


COND_NESTINGS = {
    "value": lambda f: f,
    "grad": lambda f: grad(f, (1, 2)),
    "jvp": lambda f: lambda p, w, x: jvp(lambda *a: f(p, *a), (w, x), (w + 1, x)),
    "hvp": lambda f: lambda p, w, x: hvp(lambda *a: f(p, *a), (w, x), (w + 1, x)),
    "grad of grad": lambda f: grad(lambda *a: sum((g**2).sum() for g in grad(f, (1, 2))(*a)), (1, 2)),
    "vmap of the operand": lambda f: lambda p, w, x: vmap(f, (None, None, 0))(p, w, torch.stack([x, x + 1])),
    "vmap of grad": lambda f: lambda p, w, x: vmap(grad(f, (1, 2)), (None, None, 0))(p, w, torch.stack([x, x + 1])),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) if n == "grad of grad" else n for n in COND_NESTINGS])
def test_cond_under_transforms(name):
    how, compiled = COND_NESTINGS[name], jit(COND_NESTINGS[name](choose), backend="aot_eager")
    for p in (1.0, -1.0):
        args = (torch.tensor(p, dtype=torch.float64), W, X)
        want = how(choose_in_python)(*args)
        close(how(choose)(*args), want)
        close(compiled(*args), want)
    assert compiled.compiles == 1


def test_cond_with_a_predicate_that_vmap_maps():
    ps = torch.tensor([1.0, -1, 2, -2, 0], dtype=torch.float64)
    for name in ("value", "grad", "jvp"):
        how = COND_NESTINGS[name]
        want = tree.stack([how(choose_in_python)(p, W, x) for p, x in zip(ps, XS, strict=True)])
        close(both(vmap(how(choose), (0, None, 0)), ps, W, XS), want)
    total = lambda w, xs: vmap(choose, (0, None, 0))(ps, w, xs).sum()  # noqa: E731
    want = grad(lambda w, xs: sum(choose_in_python(p, w, x) for p, x in zip(ps, xs, strict=True)), (0, 1))(W, XS)
    close(both(grad(total, (0, 1)), W, XS), want)


@few
@given(st.booleans(), st.floats(-3, 3))
def test_cond_is_that_of_lax(p, x):
    jax = pytest.importorskip("jax")
    run = lambda xp, cond, p, x: cond(p, lambda a, b: xp.sin(a) * b, lambda a, b: a - b, x, x + 1)  # noqa: E731
    with jax.disable_jit():
        want = run(jax.numpy, jax.lax.cond, p, jax.numpy.asarray(x, "float32"))
    got = both(lambda p, x: run(torch, cond, p, x), torch.tensor(p), torch.tensor(x))
    np.testing.assert_allclose(got.numpy(), np.asarray(want), rtol=1e-5, atol=1e-6)
    assert torch.equal(run(torch, cond, p, torch.tensor(x)), got)


def test_cond_without_operands():
    f = lambda p, w: cond(p > 0, lambda: (w * 2, torch.tensor(1)), lambda: (w.sin(), torch.tensor(2)))  # noqa: E731
    close(both(f, torch.tensor(1.0), W), (W * 2, torch.tensor(1)))
    close(both(f, torch.tensor(-1.0), W), (W.sin(), torch.tensor(2)))


def test_gradcheck_of_cond():
    args = tuple(t.clone().requires_grad_() for t in (W, X))
    with torch.random.fork_rng():  # gradcheck draws its directions from the global generator
        for p in (torch.tensor(1.0), torch.tensor(-1.0)):
            assert gradcheck(lambda w, x, p=p: choose(p, w, x), args, check_forward_ad=True)
            assert gradgradcheck(lambda w, x, p=p: choose(p, w, x), args)


def test_eager_cond_runs_one_function():
    ran = []
    cond(torch.tensor(True), lambda: ran.append("yes") or X, lambda: ran.append("no") or X)
    assert ran == ["yes"]


# -- within one another


def scan_of_cond(w, xs):
    step = lambda c, x: (cond(x.sum() > 0, lambda c: torch.tanh(c @ w), lambda c: c * x, c), c)  # noqa: E731
    return scan(step, xs[0], xs)[1].sum()


def scan_of_while(w, xs):
    step = lambda c, x: (while_loop(lambda v: v.norm() < 10, lambda v: 1.5 * v + x, c @ w) / 10, None)  # noqa: E731
    return scan(step, xs[0], xs)[0].sum()


def while_of_scan(w, xs):
    turn = lambda v: 1.5 * v + scan(lambda c, x: (torch.tanh(c @ w + x), None), v, xs)[0]  # noqa: E731
    return while_loop(lambda v: v.norm() < 10, turn, xs[0]).sum()


@pytest.mark.parametrize("f", [scan_of_cond, scan_of_while, while_of_scan])
def test_within_one_another(f):
    both(f, W, XS)
    close(both(vmap(f, (0, None)), WS, XS), torch.stack([f(w, XS) for w in WS]))


# What is handed out as it was given: an operand, a part of the carry, a tensor from around the function.


def branch_of_carry(w, xs):
    step = lambda c, x: cond(x.sum() > 0, lambda c: (c, c), lambda c: (c * x, c), c)  # noqa: E731
    return scan(step, xs[0] @ w, xs)[1].sum()


def while_of_while(w, xs):
    inner = lambda v: while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1]), (torch.tensor(0), v))[1]  # noqa: E731
    return while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, inner(s[1])), (torch.tensor(0), w))[1].sum() + xs.sum()


def branch_of_closure(w, xs):
    return cond(xs.sum() > -1e9, lambda x: (w, x), lambda x: (w * 2, x), xs[0])[0].sum()


def scan_of_closure(w, xs):
    return (scan(lambda c, x: (w, w), w + 1, xs)[1].sum() * xs[0]).sum()


@pytest.mark.parametrize("f", [branch_of_carry, while_of_while, branch_of_closure, scan_of_closure])
def test_a_tensor_handed_out_as_it_was_given(f):
    both(f, W, XS)
    close(both(vmap(f, (0, None)), WS, XS), torch.stack([f(w, XS) for w in WS]))
    if f is not while_of_while:
        slope = both(grad(f), W, XS)
        assert slope.abs().sum() > 0
        torch.autograd.gradcheck(lambda w: f(w, XS), W.detach().requires_grad_())


@slow
@pytest.mark.parametrize("f", [scan_of_cond, scan_of_while, while_of_scan])
def test_forward_mode_of_one_another(f):
    close(both(lambda w, xs: jvp(f, (w, xs), (w, xs)), W, XS), jvp(f, (W, XS), (W, XS)))


def test_gradient_of_scan_of_cond():
    both(grad(scan_of_cond, (0, 1)), W, XS)


@slow
def test_gradient_of_scan_of_cond_under_vmap():
    both(vmap(grad(scan_of_cond, (0, 1)), (0, None)), WS, XS)


@slow
def test_compiled_by_inductor():
    for f, args in (
        (grow, (W, X)),
        (vmap(grow, (None, 0)), (W, XS)),
        (grad(choose, (1, 2)), (torch.tensor(-1.0), W, X)),
        (grad(scan_of_cond, (0, 1)), (W, XS)),
        (while_of_scan, (W, XS)),
    ):
        close(jit(f)(*args), f(*args))
