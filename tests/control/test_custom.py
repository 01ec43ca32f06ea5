"""custom_vjp and custom_jvp against plain functions, and against jax where a rule is not the true derivative."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from funcnet import (
    Model,
    custom_jvp,
    custom_vjp,
    grad,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jit,
    jvp,
    linearize,
    per_example_grad,
    random,
    tree,
    value_and_grad,
    vjp,
    vmap,
)
from funcnet.control import remat

KEY = random.key(7)
seeds = st.integers(0, 2**32 - 1)
F64 = torch.float64


def close(a, b, **tolerance):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, **tolerance), a, b)


def raw(p, y):
    """Of a tree and a vector: no argument is treated like another."""
    return {"out": torch.sin(p["a"]) * y + p["b"][0] ** 2, "twice": (2 * p["b"][0],)}


@custom_vjp
def by_vjp(p, y):
    return raw(p, y)


def fwd(p, y):
    return raw(p, y), {"cos": torch.cos(p["a"]), "sin": torch.sin(p["a"]), "y": y, "b": p["b"][0], "tag": "static"}


def bwd(r, ct):
    assert r["tag"] == "static"
    a, b = ct["out"], ct["twice"][0]
    return {"a": a * r["cos"] * r["y"], "b": (2 * r["b"] * a + 2 * b,)}, a * r["sin"]


by_vjp.defvjp(fwd, bwd)


@custom_vjp
def again(p, y):  # as by_vjp, but its fwd calls it again, as the examples in jax's documentation do
    return raw(p, y)


again.defvjp(lambda p, y: (again(p, y), fwd(p, y)[1]), bwd)


@custom_jvp
def by_jvp(p, y):
    return raw(p, y)


@by_jvp.defjvp
def _(primals, tangents):
    (p, y), (dp, dy) = primals, tangents
    b, db = p["b"][0], dp["b"][0]
    out = torch.cos(p["a"]) * y * dp["a"] + torch.sin(p["a"]) * dy + 2 * b * db
    return by_jvp(p, y), {"out": out, "twice": (2 * db,)}


def drawn(seed, n=3):
    keys = random.split(random.key(seed), 3)
    a, b, y = (random.normal(k, (n,), F64) for k in keys)
    return {"a": a, "b": (b,)}, y


def scalar(f):
    def loss(p, y):
        got = f(p, y)
        return (got["out"] ** 2 * got["twice"][0].cos()).sum()

    return loss


def total(x):
    return sum(leaf.sum() for leaf in tree.leaves(x))


def plain_double(f, p, y):
    """By torch.autograd alone."""
    leaves, treedef = tree.flatten((p, y))
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    loss = scalar(f)(*tree.unflatten(treedef, leaves))
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    return [first, torch.autograd.grad(total(first), leaves)]


def rows(p, y):
    return tree.map(lambda t: torch.stack([t, 2 * t]), (p, y))


# name -> (what is computed, whether forward mode meets the function itself, whether it meets what fwd computes)
TRANSFORMS = {
    "call": (lambda f, p, y: f(p, y), False, False),
    "grad": (lambda f, p, y: value_and_grad(scalar(f), (0, 1))(p, y), False, False),
    "torch.func.grad": (lambda f, p, y: torch.func.grad(scalar(f))(p, y), False, False),
    "vjp": (lambda f, p, y: vjp(f, p, y)[1](f(p, y)), False, False),
    "grad of grad": (lambda f, p, y: grad(lambda p: total(grad(scalar(f), 1)(p, y)))(p), False, False),
    "third": (
        lambda f, p, y: grad(lambda y: total(grad(lambda p: total(grad(scalar(f), 1)(p, y)))(p)))(y),
        False,
        False,
    ),
    "jacrev": (lambda f, p, y: jacrev(lambda y: f(p, y)["out"])(y), False, False),
    "linearize": (lambda f, p, y: linearize(f, p, y)[1](p, y), False, False),
    "plain autograd": (plain_double, False, False),
    "vmap": (lambda f, p, y: vmap(f)(*rows(p, y)), False, False),
    "vmap of grad": (lambda f, p, y: vmap(grad(scalar(f), (0, 1)))(*rows(p, y)), False, False),
    "vmap of grad, shared": (
        lambda f, p, y: vmap(grad(scalar(f), (0, 1)), in_dims=(None, 0))(p, rows(p, y)[1]),
        False,
        False,
    ),
    "grad of vmap": (
        lambda f, p, y: grad(lambda p, y: total(vmap(f, in_dims=(None, 0))(p, y)).sin(), (0, 1))(p, rows(p, y)[1]),
        False,
        False,
    ),
    "vmap of grad of vmap": (
        lambda f, p, y: vmap(
            grad(lambda p, y: total(vmap(f, in_dims=(None, 1))(p, y)).sin(), (0, 1)), in_dims=(0, None)
        )(rows(p, y)[0], torch.stack([y, 3 * y], 1)),
        False,
        False,
    ),
    "grad of vmap of grad": (
        lambda f, p, y: grad(lambda q: total(vmap(grad(scalar(f), 1), in_dims=(0, None))(q, y)))(rows(p, y)[0]),
        False,
        False,
    ),
    "vmap of grad, no_grad": (lambda f, p, y: torch.no_grad()(vmap(grad(scalar(f))))(*rows(p, y)), False, False),
    "grad of an outer variable": (
        lambda f, p, y: grad(lambda p: total(grad(lambda z: total(f(p, y)) * total(z))(y)))(p),
        False,
        False,
    ),
    "per example": (lambda f, p, y: per_example_grad(scalar(f), 0)(p, torch.cat([y, -y])), False, False),
    "remat": (lambda f, p, y: grad(scalar(remat(f)), (0, 1))(p, y), False, False),
    "jit": (lambda f, p, y: jit(grad(scalar(f), (0, 1)), backend="aot_eager")(p, y), False, False),
    "jit of vmap of grad": (
        lambda f, p, y: jit(vmap(grad(scalar(f))), backend="aot_eager")(*rows(p, y)),
        False,
        False,
    ),
    "hvp": (lambda f, p, y: hvp(lambda p: scalar(f)(p, y), (p,), (p,)), False, True),
    "hessian": (lambda f, p, y: hessian(lambda y: scalar(f)(p, y))(y), False, True),
    "jit of hvp": (
        lambda f, p, y: jit(lambda p: hvp(lambda p: scalar(f)(p, y), (p,), (p,)), backend="aot_eager")(p),
        False,
        True,
    ),
    "vmap of hvp": (
        lambda f, p, y: vmap(lambda v: hvp(lambda y: scalar(f)(p, y), (y,), (v,)))(torch.eye(3, dtype=F64)),
        False,
        True,
    ),
    "jvp": (lambda f, p, y: jvp(f, (p, y), (p, y)), True, True),
    "jacfwd": (lambda f, p, y: jacfwd(lambda y: f(p, y)["out"])(y), True, True),
    "jvp of jvp": (lambda f, p, y: jvp(lambda y: jvp(f, (p, y), (p, y))[1], (y,), (y * y,)), True, True),
    "grad of jvp": (lambda f, p, y: grad(lambda p: total(jvp(f, (p, y), (p, y))[1]))(p), True, True),
    "vmap of jvp": (lambda f, p, y: vmap(lambda v: jvp(lambda y: f(p, y), (y,), (v,)))(rows(p, y)[1]), True, True),
    "jvp of vmap": (
        lambda f, p, y: jvp(vmap(f, in_dims=(None, 0)), (p, rows(p, y)[1]), (p, rows(p, y)[1])),
        True,
        True,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("f", [by_vjp, again, by_jvp], ids=["vjp", "vjp again", "jvp"])
def test_a_true_rule_changes_nothing(f, name):
    compute, forward, outside = TRANSFORMS[name]
    p, y = drawn(3, 1 if name == "per example" else 3)
    if (forward and f is not by_jvp) or (outside and f is again):
        with pytest.raises(TypeError, match=r"forward mode \(jvp, jacfwd\) meets"):
            compute(f, p, y)
    else:
        close(compute(f, p, y), compute(raw, p, y))


@given(seeds)
@settings(max_examples=5)
def test_gradcheck(seed):
    p, y = drawn(seed)
    leaves, treedef = tree.flatten((p, y))
    leaves = [leaf.requires_grad_() for leaf in leaves]
    for f in (by_vjp, by_jvp):

        def flat(*leaves, f=f):
            return tuple(tree.leaves(f(*tree.unflatten(treedef, leaves))))

        with torch.random.fork_rng():
            assert torch.autograd.gradcheck(flat, leaves, check_forward_ad=f is by_jvp, check_batched_grad=True)
            assert torch.autograd.gradgradcheck(flat, leaves)


# -- rules that are not the derivative show who is asked


def rule_pair():
    """The square, whose derivative is said to be 10 x, here and in jax."""
    ours = custom_vjp(lambda x: x**2)
    ours.defvjp(lambda x: (x**2, x), lambda x, ct: (10 * x * ct,))
    theirs = jax.custom_vjp(lambda x: x**2)
    theirs.defvjp(lambda x: (x**2, x), lambda x, ct: (10 * x * ct,))
    return ours, theirs


def jvp_pair():
    ours = custom_jvp(lambda x: x**2)
    ours.defjvp(lambda p, t: (p[0] ** 2, 10 * p[0] * t[0]))
    theirs = jax.custom_jvp(lambda x: x**2)
    theirs.defjvp(lambda p, t: (p[0] ** 2, 10 * p[0] * t[0]))
    return ours, theirs


@pytest.mark.parametrize("pair", [rule_pair, jvp_pair])
@pytest.mark.parametrize("x", [-1.3, 0.4])
def test_the_innermost_transform_asks_the_rule_as_in_jax(pair, x):
    ours, theirs = pair()
    functions = {
        "once": lambda g, vg, f: g(f),
        "twice": lambda g, vg, f: g(g(lambda x: f(x) ** 2)),
        "the value inside": lambda g, vg, f: g(lambda x: vg(f)(x)[0]),
        "outer variable": lambda g, vg, f: g(lambda x: g(lambda y: f(x) * y)(2.0 * x)),
        "thrice": lambda g, vg, f: g(g(g(lambda x: f(f(x))))),
    }
    for name, build in functions.items():
        want = build(jax.grad, jax.value_and_grad, theirs)(jnp.float32(x))
        got = build(grad, value_and_grad, ours)(torch.tensor(x))
        torch.testing.assert_close(got, torch.tensor(float(want)), msg=lambda m, name=name: f"{name}: {m}")


@given(seeds)
@settings(max_examples=5)
def test_forward_over_a_reverse_rule_as_in_jax(seed):
    ours, theirs = rule_pair()
    x = random.normal(random.key(seed), (3,))
    want = jax.jit(jax.hessian(lambda x: jnp.sum(theirs(x) ** 2)))(jnp.asarray(x.numpy()))
    close(hessian(lambda x: (ours(x) ** 2).sum())(x), torch.tensor(want.tolist()))


def test_integers_and_numbers_and_none():
    seen = []

    @custom_vjp
    def f(x, n, scale, mask):
        return {"y": x * n * scale, "index": n + 1, "label": "fixed"}

    def bwd(r, ct):
        seen.append(ct)
        return ct["y"] * r, None, None, None

    f.defvjp(lambda x, n, scale, mask: (f(x, n, scale, mask), n * scale), bwd)
    x, n = torch.tensor([1.0, 2.0]), torch.tensor([3, 4])
    got = f(x, n, 0.5, None)
    assert got["label"] == "fixed"
    assert torch.equal(got["index"], n + 1)
    close(grad(lambda x: f(x, n, 0.5, None)["y"].sum())(x), n * 0.5)
    assert seen[0]["index"] is None
    assert seen[0]["label"] is None
    close(vmap(grad(lambda x, n: f(x, n, 0.5, None)["y"]))(x, n), n * 0.5)

    g = custom_jvp(lambda x, n: (x * n, n))

    @g.defjvp
    def _(primals, tangents):
        assert tangents[1] is None
        return g(*primals), (tangents[0] * primals[1], None)

    _, tangent = jvp(lambda x: g(x, n), (x,), (x,))
    close(tangent[0], x * n)
    close(grad(lambda x: g(x, n)[0].sum())(x), n * 1.0)


def test_none_is_zero_for_a_leaf_or_a_subtree():
    f = custom_vjp(lambda p: p["w"] * p["rest"]["b"])
    f.defvjp(lambda p: (f(p), p), lambda p, ct: ({"w": ct * p["rest"]["b"], "rest": None},))
    p = {"w": torch.tensor(2.0), "rest": {"b": torch.tensor(3.0)}}
    close(grad(f)(p), {"w": torch.tensor(3.0), "rest": {"b": torch.tensor(0.0)}})
    f.defvjp(lambda p: (f(p), p), lambda p, ct: (None,))
    close(vmap(grad(f))(tree.stack([p, p])), tree.zeros_like(tree.stack([p, p])))
    g = custom_jvp(lambda x: (x, x * 2))
    g.defjvp(lambda p, t: (g(*p), (None, 2 * t[0])))
    assert jvp(g, (p["w"],), (p["w"],))[1] == (0.0, 4.0)
    assert grad(lambda x: sum(g(x)))(p["w"]) == 2.0
    g.defjvp(lambda p, t: (g(*p), None))
    assert grad(lambda x: sum(g(x)))(p["w"]) == 0.0


def test_nondiff_argnums_come_first():
    @custom_vjp
    def apply(x, f, y):
        return f(x) * y

    positional = custom_vjp(apply.f, nondiff_argnums=(1,))
    positional.defvjp(lambda x, f, y: (f(x) * y, (x, y)), lambda f, r, ct: (ct * r[1] * grad(f)(r[0]), ct * f(r[0])))
    x, y = torch.tensor(0.3), torch.tensor(2.0)
    close(grad(positional, (0, 2))(x, torch.sin, y), (torch.cos(x) * 2, torch.sin(x)))
    close(grad(lambda x: positional(y=y, f=torch.sin, x=x))(x), torch.cos(x) * 2)
    forward = custom_jvp(apply.f, nondiff_argnums=1)
    forward.defjvp(lambda f, p, t: (f(p[0]) * p[1], grad(f)(p[0]) * t[0] * p[1] + f(p[0]) * t[1]))
    close(grad(forward, (0, 2))(x, torch.sin, y), (torch.cos(x) * 2, torch.sin(x)))
    close(jvp(lambda x: forward(x, torch.sin, y), (x,), (x,))[1], torch.cos(x) * 2 * x)


def test_defjvps_sums_a_rule_for_each_argument():
    f = custom_jvp(lambda x, y, z: x * y + z.detach())
    f.defjvps(lambda dx, out, x, y, z: dx * y, lambda dy, out, x, y, z: (out - z) / y * dy, None)
    x, y, z = random.normal(KEY, (3, 4), F64)
    close(grad(lambda *a: f(*a).sum(), (0, 1, 2))(x, y, z), (y, x, torch.zeros(4, dtype=F64)))
    f.defjvps(None, None, None)
    close(grad(lambda *a: f(*a).sum(), (0, 1))(x, y, z), (torch.zeros(4, dtype=F64),) * 2)


def test_a_stable_derivative_stays_stable_at_second_order():
    f = custom_jvp(lambda x: torch.log1p(torch.exp(x)))
    f.defjvps(lambda dx, out, x: torch.sigmoid(x) * dx)
    x = torch.tensor(100.0)
    assert torch.func.grad(f.f)(x).isnan()
    assert grad(f)(x) == 1.0
    assert grad(grad(f))(x) == 0.0
    assert vmap(grad(grad(f)))(x[None]) == 0.0


def test_defaults_and_keywords():
    @custom_vjp
    def f(x, power=3):
        return x**power

    f.defvjp(lambda x, power: (x**power, (x, power)), lambda r, ct: (ct * r[1] * r[0] ** (r[1] - 1), None))
    assert grad(f)(torch.tensor(2.0)) == 12.0
    assert grad(lambda x: f(power=2, x=x))(torch.tensor(2.0)) == 4.0
    assert f.__name__ == "f"
    assert repr(f) == "custom_vjp(f)"


def test_inside_a_module():
    clip = custom_vjp(lambda x: x.clone())
    clip.defvjp(lambda x: (x.clone(), None), lambda _, ct: (ct.clamp(-0.1, 0.1),))

    class Clipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop, self.second = nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(clip(self.drop(self.first(x))))

    model = Model(Clipped)
    params, state = model.init(KEY, dtype=F64)
    x = random.normal(KEY, (5, 3), F64)

    def loss(p, x, key=KEY):
        return model.apply(p, state, x, key=key, train=True)[0].square().sum()

    grads = grad(loss)(params, x)
    assert grads["first.bias"].abs().max() <= 5 * 0.1 / 0.5 + 1e-12  # five examples, half of them dropped
    assert (grads["second.bias"].abs() > 1).any()
    close(jit(grad(loss), backend="aot_eager")(params, x), grads)
    close(torch.func.grad(loss)(params, x), grads)
    each = per_example_grad(loss, batch=1, keys=2)(params, x, KEY)
    loop = [grad(loss)(params, x[i : i + 1], key) for i, key in enumerate(random.split(KEY, 5))]
    close(each, tree.stack(loop))


def test_threads():
    p, y = drawn(1)
    want = grad(scalar(raw), (0, 1))(p, y)
    wrong = []

    def work(f):
        for _ in range(20):
            got = grad(scalar(f), (0, 1))(p, y)
            if not all(map(torch.allclose, tree.leaves(got), tree.leaves(want))):
                wrong.append(f)

    threads = [threading.Thread(target=work, args=(f,)) for f in (by_vjp, by_jvp) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_backward_runs_under_the_autocast_of_the_forward():
    seen = []
    f = custom_vjp(lambda x, w: x @ w)

    def bwd(r, ct):
        seen.append((ct.dtype, (r[0] @ r[1]).dtype))
        return ct @ r[1].mT, r[0].mT @ ct

    f.defvjp(lambda x, w: (x @ w, (x, w)), bwd)
    x, w = random.normal(KEY, (2, 4, 4))

    def loss(f):
        def of(w):
            with torch.autocast("cpu", torch.bfloat16):  # which is over when the backward pass runs
                out = f(x, w)
            return out.float().square().sum()

        return of

    for gradient in (grad, torch.func.grad):
        got, want = gradient(loss(f))(w), gradient(loss(torch.matmul))(w)
        assert got.dtype == torch.float32  # as the argument
        close(got, want, rtol=2e-2, atol=2e-1)
    assert seen == [(torch.bfloat16, torch.bfloat16)] * 2


@pytest.mark.parametrize("f", [by_vjp, by_jvp], ids=["vjp", "jvp"])
@pytest.mark.parametrize("gradient", [grad, torch.func.grad])
def test_nothing_is_held_after_the_gradient(f, gradient):
    kept = []

    def loss(p, y):
        out = f(p, y)
        kept.extend(weakref.ref(leaf) for leaf in tree.leaves(out))
        return total(out)

    gc.disable()
    try:
        gradient(loss)(*drawn(2))
        assert not any(ref() is not None for ref in kept)
    finally:
        gc.enable()


def exponentials():
    by_reverse = custom_vjp(torch.exp)
    by_reverse.defvjp(lambda x: ((out := x.exp()), out), lambda out, ct: (out * ct,))
    by_forward = custom_jvp(torch.exp)
    by_forward.defjvp(lambda p, t: ((out := p[0].exp()), out * t[0]))
    return by_reverse, by_forward


@pytest.mark.parametrize("f", exponentials(), ids=["vjp", "jvp"])
def test_a_residual_that_is_overwritten_is_noticed(f):
    x = random.normal(KEY, (3,)).requires_grad_()
    out = f(x)
    out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    out = f(x)
    out.sum().backward(retain_graph=True)
    out.sum().backward()
    close(x.grad, 2 * x.detach().exp())


# -- bad input


def reader(kind):
    """A function that reads a tensor around it, to be set."""
    around = {}
    f = kind(lambda x: x * around["w"])
    if kind is custom_vjp:
        f.defvjp(lambda x: (x * around["w"], x), lambda x, ct: (ct * around["w"],))
    else:
        f.defjvp(lambda p, t: (p[0] * around["w"], t[0] * around["w"]))
    return f, around


READS = {
    "grad": lambda f, x: grad(lambda w: f(w, x).sum())(x),
    "grad, the argument too": lambda f, x: grad(lambda w: f(w, w).sum())(x),
    "torch.func.grad": lambda f, x: torch.func.grad(lambda w: f(w, x).sum())(x),
    "torch.func.grad, the argument too": lambda f, x: torch.func.grad(lambda w: f(w, w).sum())(x),
    "jvp": lambda f, x: jvp(lambda w: f(w, x), (x,), (x,)),
    "vmap": lambda f, x: vmap(lambda w: f(w, x).sum())(x),
    "vmap, the argument too": lambda f, x: vmap(lambda w: f(w, w))(x),
    "grad of vmap": lambda f, x: grad(lambda w: vmap(lambda v: f(w[0], v))(x).sum())(x),
    "an outer variable": lambda f, x: grad(lambda w: grad(lambda y: (y * f(w, x)).sum())(x).sum())(x),
    "jit": lambda f, x: jit(grad(lambda w: f(w, w).sum()), backend="aot_eager")(x),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_a_tensor_read_from_around_is_refused_where_it_matters(kind, name):
    f, around = reader(kind)

    def call(w, x):
        around["w"] = w
        return f(x)

    with pytest.raises(TypeError, match=r"reads a tensor around it that .*[Mm]ake .*an argument of <lambda>"):
        READS[name](call, random.normal(KEY, (3,)))


@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_a_tensor_of_a_transform_further_out_is_followed(kind):
    # There, what the rule is made of is differentiated, as in jax.
    f, around = reader(kind)
    x = random.normal(KEY, (3,))

    def outer(w, f=f):
        around["w"] = w
        return torch.func.grad(lambda y: f(y).sin().sum())(x).sum()

    close(torch.func.grad(outer)(x), torch.func.grad(lambda w: outer(w, lambda y: y * w))(x))


@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_a_constant_read_from_around_is_no_matter(kind):
    f, around = reader(kind)
    around["w"] = torch.tensor(3.0)
    x = random.normal(KEY, (4,))
    close(vmap(grad(f))(x), torch.full((4,), 3.0))
    around["w"] = torch.tensor(2.0, requires_grad=True)
    with torch.no_grad():
        close(f(x), 2 * x)


def bad(fwd=lambda x, p: (x * p["a"], x), bwd=lambda r, ct: None):
    f = custom_vjp(lambda x, p: x * p["a"])
    f.defvjp(fwd, bwd)
    x = torch.ones(2)
    return lambda: grad(lambda x: f(x, {"a": x}).sum())(x)


def bad_jvp(rule):
    f = custom_jvp(lambda x: {"o": x})
    f.defjvp(rule)
    return lambda: jvp(f, (torch.ones(2),), (torch.ones(2),))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: custom_vjp(lambda x: x)(torch.ones(2)), TypeError, r"no derivative rule yet. Write <lambda>.defvjp"),
        (lambda: custom_jvp(lambda x: x)(torch.ones(2)), TypeError, r"no derivative rule yet. Write @<lambda>.defjvp"),
        (lambda: custom_vjp(3), TypeError, r"custom_vjp takes a function, not a int"),
        (bad(fwd=lambda x, p: x), TypeError, r"fwd of <lambda> must return \(out, residuals\), and returned a Tensor"),
        (bad(bwd=lambda r, ct: ct), TypeError, r"a tuple of 2, one cotangent for each argument, .* a Tensor"),
        (bad(bwd=lambda r, ct: (ct,)), TypeError, r"returned a tuple of 1"),
        (
            bad(bwd=lambda r, ct: (ct, {"b": ct})),
            tree.TreeMismatchError,
            r"cotangents by the rule of <lambda>(.|\n)*'argument 1.a' is missing",
        ),
        (
            bad(bwd=lambda r, ct: (ct, {"a": ct.sum()})),
            ValueError,
            r"shape \(\) as the cotangent of argument 1.a, whose shape is \(2,\). Sum over",
        ),
        (bad(bwd=lambda r, ct: (ct, {"a": 3.0})), TypeError, r"gives a float as the cotangent of argument 1.a"),
        (bad(bwd=lambda r, ct: (ct * 1j, None)), TypeError, r"complex tensor as the cotangent of argument 0"),
        (bad_jvp(lambda p, t: p[0]), TypeError, r"jvp rule of <lambda> must return \(out, tangent\)"),
        (
            bad_jvp(lambda p, t: ({"o": p[0]}, {"u": t[0]})),
            tree.TreeMismatchError,
            r"tangents by the rule of <lambda>(.|\n)*'o' is missing",
        ),
        (bad_jvp(lambda p, t: ({"o": p[0]}, {"o": t[0][:1]})), ValueError, r"shape \(1,\) as the tangent of o"),
        (
            lambda: custom_vjp(lambda n, x: x, nondiff_argnums=(0,)).__call__(torch.ones(2), torch.ones(2)),
            TypeError,
            r"argument 0 of <lambda> is in nondiff_argnums and holds a tensor",
        ),
        (lambda: custom_vjp(lambda x: x, nondiff_argnums=(3,))(1.0), TypeError, r"\(3,\), and was called with 1"),
        (lambda: custom_vjp(lambda x, *, s: x)(1.0, s=2), TypeError, r"keyword-only argument 's'"),
        (lambda: custom_jvp(lambda n, x: x, (0,)).defjvps(None), TypeError, r"write defjvp"),
    ],
)
def test_wrong_use(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_forward_and_reverse_of_plain_torch_at_once_is_refused():
    x = torch.ones(2, requires_grad=True)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones(2))
        with pytest.raises(TypeError, match=r"reverse and forward mode at once.*funcnet.hvp"):
            by_jvp({"a": dual, "b": (dual,)}, dual)


def test_defjvps_counts():
    f = custom_jvp(lambda x, y: x * y)
    f.defjvps(None)
    with pytest.raises(TypeError, match=r"got 1 rules, and the call 2 arguments"):
        grad(f)(torch.tensor(1.0), torch.tensor(2.0))
