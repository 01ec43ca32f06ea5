"""remat changes what is kept, never what is computed."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import funcnet as fn
from funcnet import Model, random, remat, tree
from tests.models import Counter, Everything, mlp

W, V = (random.normal(random.key(n), (4, 4), dtype=torch.float64) for n in (1, 2))
X = random.normal(random.key(3), (3, 4), dtype=torch.float64)


def plain(w: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(torch.tanh(x @ w) @ w)


def two(x: Tensor) -> Tensor:
    return torch.stack([x, 2 * x])


# Each takes `plain`, or `plain` under remat.
TRANSFORMS = {
    "grad": lambda f: fn.grad(lambda w: f(w, f(w, X)).sum())(W),
    "vmap of grad": lambda f: fn.vmap(fn.grad(lambda w: f(w, X).sum()))(two(W)),
    "grad of vmap": lambda f: fn.grad(lambda w: fn.vmap(lambda x: f(w, x))(X).sum())(W),
    "jvp": lambda f: fn.jvp(lambda w: f(w, X), (W,), (V,)),
    "vmap of jvp": lambda f: fn.vmap(lambda w: fn.jvp(lambda w: f(w, X), (w,), (V,)))(two(W)),
    "hvp": lambda f: fn.hvp(lambda w: f(w, X).sum(), (W,), (V,)),
    "hessian": lambda f: fn.hessian(lambda w: f(w, X).sum())(W),
    "reverse over reverse": lambda f: fn.grad(lambda w: fn.grad(lambda w: f(w, X).sum())(w).square().sum())(W),
    "reverse over forward": lambda f: fn.grad(lambda w: fn.jvp(lambda w: f(w, X), (w,), (V,))[1].sum())(W),
    "third order": lambda f: fn.grad(lambda w: fn.hvp(lambda w: f(w, X).sum(), (w,), (V,))[1].sum())(W),
    "jacrev": lambda f: fn.jacrev(lambda w: f(w, X))(W),
    "jacfwd": lambda f: fn.jacfwd(lambda w: f(w, X))(W),
    "per example": lambda f: fn.per_example_grad(lambda w, x: f(w, x).sum())(W, X),
    "nested": lambda f: fn.vmap(fn.grad(lambda w: remat(lambda w: f(w, f(w, X)))(w).sum()))(two(W)),
    "closed over": lambda f: fn.grad(lambda w: remat(lambda x: f(w, x))(X).sum())(W),
    "closed over, vmapped": lambda f: fn.vmap(fn.grad(lambda w: remat(lambda x: f(w, x))(X).sum()))(two(W)),
    "closed over, twice": lambda f: fn.hvp(lambda w: remat(lambda x: remat(lambda y: f(w, y))(x))(X).sum(), (W,), (V,)),
    "grad inside": lambda f: fn.grad(lambda w: remat(lambda x: fn.grad(lambda v: f(v, x).sum())(w).sum())(X))(W),
    "vmap inside": lambda f: fn.grad(lambda w: remat(lambda x: fn.vmap(lambda v: f(w, x) @ v)(w).sum())(X))(W),
}


def assert_equal(got: object, want: object) -> None:
    assert tree.structure(got) == tree.structure(want)
    for (path, a), b in zip(tree.leaves_with_path(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, path=path: f"{path}: {text}")


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_gives_the_same(name: str, jitted: bool):
    transform = TRANSFORMS[name]
    again = remat(plain)
    got = fn.jit(lambda: transform(again), backend="aot_eager")() if jitted else transform(again)
    assert_equal(got, transform(plain))


@settings(max_examples=5)
@given(st.integers(0, 2**31), st.integers(1, 3), st.booleans())
def test_gradcheck(seed: int, size: int, closed: bool):
    a, b = (random.normal(k, (size, size), dtype=torch.float64) for k in random.split(random.key(seed)))
    f = remat(lambda w, x: plain(w, x).cumsum(0))
    call = (lambda w, x: remat(lambda: f(w, x))()) if closed else f
    inputs = (a.requires_grad_(), b.requires_grad_())
    with torch.random.fork_rng(devices=[]):  # gradgradcheck draws cotangents
        assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(call, inputs, check_fwd_over_rev=True)


def test_trees_other_leaves_and_keywords_pass():
    @remat
    def f(p: dict, flag: bool, *, scale: Tensor) -> dict:
        """What it does."""
        return {"y": p["w"] * scale if flag else p["w"], "n": torch.arange(3), "text": "kept", "none": p["none"]}

    def loss(w: Tensor) -> tuple[Tensor, dict]:
        out = f({"w": w, "none": None}, True, scale=torch.tensor(3.0))
        return out["y"].sum(), out

    grad, out = fn.grad(loss, has_aux=True)(torch.tensor([1.0, 2.0]))
    assert grad.tolist() == [3.0, 3.0]
    assert (out["text"], out["none"], out["n"].tolist()) == ("kept", None, [0, 1, 2])
    assert f.__doc__ == "What it does."


def test_an_input_that_is_returned_is_not_taken_for_one_written_in_place():
    got = fn.grad(lambda w: sum(t.sum() for t in remat(lambda w: (w, w * 2, w))(w)))(W)
    torch.testing.assert_close(got, torch.full_like(W, 4.0))


class Holder:
    w: Tensor


@pytest.mark.parametrize("outer", [fn.grad, lambda f: lambda w: fn.vmap(fn.grad(f))(two(w))], ids=["grad", "vmap"])
def test_a_tensor_hidden_in_an_object_is_found(outer: object):
    holder = Holder()

    def loss(f: object) -> object:
        def of(w: Tensor) -> Tensor:
            holder.w = w
            return f(X).sum()

        return of

    assert_equal(outer(loss(remat(lambda x: plain(holder.w, x))))(W), outer(loss(lambda x: plain(holder.w, x)))(W))


class Net:
    """No module: a function of what it holds."""

    def __init__(self, w: Tensor, deep: bool) -> None:
        self.held = Holder() if deep else {"w": w}
        if deep:
            self.held.w = w

    def __call__(self, x: Tensor) -> Tensor:
        w = self.held["w"] if isinstance(self.held, dict) else self.held.w
        return plain(w, x).square().sum()


INSIDE = {
    "grad": lambda net: lambda x: fn.grad(net)(x),
    "grad of grad": lambda net: lambda x: fn.grad(lambda x: fn.grad(net)(x).square().sum())(x),
    "vmap": lambda net: lambda x: fn.vmap(net)(x),
    "jvp": lambda net: lambda x: fn.jvp(net, (x,), (X,))[1],
}
OUTSIDE = {
    "grad": fn.grad,
    "vmap": lambda f: lambda w: fn.vmap(f)(two(w)),
    "grad of vmap": lambda f: fn.grad(lambda w: fn.vmap(f)(two(w)).sum()),
    "vmap of grad": lambda f: lambda w: fn.vmap(fn.grad(f))(two(w)),
    "hvp": lambda f: lambda w: fn.hvp(f, (w,), (V,)),
}


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("deep", [False, True], ids=["attribute", "attribute of an attribute"])
def test_a_tensor_hidden_in_an_object_and_read_inside_a_transform_is_found(deep: bool, inside: str, outside: str):
    def loss(wrap: object) -> object:
        return lambda w: wrap(INSIDE[inside](Net(w, deep)))(X).sum()

    assert_equal(OUTSIDE[outside](loss(remat))(W), OUTSIDE[outside](loss(lambda f: f))(W))


def test_a_global_read_inside_a_transform_is_found():
    def loss(wrap: object) -> object:
        def of(w: Tensor) -> Tensor:
            globals()["_everywhere"] = w
            return wrap(lambda x: fn.grad(lambda x: plain(_everywhere, x).sum())(x))(X).sum()  # noqa: F821

        return of

    assert_equal(fn.grad(loss(remat))(W), fn.grad(loss(lambda f: f))(W))
    del globals()["_everywhere"]


@pytest.mark.parametrize("also", [0.0, 1.0], ids=["alone", "beside another use"])
@pytest.mark.parametrize("outer", [fn.grad, lambda f: fn.jit(fn.grad(f), backend="aot_eager")], ids=["eager", "jit"])
def test_a_closed_over_tensor_in_torchs_own_transform_is_refused(outer: object, also: float):
    def hiding(w: Tensor, x: Tensor) -> Tensor:
        within = torch.func.grad(lambda v: plain(v, x).sum() ** 2)(w)
        return within.sum() + (also * w.sum() if also else 0)

    with pytest.raises(RuntimeError, match=r"a tensor of shape \(4, 4\), and hands it to what .* such as torch.func"):
        outer(lambda w: remat(lambda x: hiding(w, x))(X))(W)
    assert_equal(outer(lambda w: remat(hiding)(w, X))(W), outer(lambda w: hiding(w, X))(W))


def test_a_list_of_tensors_written_in_place_is_seen():
    def loss(wrap: object) -> object:
        def of(w: Tensor) -> Tensor:
            a, b = w * 1, w * 2

            def body(x: Tensor) -> Tensor:
                torch._foreach_mul_([a, b], 2.0)
                return x @ a @ b

            return wrap(body)(X).sum() + (a * b).sum()

        return of

    assert_equal(fn.grad(loss(remat))(W), fn.grad(loss(lambda f: f))(W))


class Layer:
    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return x @ w


def test_a_static_forward_of_another_class_is_none_of_an_autograd_function():
    got = fn.grad(lambda w: remat(lambda x: Layer.forward(x, w))(X).sum())(W)
    torch.testing.assert_close(got, X.sum(0)[:, None].expand(4, 4))


class Round(torch.autograd.Function):
    """Rounds, with the derivative of the identity."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return g


def test_a_closed_over_tensor_in_an_autograd_function_is_refused():
    with pytest.raises(RuntimeError, match=r"Round\.forward was given a tensor of shape \(4, 4\).*Make the tens"):
        fn.grad(lambda w: remat(lambda x: x @ Round.apply(w))(X).sum())(W)
    got = fn.grad(lambda w: remat(lambda w, x: x @ Round.apply(w))(w, X).sum())(W)
    torch.testing.assert_close(got, X.sum(0)[:, None].expand(4, 4))


class Again(nn.Module):
    """A module whose part is run several times, recomputed or not."""

    def __init__(self, make: object, again: bool) -> None:
        super().__init__()
        self.part, self.again = make(), again

    def forward(self, x: Tensor) -> Tensor:
        part = remat(self.part) if self.again else self.part
        for _ in range(3):
            y = part(x)
            x = y if y.shape == x.shape else x
        return y


class Writer(nn.Module):
    """Buffers that depend on parameters, and are written while the result depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.counter = nn.Linear(3, 3), Counter()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.counter(torch.tanh(self.linear(x))))


def averaging() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=None), nn.Dropout(0.5))


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)), nn.Tanh())


MODULES = {
    "everything": (Everything, (4, 3, 5, 5)),
    "writer": (Writer, (4, 3)),
    "averaging": (averaging, (4, 3)),
    "mlp": (mlp, (4, 6)),
    "spectral": (spectral, (4, 3)),
}


def whole(model: Model, params: dict, state: dict, x: Tensor, key: Tensor) -> tuple[Tensor, object]:
    y, state = model.apply(params, state, x, key=key, train=True)
    return y.square().sum(), (y, state)


def stacked(values: dict) -> dict:
    return tree.map(lambda t: torch.stack([t, t + 1 if t.is_floating_point() else t]), values)


ON_MODELS = {
    "forward": lambda m, p, s, x, k: m.apply(p, s, x, key=k, train=True),
    "evaluation": lambda m, p, s, x, k: m(p, s, x),
    "grad": lambda m, p, s, x, k: fn.value_and_grad(lambda p: whole(m, p, s, x, k), has_aux=True)(p),
    "hvp": lambda m, p, s, x, k: fn.hvp(lambda p: whole(m, p, s, x, k)[0], (p,), (p,)),
    "reverse over reverse": lambda m, p, s, x, k: fn.grad(
        lambda p: tree.global_norm(fn.grad(lambda p: whole(m, p, s, x, k)[0])(p))
    )(p),
    "ensemble": lambda m, p, s, x, k: fn.ensemble(
        fn.value_and_grad(lambda p, s, k: whole(m, p, s, x, k), has_aux=True), (0, 1), keys=2
    )(stacked(p), stacked(s), k),
}


# Tracing the second derivatives of a convolution takes seconds.
CASES = [(name, transform, False) for name in MODULES for transform in ON_MODELS]
CASES += [("writer", transform, True) for transform in ON_MODELS] + [("everything", "grad", True)]
SLOW = [(name, transform, True) for name, transform, _ in CASES if (name, transform, True) not in CASES]


@pytest.mark.parametrize(
    ("name", "transform", "jitted"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_inside_a_module_draws_statistics_and_buffers_are_the_same(name: str, transform: str, jitted: bool):
    make, shape = MODULES[name]
    x = random.normal(random.key(4), shape, dtype=torch.float64)
    params, state = Model(Again, make, False).init(random.key(5), dtype=torch.float64)
    want = ON_MODELS[transform](Model(Again, make, False), params, state, x, random.key(6))
    again = Model(Again, make, True)

    def run(params: dict, state: dict, x: Tensor, key: Tensor) -> object:
        return ON_MODELS[transform](again, params, state, x, key)

    run = fn.jit(run, backend="aot_eager") if jitted else run
    assert_equal(run(params, state, x, random.key(6)), want)


def test_a_module_is_given_back_once_its_derivative_is_done():
    model = Model(Again, mlp, True)
    params, state = model.init(random.key(0))
    x = random.normal(random.key(1), (4, 6))
    for _ in range(3):
        fn.grad(lambda p: whole(model, p, state, x, random.key(2))[0])(params)
    assert len(model._skeleton._free[True]) == 1


def test_threads_do_not_meet():
    model, plainly = Model(Again, mlp, True), Model(Again, mlp, False)
    members = [model.init(k) for k in random.split(random.key(0), 6)]
    x = random.normal(random.key(1), (4, 6))

    def gradient(m: Model, n: int) -> object:
        params, state = members[n]
        return fn.grad(lambda p: whole(m, p, state, x, random.key(n))[0])(params)

    wrong = []

    def work(n: int) -> None:
        want = gradient(plainly, n)
        for _ in range(10):
            got = gradient(model, n)
            wrong.extend(name for name in want if not torch.allclose(got[name], want[name], atol=1e-6))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_as_it_was(dtype: torch.dtype):
    def loss(f: object) -> object:
        def of(w: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype):
                y = f(w, X.float())
            assert y.dtype == dtype
            return y.float().sum()

        return of

    assert_equal(fn.grad(loss(remat(plain)))(W.float()), fn.grad(loss(plain))(W.float()))


def test_only_the_inputs_are_kept():
    kept: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    w = W.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        remat(plain)(w, X)
    assert {t.data_ptr() for t in kept} == {w.data_ptr(), X.data_ptr()}


def test_the_compiled_graph_computes_again():
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph

    fn.jit(fn.grad(lambda w: remat(plain)(w, X).sum()), backend=keep)(W)
    assert sum("tanh.default" in str(node.target) for node in graphs[0].graph.nodes) >= 3
    later = [node for node in graphs[0].graph.nodes if "later" in str(node.target)]
    assert len(later) == 2
