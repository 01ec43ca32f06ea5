"""`scan` against jax.lax, Python loops and gradcheck, alone and under every transform, eager and in a traced graph."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from funcnet import grad, hessian, hvp, jacfwd, jacrev, jit, jvp, random, tree, value_and_grad, vmap
from funcnet.control import remat, scan

KEY = random.key(5)
few = settings(max_examples=8, deadline=None)


def normal(n, shape, dtype=torch.float64):
    return random.normal(random.fold_in(KEY, n), shape, dtype)


W, U, H, XS = normal(0, (3, 3)), normal(1, (3, 3)), normal(2, (3,)), normal(3, (6, 3))
WS, XSS = torch.stack([W, 0.5 * W, W + 0.1]), normal(4, (3, 6, 3))


def close(got, want, **tolerance):
    tree.map(lambda a, b: torch.testing.assert_close(a, b, **tolerance), got, want)


def traced(f, backend="eager"):
    """Compiled to the graph alone, which runs as it was traced; some tests and the slow ones go on from there."""
    return jit(f, backend=backend)


def recurrent(w, h, xs, **options):
    """A loss through two outputs, with `w` closed over."""

    def step(h, x):
        h = torch.tanh(h @ w + x @ U)
        return h, {"product": h * x, "sum": (h.sum(), None)}

    h, ys = scan(step, h, xs, **options)
    return (h * ys["product"].mean(0)).sum() + (ys["sum"][0] ** 2).sum()


def loop(f, init, xs, *, reverse=False, **_):
    """The same by a Python loop."""
    carry, ys = init, []
    for i in reversed(range(len(xs))) if reverse else range(len(xs)):
        carry, y = f(carry, xs[i])
        ys.append(y)
    return carry, tree.stack(ys[::-1] if reverse else ys)


# -- against jax


@st.composite
def trees(draw):
    """A carry and what is scanned over: small trees of one or two leaves each."""
    shapes = st.sampled_from([(), (2,), (2, 3)])
    carry = draw(st.dictionaries(st.sampled_from("abc"), shapes, min_size=1, max_size=2))
    xs = draw(st.dictionaries(st.sampled_from("xy"), shapes, max_size=2))
    seed, length = draw(st.integers(0, 2**31)), draw(st.integers(0, 4))
    keys = iter(random.split(random.key(seed), 4))
    return (
        {name: random.normal(next(keys), shape) for name, shape in sorted(carry.items())},
        {name: random.normal(next(keys), (length, *shape)) for name, shape in sorted(xs.items())} or None,
        length,
    )


def step_of(xp):
    def step(carry, x):
        drive = sum((leaf.sum() for leaf in (x or {}).values()), 0.5)
        new = {name: xp.tanh(leaf * drive + i) for i, (name, leaf) in enumerate(carry.items())}
        return new, (sum(leaf.sum() for leaf in new.values()), None) if len(carry) > 1 else None

    return step


def total(xp, scan, carry, xs, length, reverse):
    final, ys = scan(step_of(xp), carry, xs, length=length, reverse=reverse)
    loss = sum((leaf**2).sum() for leaf in final.values())
    return loss + ((ys[0] * 2).sum() if ys is not None else 0.0)


@few
@given(trees(), st.booleans())
def test_values_and_gradients_are_those_of_lax(drawn, reverse):
    jax = pytest.importorskip("jax")
    carry, xs, length = drawn
    to_jax = lambda value: tree.map(lambda t: jax.numpy.asarray(t.numpy()), value)  # noqa: E731 - a name for a phrase
    with jax.disable_jit(length > 0):
        final, ys = jax.lax.scan(step_of(jax.numpy), to_jax(carry), to_jax(xs), length=length, reverse=reverse)
        slopes = jax.grad(lambda c: total(jax.numpy, jax.lax.scan, c, to_jax(xs), length, reverse))(to_jax(carry))
    got = scan(step_of(torch), carry, xs, length=length, reverse=reverse)
    got_slopes = grad(lambda c: total(torch, scan, c, xs, length, reverse))(carry)
    for mine, theirs in ((got, (final, ys)), (got_slopes, slopes)):
        assert (mine[1] is None) == (theirs[1] is None) if isinstance(mine, tuple) else True
        for a, b in zip(tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=2e-4, atol=1e-5)


@few
@given(trees(), st.booleans(), st.sampled_from([1, 2, 3]))
def test_a_traced_scan_is_the_eager_one(drawn, reverse, unroll):
    carry, xs, length = drawn

    def run(carry):
        final, ys = scan(step_of(torch), carry, xs, length=length, reverse=reverse, unroll=unroll)
        slopes = grad(lambda c: total(torch, scan, c, xs, length, reverse))(carry)
        return final, ys, slopes

    close(traced(run)(carry), run(carry))


# -- derivatives


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("unroll", [1, 4])
def test_a_scan_is_a_loop(reverse, unroll, monkeypatch):
    options = {"reverse": reverse, "unroll": unroll}
    f = value_and_grad(lambda *a: recurrent(*a, **options), (0, 1, 2))
    results = f(W, H, XS), traced(f, "aot_eager")(W, H, XS)
    monkeypatch.setitem(globals(), "scan", loop)
    for result in results:
        close(result, f(W, H, XS))


def test_gradcheck():
    w, h, xs = (t.clone().requires_grad_() for t in (W, H, XS[:3]))
    with torch.random.fork_rng():  # gradcheck draws its directions from the global generator
        assert gradcheck(recurrent, (w, h, xs), check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(recurrent, (w, h, xs))


def per_w(f):
    return vmap(f, (0, None, None))


NESTINGS = {
    "value": (recurrent, (W, H, XS)),
    "grad": (grad(recurrent, (0, 1, 2)), (W, H, XS)),
    "grad of xs alone": (grad(recurrent, 2), (W, H, XS)),
    "jvp": (lambda *a: jvp(recurrent, a, (a[0] + 1, 2 * a[1], a[2])), (W, H, XS)),
    "jvp of w alone": (lambda w, h, xs: jvp(lambda w: recurrent(w, h, xs), (w,), (w + 1,)), (W, H, XS)),
    "hessian": (hessian(recurrent), (W, H, XS)),
    "hvp": (lambda w, h, xs: hvp(lambda h: recurrent(w, h, xs), (h,), (h + 1,)), (W, H, XS)),
    "jacfwd": (jacfwd(lambda w: scan(lambda h, x: (torch.tanh(h @ w + x), h), H, XS)[1]), (W,)),
    "jacrev": (jacrev(lambda w: scan(lambda h, x: (torch.tanh(h @ w + x), h), H, XS)[1]), (W,)),
    "grad of grad": (
        grad(lambda *a: sum((g**2).sum() for g in grad(recurrent, (0, 1, 2))(*a)), (0, 1, 2)),
        (W, H, XS),
    ),
    "grad of jvp": (grad(lambda *a: jvp(recurrent, a, a)[1], (0, 1, 2)), (W, H, XS)),
    "jvp of jvp": (lambda *a: jvp(lambda *b: jvp(recurrent, b, b)[1], a, a)[1], (W, H, XS)),
    "vmap of w": (per_w(recurrent), (WS, H, XS)),
    "vmap of xs, on the second axis": (vmap(recurrent, (None, None, 1)), (W, H, XSS.movedim(0, 1))),
    "vmap of both": (vmap(recurrent, (0, None, 0)), (WS, H, XSS)),
    "vmap of vmap": (vmap(vmap(recurrent, (None, None, 0)), (0, None, None)), (WS, H, XSS)),
    "vmap of grad": (vmap(grad(recurrent, (0, 1, 2)), (0, None, 0)), (WS, H, XSS)),
    "grad of vmap": (grad(lambda *a: vmap(recurrent, (0, None, 0))(*a).sum(), (0, 1, 2)), (WS, H, XSS)),
    "vmap of jvp": (per_w(lambda *a: jvp(recurrent, a, a)), (WS, H, XS)),
    "jvp of vmap": (lambda *a: jvp(per_w(recurrent), a, a), (WS, H, XS)),
    "vmap of hvp": (per_w(lambda w, h, xs: hvp(lambda w: recurrent(w, h, xs), (w,), (w,))), (WS, H, XS)),
    "remat": (grad(lambda *a: remat(recurrent)(*a), (0, 1, 2)), (W, H, XS)),
    "vmap of grad of remat": (vmap(grad(lambda *a: remat(recurrent)(*a)), (0, None, 0)), (WS, H, XSS)),
}


QUICK = ("value", "grad", "jvp", "hvp", "grad of grad", "vmap of both", "vmap of grad", "grad of vmap", "remat")
slow = pytest.mark.slow
names = [name if name in QUICK else pytest.param(name, marks=slow) for name in NESTINGS]


@pytest.mark.parametrize("name", names)
def test_under_transforms_eager_and_traced(name, monkeypatch):
    f, args = NESTINGS[name]
    got, compiled = f(*args), traced(f)
    results = [compiled(*args), compiled(*args)]
    assert compiled.compiles == 1
    monkeypatch.setitem(globals(), "scan", loop)
    want = f(*args)
    for result in (got, *results):
        close(result, want)


def nested(w, h, xs):
    def outer(c, x):
        c, inner = scan(lambda h, z: (torch.tanh(h @ w + z * x), h.sum()), c, xs)
        return c, inner.sum() + c.sum()

    return scan(outer, h, xs)[1].sum()


def step_with_grad(w, h, xs):
    def step(c, x):
        slopes = grad(lambda w, c: torch.tanh(c @ w).sum(), (0, 1))(w, c)
        return c - 0.1 * slopes[1] - slopes[0].sum(0), (slopes[0] * x).sum()

    return scan(step, h, xs)[1].sum()


def step_with_vmap(w, h, xs):
    return scan(lambda c, x: (vmap(lambda row: torch.tanh(row * c).sum())(w) + x, c[0]), h, xs)[0].sum()


def step_with_jvp(w, h, xs):
    return scan(lambda c, x: (jvp(lambda w: torch.tanh(c @ w), (w,), (w + x,))[1], None), h, xs)[0].sum()


def step_with_remat(w, h, xs):
    return scan(lambda c, x: (remat(lambda c: torch.tanh(c @ w))(c) + x, None), h, xs)[0].sum()


STEPS = [nested, step_with_grad, step_with_vmap, step_with_jvp, step_with_remat]


@pytest.mark.parametrize("f", STEPS)
def test_a_step_may_hold_any_transform_of_what_it_closes_over(f):
    slopes = grad(f, (0, 1, 2))
    close(traced(slopes)(W, H, XS[:3]), slopes(W, H, XS[:3]))


@pytest.mark.slow
@pytest.mark.parametrize("f", [step for step in STEPS if step is not step_with_jvp])  # torch cannot trace that one so
def test_a_step_with_a_transform_under_another(f):
    for how in (per_w(f), per_w(grad(f)), lambda *a: jvp(grad(f), a, a)):
        args = (W, H, XS[:3]) if how.__name__ == "<lambda>" else (WS, H, XS[:3])
        close(traced(how)(*args), how(*args))


def test_integers_and_unused_inputs():
    """A counter, a mask and an index are carried beside what is differentiated; a leaf of xs may go unread."""

    def loss(w, xs):
        def step(carry, x):
            n, h = carry
            h = torch.where(x["keep"], torch.tanh(h @ w + x["x"]), h)
            return (n + x["keep"], h), n

        (n, h), counts = scan(step, (torch.tensor(0), H), xs)
        return h.sum(), (n, counts)

    xs = {"x": XS, "keep": XS.sum(1) > 0, "unread": XS}
    slopes, (n, counts) = grad(loss, has_aux=True)(W, xs)
    assert counts.tolist() == [int(xs["keep"][:i].sum()) for i in range(6)]
    assert n == xs["keep"].sum()
    close(traced(grad(loss, has_aux=True))(W, xs), (slopes, (n, counts)))
    close(traced(vmap(grad(loss, has_aux=True), (0, None)))(WS, xs), vmap(grad(loss, has_aux=True), (0, None))(WS, xs))


def test_no_gradient_where_none_is_asked_gives_zeros():
    f = grad(lambda w, h: scan(lambda c, x: (c + x.detach() * w.detach().sum(), None), h, XS)[0].sum(), (0, 1))
    close(traced(f)(W, H), (torch.zeros_like(W), torch.ones_like(H)))


# -- the contract


def test_without_xs_and_without_steps():
    double = lambda c, _: (2 * c, c)  # noqa: E731
    final, ys = scan(double, torch.tensor(1), length=4)
    assert (final.item(), ys.tolist()) == (16, [1, 2, 4, 8])
    f = lambda c: scan(double, c, None, length=0)  # noqa: E731
    for run in (f, traced(f)):
        final, ys = run(H)
        close(final, H)
        assert ys.shape == (0, 3)
        assert ys.dtype == H.dtype


def test_numbers_become_tensors():
    def step(carry, x):
        return {"total": carry["total"] + x, "n": carry["n"] + 1, "flag": True}, 1.5

    f = lambda xs: scan(step, {"n": 0, "total": 0.0, "flag": False}, xs)  # noqa: E731
    xs = torch.tensor([1.0, 2.0])
    for run in (f, traced(f)):
        final, ys = run(xs)
        assert list(final) == ["n", "total", "flag"]
        assert (final["n"].dtype, final["total"].dtype, final["flag"].dtype) == (torch.int64, torch.float32, torch.bool)
        assert (final["n"].item(), final["total"].item(), final["flag"].item()) == (2, 3.0, True)
        assert ys.tolist() == [1.5, 1.5]


def test_constants_made_in_the_step_are_compiled():
    f = lambda h: scan(lambda c, x: (c * torch.tensor([1.5, 2, 3]) + torch.tensor(0.5), None), h, XS)  # noqa: E731
    close(traced(f, "aot_eager")(H), f(H))
    slopes = vmap(grad(lambda h: f(h)[0].sum()))
    close(traced(slopes, "aot_eager")(XS), slopes(XS))


def test_nothing_is_mutated():
    before = [t.clone() for t in (W, H, XS)]
    carry = {"h": H}
    scan(lambda c, x: ({"h": c["h"] + x}, c["h"]), carry, XS)
    assert carry["h"] is H
    close([W, H, XS], before)


def test_a_graph_has_one_node_whatever_the_length():
    from funcnet import _compat

    def nodes(length):
        run = grad(lambda w: scan(lambda h, x: (torch.tanh(h @ w + x), h), H, XS[:1].expand(length, 3))[0].sum())
        return len(_compat.trace(lambda w: [run(w)], [W]).graph.nodes)

    assert nodes(5) == nodes(500)


def test_what_cannot_be_looked_into_is_refused():
    f = lambda w: scan(lambda c, x: (c + torch.func.grad(lambda w: (w * c).sum())(w)[0], None), H, XS)  # noqa: E731
    with pytest.raises(RuntimeError, match=r"shape \(3, 3\), and hands it to what cannot be looked into.*argument"):
        traced(f)(W)


def weighted(w):
    """A loss whose class weights, of which torch has no derivative, are carried along."""

    def step(carry, x):
        total, weights, unused = carry
        loss = F.cross_entropy((x * w)[None], torch.tensor([1]), weight=weights)
        return (total + loss, weights, 2 * unused), loss * x

    (total, _, unused), ys = scan(step, (torch.zeros((), dtype=w.dtype), H.square() + 1, H), XS)
    return total * unused.sum() + ys.sum()


@pytest.mark.parametrize(
    "f",
    [
        grad(weighted),
        lambda w: jvp(weighted, (w,), (H,))[1],
        lambda w: jvp(grad(weighted), (w,), (H,)),
        grad(lambda w: (grad(weighted)(w) * H).sum()),
        lambda w: vmap(grad(weighted))(torch.stack([w, 2 * w])),
    ],
    ids=["grad", "jvp", "jvp of grad", "grad of grad", "vmap of grad"],
)
def test_carries_that_no_derivative_reaches_have_none(f):
    close(traced(f)(W[0]), f(W[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grad", "vmap of grad", "hvp", "jvp", "grad of grad"])
def test_compiled_by_inductor(name):
    f, args = NESTINGS[name]
    close(jit(f)(*args), f(*args))


# -- what a gradient keeps


def bodies_of(f, *args):
    """The steps of the scans of a compiled function, forth and back, with the node around each."""
    found = []

    def look(graph, _):
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.higher_order.scan):
            found.append((getattr(graph, node.args[0].target).graph, node))
        return graph

    result = jit(f, backend=look)(*args)
    return result, found


def products(graph):
    return sum("mm" in str(node.target) for node in graph.nodes)


def linear_steps(wrap):
    """Two layers a step, whose weight is shared by all, and a scale of each step's own."""

    def loss(w, scales, h):
        step = wrap(lambda h, s: (h + s * (torch.tanh(h @ w) @ w), None))
        return scan(step, h, scales)[0].square().sum()

    return grad(loss, (0, 1, 2))


@pytest.mark.parametrize(("wrap", "again"), [(lambda f: f, 0), (remat, 2)], ids=["kept", "remat"])
def test_a_gradient_computes_no_step_again_unless_told_to(wrap, again):
    args = (W, XS[:, :1], torch.stack([H, H + 1]))
    slopes, [(forth, node), (back, _)] = bodies_of(linear_steps(wrap), *args)
    close(slopes, linear_steps(wrap)(*args))
    assert products(forth) == 2
    assert products(back) == 4 + again
    stacked = [leaf.shape for leaf in node.meta["val"][1:]]  # after the carry
    assert all(shape[0] == 6 for shape in stacked)
    assert (6, 3, 3) not in stacked  # the weight
    assert len(stacked) == (1 if again else 3)


def test_writes_into_what_is_fresh_are_no_hindrance():
    f = grad(lambda w: scan(lambda h, x: (F.relu(h @ w + x, inplace=True) + h, None), H, XS)[0].sum())
    slopes, [_, (back, _)] = bodies_of(f, W)
    close(slopes, f(W))
    assert products(back) == 2


def test_writes_into_the_carry_are():
    def step(h, x):
        h = h.clone()
        h[0] += x[0]
        h[1:] *= torch.tanh(h @ W)[1:]
        return h, None

    f = grad(lambda h: scan(step, h, XS)[0].sum())
    close(traced(f)(H), f(H))


def test_torchs_own_second_derivatives():
    """Torch says only on the way back that it differentiates again."""

    def twice(w):
        w = w.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(recurrent(w, H, XS), w, create_graph=True)
            (second,) = torch.autograd.grad((slope**2).sum(), w)
        return slope.detach(), second

    close(traced(twice)(W), twice(W))
    slope, second = twice(W)
    close(grad(lambda w: (grad(recurrent)(w, H, XS) ** 2).sum())(W), second)
    close(grad(recurrent)(W, H, XS), slope)


def test_a_pullback_of_what_is_kept_may_itself_be_differentiated():
    from funcnet import vjp

    def f(w, ct):
        pull = vjp(lambda w: scan(lambda h, x: (torch.tanh(h @ w + x), None), H, XS)[0], w)[1]
        return jvp(lambda ct: pull(ct)[0], (ct,), (ct + 1,)), grad(lambda ct: (pull(ct)[0] ** 2).sum())(ct)

    close(traced(f)(W, H), f(W, H))


def test_flipped_operands_are_read_from_the_end(monkeypatch):
    from funcnet import _compat
    from funcnet._compat import flips

    counts, unflip = [], flips.unflip
    monkeypatch.setattr(flips, "unflip", lambda graph: counts.append(unflip(graph)))
    f = lambda h, xs: scan(lambda h, x: (torch.tanh(h + x), h * x), h, xs, reverse=True)  # noqa: E731
    with _compat.empty_compiler_cache():
        close(jit(f)(H, XS), f(H, XS))
    assert max(counts) == 2


def test_the_ys_of_a_step_may_name_their_leaves_in_any_order():
    turns = iter(range(4))

    def step(c, x):
        return c, {"a": x, "b": -x} if next(turns) % 2 else {"b": -x, "a": x}

    rows = torch.arange(12.0).reshape(4, 3)
    _, ys = scan(step, torch.tensor(0.0), rows)
    assert torch.equal(ys["a"], rows)
    assert torch.equal(ys["b"], -rows)


def test_an_unrolled_scan_over_rows_without_elements():
    total, ys = traced(lambda e: scan(lambda c, x: (c + 1, x), torch.tensor(0.0), e, unroll=2))(torch.zeros(6, 0))
    assert (total, ys.shape) == (6.0, (6, 0))
