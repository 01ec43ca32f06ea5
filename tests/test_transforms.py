import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import funcnet
from funcnet import (
    Model,
    ensemble,
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
    stop_gradient,
    tree,
    value_and_grad,
    vjp,
    vmap,
)
from funcnet.pure import examples
from tests.models import Everything, cnn

KEY = random.key(11)
seeds = st.integers(0, 2**32 - 1)


def close(a, b, **tolerance):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, **tolerance), a, b)


def params_of(seed):
    keys = random.split(random.key(seed), 2)

    def normal(key, shape):
        return random.normal(key, shape, torch.float64)

    return {"w": normal(keys[0], (3, 2)), "inner": (normal(keys[1], (2,)), torch.tensor(0.5, dtype=torch.float64))}


def scalar(params, x):
    b, c = params["inner"]
    return (torch.tanh(x @ params["w"] + b) * c).pow(2).sum() + c.exp()


X = random.normal(KEY, (4, 3), torch.float64)


@given(seeds)
def test_both_engines_of_value_and_grad_agree(seed):
    params = params_of(seed)
    value, grads = value_and_grad(scalar)(params, X)
    expected, value2 = torch.func.grad_and_value(scalar)(params, X)
    assert torch.equal(value, value2)
    assert not value.requires_grad
    close(grads, expected, rtol=0, atol=0)


@given(seeds)
def test_gradients_against_gradcheck(seed):
    leaves, treedef = tree.flatten(params_of(seed))
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def f(*flat):
        return scalar(tree.unflatten(treedef, flat), X)

    # The gradient function itself, differentiated by torch.autograd from outside.
    def gradients(*flat):
        return tuple(tree.leaves(grad(scalar)(tree.unflatten(treedef, flat), X)))

    with torch.random.fork_rng():  # gradcheck draws its directions from the global generator
        assert gradcheck(f, leaves, check_forward_ad=True)
        assert gradgradcheck(f, leaves)
        assert gradcheck(gradients, leaves)


@given(seeds)
def test_second_derivatives_agree(seed):
    x = random.normal(random.key(seed), (5,), torch.float64)
    v = random.normal(random.key(seed + 1), (5,), torch.float64)

    def f(x):
        return (x.sin() * x.flip(0)).sum() ** 2

    h = hessian(f)(x)
    close(h, torch.autograd.functional.hessian(f, x))
    close(jacrev(grad(f))(x), h)
    close(jacfwd(grad(f))(x), h)
    close(hvp(f, (x,), (v,)), h @ v)
    close(vmap(lambda v: hvp(f, (x,), (v,)))(torch.eye(5, dtype=torch.float64)), h)
    close(grad(lambda x: grad(f)(x) @ v)(x), h @ v)


def test_hvp_of_several_arguments_is_of_their_joint_hessian():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor(3.0)

    def f(a, b):
        return (a**2).sum() * b

    close(hvp(f, (a, b), (torch.ones(2), torch.tensor(1.0))), (2 * b * torch.ones(2) + 2 * a, (2 * a).sum()))


@given(seeds)
def test_products_are_adjoint(seed):
    # <J v, w> = <v, J' w> along random directions.
    params, tangent = params_of(seed), params_of(seed + 1)

    def f(p):
        return torch.tanh(X @ p["w"] + p["inner"][0]) * p["inner"][1]

    out, forward = jvp(f, (params,), (tangent,))
    out2, pullback = vjp(f, params)
    cotangent = random.normal(random.key(seed), out.shape, torch.float64)
    (backward,) = pullback(cotangent)
    inner = sum((a * b).sum() for a, b in zip(tree.leaves(tangent), tree.leaves(backward), strict=True))
    close((forward * cotangent).sum(), inner)
    out3, linear = linearize(f, params)
    close((out2, out3, linear(tangent)), (out, out, forward))


def test_result_order_is_that_of_jax():
    def f(x):
        return (x**2, "aux")

    assert value_and_grad(f, has_aux=True)(torch.tensor(3.0)) == ((9.0, "aux"), 6.0)
    assert grad(f, has_aux=True)(torch.tensor(3.0)) == (6.0, "aux")

    def g(x, y):
        return x * y**2

    assert grad(g, argnums=(0, 1))(torch.tensor(3.0), torch.tensor(2.0)) == (4.0, 12.0)
    assert grad(g, argnums=-1)(torch.tensor(3.0), torch.tensor(2.0)) == 12.0


def test_leaves_that_do_not_matter_have_zero_gradients():
    grads = grad(lambda p: p["a"].sum())({"a": torch.ones(2), "b": torch.ones(3)})
    assert torch.equal(grads["b"], torch.zeros(3))
    assert torch.equal(grad(lambda x: torch.tensor(1.0))(torch.ones(2)), torch.zeros(2))


def test_nested_gradients_in_aux_and_inside():
    def outer(x):
        inner = grad(lambda y: (y**3).sum())(x)  # 3 x^2, inside the outermost gradient
        return (inner**2).sum(), inner

    grads, inner = grad(outer, has_aux=True)(torch.tensor([2.0]))
    close((grads, inner), (torch.tensor([288.0]), torch.tensor([12.0])))
    assert not inner.requires_grad


def test_gradients_pass_through_to_an_autograd_outside():
    x = torch.tensor(2.0, requires_grad=True)
    (second,) = torch.autograd.grad(grad(lambda x: x**3)(x), x)
    assert second == 12.0


def test_gradients_ignore_no_grad_outside_and_obey_it_inside():
    with torch.no_grad():
        assert grad(lambda x: x**2)(torch.tensor(3.0)) == 6.0

    def partly(x):
        with torch.no_grad():
            constant = x**2
        return constant * x

    assert grad(partly)(torch.tensor(3.0)) == 9.0
    assert vmap(grad(partly))(torch.tensor([3.0])) == 9.0


def test_an_error_inside_leaves_the_engine_ready():
    def broken(x):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError, match="no"):
        grad(broken)(torch.tensor(1.0))
    assert grad(grad(lambda x: x**3))(torch.tensor(2.0)) == 12.0


def test_stop_gradient():
    def f(p):
        return (stop_gradient(p)["a"] * p["a"]).sum()

    close(grad(f)({"a": torch.tensor([2.0, 3.0])}), {"a": torch.tensor([2.0, 3.0])})
    assert stop_gradient({"n": 3})["n"] == 3
    _, tangent = jvp(lambda x: stop_gradient(x) * x, (torch.tensor(3.0),), (torch.tensor(1.0),))
    assert tangent == 3.0


def loss_of(model):
    def loss(params, state, batch, key):
        x, y = batch
        out, state = model.apply(params, state, x, key=key, train=True)
        return torch.nn.functional.mse_loss(out, y), state

    return loss


def test_per_example_gradients_equal_a_loop():
    model = Model(lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 2)))
    params, state = model.init(KEY, dtype=torch.float64)
    x, y = random.normal(KEY, (4, 6), torch.float64), random.normal(KEY, (4, 2), torch.float64)
    loss = loss_of(model)
    got, _ = per_example_grad(loss, batch=2, keys=3, has_aux=True)(params, state, (x, y), KEY)
    keys = random.split(KEY, 4)
    loop = [grad(loss, has_aux=True)(params, state, (x[i : i + 1], y[i : i + 1]), keys[i])[0] for i in range(4)]
    close(got, tree.stack(loop))
    chunked, _ = per_example_grad(loss, batch=2, keys=3, has_aux=True, chunk_size=3)(params, state, (x, y), KEY)
    close(chunked, got)
    assert not torch.allclose(got["0.weight"][0], got["0.weight"][1])


def test_mean_of_per_example_gradients_is_the_gradient():
    w, x = random.normal(KEY, (3,), torch.float64), X

    def loss(w, x):
        return (x @ w).square().mean()

    close(per_example_grad(loss)(w, x).mean(0), grad(loss)(w, x))


def test_ensemble_of_models_with_batch_norm_and_dropout_equals_a_loop():
    model = Model(Everything)
    members = [model.init(key) for key in random.split(KEY, 3)]
    params, state = tree.stack(members)
    x = random.normal(KEY, (5, 3, 8, 8))

    def run(p, s, x, k):
        return model.apply(p, s, x, key=k, train=True)

    got = ensemble(run, members=(0, 1), keys=3)(params, state, x, KEY)
    keys = random.split(KEY, 3)
    close(got, tree.stack([run(p, s, x, k) for (p, s), k in zip(members, keys, strict=True)]), rtol=1e-4, atol=1e-5)


def test_ensembles_of_batch_norm_keep_the_statistics_of_each_member():
    for momentum in (0.3, None):
        model = Model(lambda m=momentum: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=m)))
        members = [model.init(key, dtype=torch.float64) for key in random.split(KEY, 3)]
        params, state = tree.stack(members)

        def two_steps(p, s, x, model=model):
            _, s = model.apply(p, s, x, train=True)
            return model.apply(p, s, x.flip(1), train=True)

        got = ensemble(two_steps, members=(0, 1))(params, state, X)
        close(got, tree.stack([two_steps(p, s, X) for p, s in members]))
        assert not torch.equal(got[1]["1.running_mean"][0], got[1]["1.running_mean"][1])
        close(jit(ensemble(two_steps, members=(0, 1)), backend="aot_eager")(params, state, X), got)


def test_batch_norm_of_single_examples_is_warned_of_once(monkeypatch):
    monkeypatch.setattr(examples, "_said", False)
    model = Model(cnn)
    params, state = model.init(KEY, dtype=torch.float64)
    x = random.normal(KEY, (4, 3, 8, 8), torch.float64)

    def loss(p, x):
        return model.apply(p, state, x, train=True)[0].square().mean()

    with pytest.warns(
        UserWarning, match=r"batch of one: in train mode.*Evaluate it with train=False.*GroupNorm"
    ) as said:
        got = [per_example_grad(loss)(params, x) for _ in range(2)][1]
    assert len(said) == 1
    close(got, tree.stack([grad(loss)(params, x[i : i + 1]) for i in range(4)]))

    monkeypatch.setattr(examples, "_said", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of these is asked for single examples
        per_example_grad(lambda p, x: model(p, state, x).square().mean())(params, x)
        grad(loss)(params, x[:1])
        vmap(grad(loss))(tree.stack([params, params]), torch.stack([x, x]))


@pytest.mark.parametrize("engine", [grad, per_example_grad, torch.func.grad])
def test_batch_norm_of_one_value_is_refused(engine):
    model = Model(nn.BatchNorm1d, 3)
    params, state = model.init(KEY, dtype=torch.float64)

    def loss(p, x):
        return model.apply(p, state, x, train=True)[0].sum()

    why = "since per_example_grad makes each.*GroupNorm" if engine is per_example_grad else "Give a batch of two"
    with pytest.raises(ValueError, match=rf"more than 1 value per channel.*size \(1, 3\).*{why}"):
        engine(loss)(params, X[:1])


@pytest.mark.parametrize("constructor", [Everything, cnn])
def test_models_under_every_transform(constructor):
    model = Model(constructor)
    params, state = model.init(KEY, dtype=torch.float64)
    x = random.normal(KEY, (4, 3, 8, 8), torch.float64)

    def f(p):
        return model.apply(p, state, x, key=KEY, train=True)[0].square().mean()

    tangent = tree.map(lambda p: random.normal(KEY, p.shape, p.dtype), params)
    grads = grad(f)(params)
    close(torch.func.grad(f)(params), grads)
    directional = sum((a * b).sum() for a, b in zip(tree.leaves(grads), tree.leaves(tangent), strict=True))
    close(jvp(f, (params,), (tangent,))[1], directional)
    product = hvp(f, (params,), (tangent,))

    def along(t):
        return grad(f)(tree.map(lambda p, v: p + t * v, params, tangent))

    h = 1e-5
    differences = tree.map(lambda a, b: (a - b) / (2 * h), along(h), along(-h))
    close(product, differences, rtol=1e-4, atol=1e-6)
    close(jit(grad(f), backend="aot_eager")(params), grads)
    stacked = tree.stack([params, tree.map(lambda p: 2 * p, params)])
    close(tree.unstack(vmap(grad(f))(stacked))[0], grads)


# -- None is an empty subtree


HOLED = {"w": random.normal(KEY, (2, 3), torch.float64), "bias": None, "rest": (None, [torch.tensor(2.0).double()])}


def holed(p):
    return {"y": torch.tanh(p["w"]) * p["rest"][1][0] ** 2, "none": None}


def filled(w, c):
    return torch.tanh(w) * c**2


W, C = HOLED["w"], HOLED["rest"][1][0]


def like_holed(w, c):
    return {"w": w, "bias": None, "rest": (None, [c])}


def test_none_in_products():
    out, pullback = vjp(holed, HOLED)
    want, plain = vjp(filled, W, C)
    close(out, {"y": want, "none": None})
    close(pullback(out), (like_holed(*plain(want)),))
    tangent = tree.map(lambda t: 3 * t, HOLED)
    _, pushed = jvp(holed, (HOLED,), (tangent,))
    close(pushed, {"y": jvp(filled, (W, C), (3 * W, 3 * C))[1], "none": None})
    close(linearize(holed, HOLED)[1](tangent), pushed)
    product = hvp(lambda p: holed(p)["y"].sum(), (HOLED,), (tangent,))
    close(product, like_holed(*hvp(lambda w, c: filled(w, c).sum(), (W, C), (3 * W, 3 * C))))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_none_in_jacobians(jacobian):
    want = torch.func.jacrev(filled, argnums=(0, 1))(W, C)
    close(jacobian(holed)(HOLED), {"y": like_holed(*want), "none": None})
    pair, aux = jacobian(lambda n, p: (holed(p)["y"], ("aux", None, p["w"])), argnums=(0, 1), has_aux=True)(C, HOLED)
    close(pair, (torch.zeros_like(W), like_holed(*want)))
    assert aux[:2] == ("aux", None)
    assert torch.equal(aux[2], W)


def test_none_in_hessians():
    want = torch.func.hessian(lambda w, c: filled(w, c).sum(), argnums=(0, 1))(W, C)
    close(hessian(lambda p: holed(p)["y"].sum())(HOLED), like_holed(like_holed(*want[0]), like_holed(*want[1])))


def test_none_in_maps():
    rows = tree.map(lambda t: torch.stack([t, 2 * t]), HOLED)
    want = tree.stack([holed(member) for member in tree.unstack(rows)])
    close(vmap(holed)(rows), want)
    close(ensemble(lambda p, x: holed(p))(rows, X), want)
    each = per_example_grad(lambda p, x: (holed(p)["y"] * x["x"]).sum())(HOLED, {"x": X, "none": None})
    loop = [grad(lambda p, i=i: (holed(p)["y"] * X[i]).sum())(HOLED) for i in range(len(X))]
    close(each, tree.stack(loop))


def test_prefixes_of_in_dims_and_out_dims():
    def f(p, x, n):
        return {"y": p["a"] * x, "same": p["b"], "name": "text", "none": None}, x.sum() + n

    a, b, x = (random.normal(k, (3, 2)) for k in random.split(KEY, 3))
    in_dims = ({"a": 1, "b": None}, 0, None)
    out_dims = ({"y": 1, "same": None, "name": None, "none": 0}, 0)
    for chunk_size in (None, 2):
        got, sums = vmap(f, in_dims, out_dims, chunk_size=chunk_size)({"a": a.mT, "b": b}, x, 4)
        assert torch.equal(got["y"], (a * x).mT)
        assert torch.equal(got["same"], b)
        assert (got["name"], got["none"]) == ("text", None)
        close(sums, x.sum(1) + 4)
    close(vmap(lambda x: x, in_dims=-1, out_dims=-1)(x), x)
    outer = vmap(vmap(torch.mul, in_dims=(0, None)), in_dims=(None, 0), out_dims=1)
    close(outer(a[:, 0], x[:, 0]), torch.outer(a[:, 0], x[:, 0]))


# -- bad input


@pytest.mark.parametrize("verb", ["grad", "value_and_grad", "jacfwd", "jacrev", "hessian"])
def test_leaves_that_cannot_be_differentiated_are_named(verb):
    params = {"w": torch.ones(2), "steps": torch.tensor(3)}

    def loss(params):
        return params["w"].sum()

    transformed = getattr(funcnet, verb)(loss)
    with pytest.raises(TypeError, match=rf"{verb}\(loss\).*leaf 'steps' of argument 0.*dtype int64.*tree.split"):
        transformed(params)


def named_loss(w, x):
    return (x @ w).sum(), (w, "aux")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: grad(lambda x: x * 2)(torch.ones(2)),
            TypeError,
            r"0-dim floating tensor.*shape \(2,\).*per_example_grad",
        ),
        (lambda: grad(lambda x: (x.sum(), 1))(torch.ones(2)), TypeError, r"has_aux=True"),
        (lambda: grad(lambda x: x.sum(), has_aux=True)(torch.ones(2)), TypeError, r"must return \(value, aux\)"),
        (lambda: grad(lambda x: x.sum(), argnums=1)(torch.ones(2)), TypeError, r"argument 1, but was called with 1"),
        (lambda: grad(lambda x: x.sum())(3.0), TypeError, r"argument 0 is a float"),
        (lambda: grad(lambda x: 3.0)(torch.ones(2)), TypeError, r"returned a float"),
        (lambda: vjp(lambda x: x, torch.tensor(1)), TypeError, r"vjp.*dtype int64"),
        (
            lambda: jvp(lambda x: x["a"], ({"a": torch.ones(2)},), ({"b": torch.ones(2)},)),
            tree.TreeMismatchError,
            r"tangents does not match primals",
        ),
        (lambda: per_example_grad(lambda w, x: w * x)(torch.ones(()), torch.ones(())), TypeError, r"first axis"),
        (
            lambda: per_example_grad(lambda w, x, y: w)(torch.ones(()), torch.ones(2), torch.ones(3)),
            ValueError,
            r"2 in argument 1; 3 in argument 2",
        ),
        (lambda: ensemble(lambda w: w)({}), ValueError, r"no mapped tensor"),
        (
            lambda: vmap(lambda x: {"n": 3.0, "x": x})(X),
            TypeError,
            r"leaf 'n' is a float. .*out_dims if it is the same",
        ),
        (
            lambda: per_example_grad(named_loss, has_aux=True)(X[0], X),
            TypeError,
            r"\(named_loss\).*leaf '1.1' is a str. Return a tensor \(torch.as_tensor\)\.",
        ),
        (lambda: vmap(lambda x: x, out_dims=None)(X), ValueError, r"differs from element to element"),
        (lambda: vmap(lambda x: x, out_dims=5)(X), ValueError, r"has places -2 to 1 for a new axis"),
        (
            lambda: vmap(lambda x, p: x)(X, {"w": X[0]}),
            ValueError,
            r"found 4 in argument 0; 3 in argument 1 leaf 'w'",
        ),
        (lambda: vmap(lambda x, n: x)(X, {"w": 3}), TypeError, r"axis 0 of argument 1 leaf 'w', which is a int"),
        (lambda: vmap(lambda x: x, in_dims=3)(X), TypeError, r"axis 3 of argument 0, .* and has none"),
        (lambda: vmap(lambda x: x, in_dims=None)(X), ValueError, r"no mapped axis at all"),
        (lambda: vmap(lambda x, p: x, (0, {"v": 0}))(X, {"w": X}), ValueError, r"in_dims at '1' is \{'v': 0\}"),
        (lambda: vmap(lambda x: x, ((0, 0),))(X), ValueError, r"in_dims at '0' is \(0, 0\).*one leaf"),
        (lambda: jacrev(lambda x: {"n": 3})(X), TypeError, r"jacrev.*got a int at 'n'. Return floating tensors"),
        (lambda: vjp(lambda x: x.argmax(), X), TypeError, r"vjp.*got a tensor of shape \(\) and dtype int64"),
        (lambda: vjp(lambda x: x, X, has_aux=True), TypeError, r"must return \(output, aux\) under has_aux=True"),
        (
            lambda: vjp(lambda x: {"a": x}, X)[1]({"b": X}),
            tree.TreeMismatchError,
            r"cotangent does not match the output",
        ),
    ],
)
def test_wrong_use(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_positions_may_count_from_the_end():
    x, y, w = (random.normal(random.key(i), shape) for i, shape in enumerate(((4, 1), (4, 1), (4,))))

    def loss(x, y, w, key=None):
        noise = 0.0 if key is None else random.normal(key, ())
        return ((x * w - y + noise) ** 2).mean()

    torch.testing.assert_close(per_example_grad(loss, -1)(x, y, w), per_example_grad(loss, 2)(x, y, w))
    torch.testing.assert_close(
        per_example_grad(loss, -2, batch=(-4, -3), keys=-1)(x, y, w, random.key(5)),
        per_example_grad(loss, 2, batch=(0, 1), keys=3)(x, y, w, random.key(5)),
    )
    torch.testing.assert_close(ensemble(loss, -1)(x, y, w), ensemble(loss, 2)(x, y, w))
    with pytest.raises(TypeError, match=r"per_example_grad takes batch=\(-4,\), but was called with 3 arguments"):
        per_example_grad(loss, 2, batch=-4)(x, y, w)
