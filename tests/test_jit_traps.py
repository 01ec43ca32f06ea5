"""Where a compiled step could silently go on with the wrong memory, value or key."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from funcnet import DonatedTensorError, Model, RecompileError, grad, jit, jvp, random, tree, vmap

X = random.normal(random.key(0), (2, 3))


def traced(f, **options):
    return jit(f, backend="aot_eager", **options)


def test_static_values_are_compared_by_type_too():
    f = traced(lambda x, n: x * n, static=1)
    x = torch.tensor([1, 2])
    assert f(x, 2).dtype == torch.int64
    assert f(x, 2.0).dtype == torch.float32
    assert f(x, 2).dtype == torch.int64
    assert f.compiles == 2


def test_a_static_list_changed_in_place_is_another_value():
    f = traced(lambda x, shape: x.reshape(shape), static=1)
    shape = [3, 2]
    assert f(X, shape).shape == (3, 2)
    shape[:] = [6]
    assert f(X, shape).shape == (6,)


def test_a_configuration_changed_in_place_is_another_value():
    @dataclass
    class Config:
        rate: float

    f, config = traced(lambda x, c: x * c.rate), Config(2.0)
    assert torch.equal(f(X, config), 2 * X)
    config.rate = 3.0
    assert torch.equal(f(X, config), 3 * X)
    assert torch.equal(f(X, Config(3.0)), 3 * X)
    assert f.compiles == 2


def test_keyword_only_arguments_may_be_static_or_donated():
    f = traced(lambda x, *, shape: x.reshape(shape), static="shape")
    assert f(X, shape=[6]).shape == (6,)
    g, w = traced(lambda x, *, w: w + x, donate="w"), torch.ones(2, 3)
    address = w.data_ptr()
    assert g(X, w=w).data_ptr() == address


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_results_never_share_memory_with_each_other(backend):
    def f(x):
        y = x @ x.T
        return {"new": y, "average": y, "flat": y.view(-1), "row": y[0]}

    results = jit(f, backend=backend)(X)
    assert len({t.untyped_storage().data_ptr() for t in results.values()}) == 4
    kept = results["average"].clone()
    traced(lambda w: w + 100, donate=0)(results["new"])
    assert torch.equal(results["average"], kept)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (lambda: torch.zeros(2, 3)[0], r"donates p.w, which is a view of a larger tensor.* Pass a copy"),
        (lambda: torch.zeros(3, 2)[:, 0], r"donates p.w, which is a view of a larger tensor"),
        (lambda: torch.zeros(1, 3).expand(2, 3), r"donates p.w, which is an expanded tensor"),
        (lambda: random.split(random.key(0))[0], r"donates p.w, which is a view of a larger tensor"),
    ],
)
def test_donating_memory_that_is_not_all_its_own_is_refused(leaf, message):
    with pytest.raises(ValueError, match=message):
        traced(lambda p: {"w": p["w"] + 1}, donate=0)({"w": leaf()})


@pytest.mark.parametrize("view", [lambda w: w, lambda w: w.view(-1)])
def test_donating_what_the_function_closes_over_is_refused(view):
    w = torch.ones(3)
    hidden = view(w)
    f = traced(lambda x: x + hidden, donate=0)
    with pytest.raises(ValueError, match=r"a tensor that <lambda> closes over shares the memory of x"):
        f(w)
    assert torch.equal(f(torch.zeros(3)), torch.ones(3))
    with pytest.raises(ValueError, match=r"a tensor that <lambda> closes over shares the memory of x"):
        f(w)


@pytest.mark.parametrize("draw", [lambda x: F.dropout(x), lambda x: x + torch.rand(3), lambda x: x.clone().normal_()])
def test_a_draw_without_a_key_is_refused(draw):
    f = traced(draw)
    with pytest.raises(TypeError, match=r"is jitted, and draws random numbers without a key"):
        f(X)
    # A key around the call would stay in the graph for all later calls.
    with random.seeded(random.key(1)), pytest.raises(TypeError, match=r"draws random numbers without a key"):
        f(X)

    def keyed(x, key):
        with random.seeded(key):
            return draw(x)

    g = traced(keyed)
    assert torch.equal(g(X, random.key(1)), keyed(X, random.key(1)))
    assert not torch.equal(g(X, random.key(2)), g(X, random.key(1)))


@dataclass
class Pair:
    left: torch.Tensor


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: traced(lambda x, s: x, static=1)(X, torch.ones(2)), r"s is static and holds an array"),
        (lambda: traced(lambda x, s: x, static=1)(X, [torch.ones(2).numpy()]), r"s is static and holds an array"),
        (lambda: traced(lambda p: p.left)(Pair(X)), r"p is a Pair that holds tensors.*register_dataclass"),
    ],
)
def test_tensors_where_they_would_be_frozen(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_forward_mode_under_vmap_meets_what_the_function_closes_over():
    weight = random.normal(random.key(1), (1, 3, 4))

    def f(scale):
        return jvp(lambda x: torch.bmm(x[None], weight), (X * scale,), (X,))[1]

    scales = torch.tensor([0.5, 2.0])
    g = traced(vmap(f))
    for _ in range(2):
        torch.testing.assert_close(g(scales), torch.stack([f(scale) for scale in scales]))


def test_functions_compile_in_threads_beside_each_other():
    call, failed = nn.Module.__call__, []

    def slow(steps):
        def f(x):
            for _ in range(steps):
                x = x + 1
                time.sleep(0.001)  # in which the other thread goes on
            return x

        return traced(f)

    def run(f, delay):
        time.sleep(delay)
        try:
            f(X)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(slow(50), 0)), threading.Thread(target=run, args=(slow(300), 0.03))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert nn.Module.__call__ is call


@pytest.mark.parametrize(
    "read",
    [
        Tensor.item, float, int, bool, Tensor.tolist, Tensor.numpy, torch.is_nonzero, lambda t: t.equal(t),
        lambda t: torch.equal(t, t), lambda t: torch.allclose(t, t), lambda t: 2.0 in t,
    ],
)  # fmt: skip
def test_a_value_that_would_be_frozen_is_refused(read):
    rate = torch.tensor(2.0)
    f = traced(lambda x: x * torch.as_tensor(read(rate)))
    with pytest.raises(TypeError, match=r"reads the value of a tensor that it closes over \(\w+\), which would be"):
        f(X)
    assert torch.equal(traced(lambda x: x * rate)(X), 2 * X)


def test_values_made_while_tracing_may_be_read():
    assert torch.equal(traced(lambda x: x * torch.tensor(3).item())(X), 3 * X)


@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize("nested", [False, True])
def test_the_order_of_keys_counts(kind, nested):
    f = traced(lambda d: torch.stack(tree.leaves(d)))
    a, b = torch.zeros(()), [torch.ones(())] if nested else torch.ones(())
    for given in (kind(a=a, b=b), kind(b=b, a=a), kind(a=a, b=b)):
        assert torch.equal(f(given), f.eager(given))
    assert f.compiles == 2


class Tagged(list):
    """A list with something beside its members."""

    def __init__(self, members, tag):
        super().__init__(members)
        self.tag = tag


pytree.register_pytree_node(Tagged, lambda node: (list(node), node.tag), Tagged)


def test_what_a_registered_list_holds_beside_counts():
    f = traced(lambda t: t[0] * t.tag)
    assert torch.equal(f(Tagged([X], 2)), 2 * X)
    assert torch.equal(f(Tagged([X], 3)), 3 * X)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", [lambda t: t, lambda t: t[1:], lambda t: t.view(3, 1)])
def test_results_never_share_memory_with_what_the_function_closes_over(backend, part):
    table = torch.arange(3.0)
    start = jit(lambda x: {"table": part(table), "other": x + 1}, backend=backend)
    step = jit(lambda p: tree.map(lambda leaf: leaf + 1, p), donate=0, backend=backend)
    for _ in range(2):
        found = start(X)
        assert torch.equal(found["table"], part(torch.arange(3.0)))
        step(found)
    assert torch.equal(table, torch.arange(3.0))


def test_a_derivative_that_would_be_lost_is_refused():
    w = torch.ones(3, requires_grad=True)
    f = traced(lambda x: (x * w).sum())
    with pytest.raises(TypeError, match=r"closes over a tensor of shape \(3,\) that requires grad"):
        f(X)
    with torch.no_grad():
        assert f(X) == X.sum()
    with forward_ad.dual_level(), pytest.raises(TypeError, match="called inside grad, vmap or another transform"):
        f(forward_ad.make_dual(X, X))


def test_the_default_device_is_part_of_the_kind():
    f = traced(lambda: torch.zeros(3))
    assert f().device.type == "cpu"
    with torch.device("meta"):
        assert f().device.type == "meta"
    assert f().device.type == "cpu"
    assert f.compiles == 2


def test_donated_tensors_reach_no_graph():
    state = {"w": X.clone()}
    watch = traced(lambda x: x * state["w"])
    first, second = (traced(lambda p: tree.map(lambda leaf: leaf + 1, p), donate=0) for _ in range(2))
    watch(X)
    one = first(state)
    with pytest.raises(DonatedTensorError, match="was donated to"):
        watch(X)
    two = second(one)
    before = two["w"].clone()
    with pytest.raises(DonatedTensorError, match="was donated to"):
        first(one)
    assert torch.equal(two["w"], before)


def test_one_tensor_given_twice_stays_two_arguments():
    f = traced(lambda a, b: a - b)
    assert not f(X, X).any()
    torch.testing.assert_close(f(X, 2 * X), -X)
    assert f.compiles == 1


def test_a_scalar_that_is_written_through_its_base_has_its_new_value():
    def f(x):
        base = torch.zeros(2)
        element = base[0]
        base[0] = x.sum()
        return x * element

    torch.testing.assert_close(traced(f)(X), X * X.sum())


def test_what_the_function_closes_over_may_change_its_dtype():
    with random.seeded(random.key(2)):
        module = nn.Linear(3, 3, bias=False).requires_grad_(False)
    f = traced(lambda x: x.sum() * module.weight, max_compiles=2)
    f(X)
    module.double()  # in place: the parameter is the same object
    torch.testing.assert_close(f(X), X.sum() * module.weight)
    module.half()
    with pytest.raises(RecompileError, match=r"that it closes over: dtype torch\.float64 became torch\.float16"):
        f(X)


def test_a_closed_over_tensor_that_comes_to_want_a_gradient():
    weight = X.clone()
    f = traced(lambda x: x * weight)
    f(X)
    weight.requires_grad_()
    with pytest.raises(TypeError, match="requires grad, and no gradient flows"):
        f(X)
    with torch.no_grad():
        torch.testing.assert_close(f(X), X * X)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_lazy_negatives_and_conjugates_are_read_as_what_they_are(backend):
    z = torch.complex(X, X + 1)
    f = jit(lambda t: t + 1, backend=backend)
    for t in (z.imag, z.conj().imag, z.imag):
        torch.testing.assert_close(f(t), t.resolve_neg() + 1)
    assert f.compiles == 2
    conjugated = jit(lambda t: t * 2j, backend="aot_eager")
    for t in (z, z.conj(), z):
        torch.testing.assert_close(conjugated(t), t.resolve_conj() * 2j)


def test_a_lazy_conjugate_is_not_donated():
    z = torch.complex(X, X + 1)
    with pytest.raises(ValueError, match="z, which is the lazy conjugate or imaginary part"):
        traced(lambda z: 2 * z, donate=0)(z.conj())


def test_zeros_of_either_sign_and_nan_are_values_of_their_own():
    f = traced(lambda x, s: torch.copysign(x, torch.full_like(x, s)))
    for s in (0.0, -0.0, 0.0):
        torch.testing.assert_close(f(X, s), X.abs() * (-1 if str(s) == "-0.0" else 1))
    f(X, float("nan")), f(X, float("nan"))
    assert f.compiles == 3


def test_a_returned_tensor_that_comes_to_want_a_gradient_is_another_kind():
    f = traced(lambda w: w + 1, donate=0)
    w = f(f(X.clone()))
    with pytest.raises(TypeError, match="w requires grad"):
        f(w.requires_grad_())


def test_a_graph_is_made_for_the_settings_of_torch():
    f = traced(lambda x: x + 1)
    threads = torch.get_num_threads()
    f(X)
    try:
        torch.set_num_threads(threads + 1)
        f(X)
        assert f.compiles == 2
        torch.use_deterministic_algorithms(True)
        f(X)
        assert f.compiles == 3
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    f(X)
    assert f.compiles == 3


def test_a_jitted_function_under_a_transform_inside_another_is_part_of_it():
    inner = traced(lambda x: (x**3).sum())
    torch.testing.assert_close(traced(lambda x: vmap(inner)(x))(X), (X**3).sum(1))
    torch.testing.assert_close(traced(lambda x: grad(grad(lambda x: inner(x[None])))(x))(X[0, 0]), 6 * X[0, 0])
    assert not inner.compiles
    with pytest.raises(TypeError, match="called inside grad, vmap or another transform"):
        vmap(inner)(X)


def test_a_module_may_hold_a_jitted_function():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.double = traced(lambda x: 2 * x)

        def forward(self, x):
            return self.double(x)

    model = Model(Doubling)
    params, state = model.init(random.key(0))
    assert torch.equal(model(params, state, X), 2 * X)
