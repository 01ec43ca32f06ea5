import io
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
import torch
from torch import nn

from funcnet import (
    CompilerMissingError,
    DonatedTensorError,
    Model,
    RecompileError,
    TrainState,
    grad,
    jacfwd,
    jit,
    make_step,
    optim,
    random,
    tree,
    vmap,
)
from funcnet.jit.function import Jitted
from tests.models import Everything

KEY = random.key(5)
X = random.normal(KEY, (4, 3))


def traced(f, **options):
    return jit(f, backend="aot_eager", **options)


def training(constructor=Everything, x=None, donate=(), optimizer=None, **options):
    model = Model(constructor)
    params, state = model.init(KEY)
    optimizer = optimizer or optim.adamw(optim.warmup_cosine_decay_schedule(0.0, 1e-2, 5, 40))

    def loss(params, state, batch, key):
        out, state = model.apply(params, state, batch, key=key, train=True)
        return out.square().mean(), (state, {"mean": out.mean()})

    step = make_step(loss, optimizer)
    ts = TrainState.create(params, state, optimizer, KEY)
    return step, traced(step, donate=donate, **options), ts


IMAGES = random.normal(KEY, (5, 3, 8, 8))


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


def test_a_training_step_compiled_equals_eager():
    step, compiled, ts = training()
    eager = ts
    for _ in range(3):
        ts, metrics = compiled(ts, IMAGES)
        eager, expected = step(eager, IMAGES)
        tree.map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5), (ts, metrics), (eager, expected))


def test_no_recompile_over_twenty_steps_with_a_schedule():
    _, compiled, ts = training(donate=0)
    for i in range(20):
        ts, metrics = compiled(ts, IMAGES + i)
    assert compiled.compiles == 1
    assert ts.step == 20
    assert metrics["loss"].isfinite()


def test_the_donating_step_equals_the_other_to_the_bit():
    _, plain, ts = training()
    _, donating, ts2 = training(donate="ts")
    for i in range(3):
        ts, metrics = plain(ts, IMAGES + i)
        ts2, metrics2 = donating(ts2, IMAGES + i)
        assert equal((ts, metrics), (ts2, metrics2))


def test_donation_keeps_the_addresses():
    _, compiled, ts = training(donate=0)
    ts, _ = compiled(ts, IMAGES)
    before = [t.data_ptr() for t in tree.leaves(ts)]
    ts, _ = compiled(ts, IMAGES)
    assert [t.data_ptr() for t in tree.leaves(ts)] == before


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t.sum(),
        lambda t: t.shape,
        lambda t: t + 1,
        lambda t: torch.add(t, 1),
        lambda t: t.numpy(),
        lambda t: t.clone(),
        lambda t: t[0],
        lambda t: t.tolist(),
        lambda t: bool(t.any()),
        lambda t: t.data_ptr(),
        lambda t: torch.save(t, io.BytesIO()),
    ],
)
def test_use_after_donation_is_an_error_that_names_the_leaf(use):
    step = traced(lambda ts, x: (tree.map(lambda t: t + x.sum(), ts), {}), donate=0)
    ts = {"fc": {"weight": X.clone()}}
    step(ts, X)
    with pytest.raises(DonatedTensorError, match=r"ts.fc.weight was donated to <lambda>.*tree.map\(torch.clone, ts\)"):
        use(ts["fc"]["weight"])
    assert "donated tensor: ts.fc.weight" in repr(ts)


def test_passing_a_donated_tree_again_is_an_error():
    step = traced(lambda w: w * 2, donate=0)
    w = X.clone()
    step(w)
    with pytest.raises(DonatedTensorError, match="w was donated"):
        step(w)


def test_results_that_swap_or_share_the_donated_memory():
    def f(a, b):
        return b, a, a + b, a  # two swapped, one computed, one a second name

    step = traced(f, donate=(0, 1))
    a, b = X.clone(), 2 * X
    first, second, total, again = step(a, b)
    assert equal((first, second, total, again), (2 * X, X, 3 * X, X))


def test_a_view_of_a_donated_input_is_copied_out_first():
    step = traced(lambda w: (w + 1, w[0]), donate=0)
    new, row = step(X.clone())
    assert equal((new, row), (X + 1, X[0]))


def test_results_never_share_memory_with_arguments():
    result = traced(lambda x: x)(X)
    assert torch.equal(result, X)
    assert result.data_ptr() != X.data_ptr()


def test_donating_one_memory_twice_is_refused():
    step = traced(lambda p: tree.map(lambda t: t + 1, p), donate=0)
    w = X.clone()
    with pytest.raises(ValueError, match=r"donates p.a and p.b, which share one memory"):
        step({"a": w, "b": w[:]})
    step({"a": X.clone(), "b": X.clone()})
    with pytest.raises(ValueError, match=r"donates p.a and p.b, which share one memory"):
        step({"a": w, "b": w})


def test_donating_what_another_argument_reads_is_refused():
    step = traced(lambda w, x: w + x, donate=0)
    w = step(X.clone(), X)
    with pytest.raises(ValueError, match=r"x shares the memory of w"):
        step(w, w)
    with pytest.raises(ValueError, match=r"x shares the memory of w"):
        step(w, w.view(4, 3))


def test_donating_what_does_not_come_back_warns():
    with pytest.warns(UserWarning, match=r"donates w, and returns nothing of that shape"):
        assert traced(lambda w: w.sum(), donate=0)(X.clone()) == X.sum()


def test_arguments_by_keyword_defaults_and_containers():
    f = traced(lambda x, scale=2.0, *, shift=None: x * scale + (0 if shift is None else shift["by"]))
    assert torch.equal(f(X), X * 2)
    assert torch.equal(f(X, 3.0), X * 3)
    assert torch.equal(f(x=X, shift={"by": X}), X * 3)
    assert f.compiles == 3
    assert torch.equal(f(X), X * 2)
    assert f.compiles == 3


def test_outputs_of_any_structure():
    out = traced(lambda x: {"a": (x, None), "n": 3, "s": "text", "l": [x.sum()]})(X)
    assert torch.equal(out["a"][0], X)
    assert (out["a"][1], out["n"], out["s"]) == (None, 3, "text")


def test_static_arguments():
    f = traced(lambda x, sizes, name: x.reshape(*sizes), static=("sizes", 2))
    assert f(X, [3, 4], "a").shape == (3, 4)
    assert f(X, [3, 4], "a").shape == (3, 4)
    assert f(X, [12], "a").shape == (12,)
    assert f.compiles == 2


def test_tensors_closed_over_are_read_at_each_call():
    shift = torch.ones(3)
    f = traced(lambda x: x + shift + torch.tensor(1.0))
    assert torch.equal(f(X), X + shift + 1.0)
    shift.mul_(5)
    assert torch.equal(f(X), X + shift + 1.0)


def test_random_draws_follow_their_key():
    f = traced(lambda key: random.normal(key, (3,)))
    assert torch.equal(f(KEY), random.normal(KEY, (3,)))
    assert not torch.equal(f(KEY), f(random.key(6)))


def test_jit_inside_jit_is_one_graph():
    inner = traced(lambda x: x * 2)
    assert torch.equal(traced(lambda x: inner(x) + 1)(X), X * 2 + 1)
    assert inner.compiles == 0


def test_eager_is_the_function_and_the_docstring_stays():
    def f(x):
        """What f does."""
        return x

    jitted = jit(f)
    assert jitted.eager is f
    assert (jitted.__name__, jitted.__doc__) == ("f", "What f does.")
    assert repr(jitted) == "jit(f, compiles=0)"


def test_ambient_autocast_and_default_dtype_are_part_of_the_kind():
    f = traced(lambda x, w: x @ w)
    assert f(X, X.T).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert f(X, X.T).dtype == torch.bfloat16
    assert f(X, X.T).dtype == torch.float32
    assert f.compiles == 2


def test_threads_compile_once_each_kind():
    f = traced(lambda x: torch.tanh(x) * 2)
    results = [None] * 4

    def work(i):
        results[i] = f(X + i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(r, torch.tanh(X + i) * 2) for i, r in enumerate(results))
    assert f.compiles == 1


# -- bad input


@pytest.mark.parametrize("transform", [grad, vmap, torch.func.jacrev])
def test_transforms_of_a_jitted_function_are_refused(transform):
    f = traced(lambda x: x.sum())
    transformed = torch.func.grad(f) if transform is grad else transform(f)
    with pytest.raises(TypeError, match=r"write jit\(grad\(<lambda>.eager\)\)"):
        transformed(X)
    with pytest.raises(TypeError, match=r"requires grad|inside grad"):
        grad(f)(X)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((X, 0.1), (X, 0.2), r"lr: 0.1 became 0.2 \(pass a 0-dim tensor"),
        ((X, 0.1), (X[:2], 0.1), r"x: shape \(4, 3\) became \(2, 3\)"),
        ((X, 0.1), (X.double(), 0.1), r"x: dtype torch.float32 became torch.float64"),
        ((X, 0.1), (X.T.contiguous().T, 0.1), r"x: strides \(3, 1\) became \(1, 4\)"),
        (({"a": X}, 0.1), ({"b": X}, 0.1), r"x.b: was absent; x.a: is missing"),
        ((X, 0.1), (X, torch.tensor(0.1)), r"lr: 0.1 became a tensor"),
        (((X, X), 0.1), ([X, X], 0.1), r"containers are of other types"),
        ((X, 0.1), (X,), r"other arguments were given"),
    ],
)
def test_recompiling_too_often_names_the_argument(first, second, message):
    def f(x, lr=1.0):
        return tree.map(lambda t: t * lr, x)

    jitted = traced(f, max_compiles=1)
    jitted(*first)
    with pytest.raises(RecompileError, match=rf"f was compiled 1 times already.*{message}"):
        jitted(*second)
    jitted(*first)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "depends on a tensor's value"),
        (lambda x: x * x.sum().item(), "depends on a tensor's value"),
        (lambda x: x[x > 0], "depends on a tensor's value"),
    ],
)
def test_decisions_on_values_are_refused(f, message):
    with pytest.raises(TypeError, match=message):
        traced(f)(X)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jit(traced(lambda x: x)), TypeError, "jitted already"),
        (lambda: jit(3), TypeError, "compiles a function, and was given a int"),
        (lambda: jit(nn.ReLU()), TypeError, "Model.from_module"),
        (lambda: jit(lambda x: x, donate=1), ValueError, r"donate=1\): <lambda> has 1 positional arguments \(x\)"),
        (lambda: jit(lambda x: x, static="y"), ValueError, r"no argument of that name, but x"),
        (lambda: traced(lambda x: x)(torch.ones(2, requires_grad=True)), TypeError, r"x requires grad.*x.detach\(\)"),
        (lambda: traced(lambda x: x)(X.numpy()), TypeError, r"x is a ndarray.*torch.as_tensor"),
    ],
)
def test_wrong_use(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CXX", "no-such-compiler")
    code = """
        import torch
        from funcnet import jit
        jit(lambda x: x + 1)(torch.ones(3))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CompilerMissingError: jit(<lambda>) compiles CPU code and found no C++ compiler" in done.stderr
    assert "apt-get install g++" in done.stderr


def test_without_a_compiler_tracing_still_works(monkeypatch):
    monkeypatch.setattr("funcnet._compat.cpp_compiler_problem", lambda: "none found")
    with pytest.raises(CompilerMissingError, match=r"apt-get install g\+\+"):
        jit(lambda x: x + 1)(X)
    assert torch.equal(traced(lambda x: x + 1)(X), X + 1)


def test_scalars_are_kept_from_the_loops_over_tensors():
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph

    schedule = optim.cosine_decay_schedule(1e-3, 1234)
    step = jit(lambda w, count: w * schedule(count), backend=backend)
    count = torch.tensor(77, dtype=torch.int32)
    torch.testing.assert_close(step(X, count), X * schedule(count))
    (multiply,) = [node for node in graphs[0].graph.nodes if node.name.startswith("mul") and node.meta["val"].ndim]
    assert "keep" in str(multiply.all_input_nodes[1].target)


def targets(f, *args):
    """The operations that a function is traced to."""
    graphs = []
    jit(f, backend=lambda graph, examples: graphs.append(graph) or graph)(*args)
    return [str(node.target) for node in graphs[0].graph.nodes]


def test_constants_are_left_in_the_loops_over_tensors():
    found = targets(lambda x: torch.where(x > 0, x * torch.full((), 3.0), 1.0) + torch.ones_like(x[0, 0]), X)
    assert "aten.scalar_tensor.default" in found
    assert not any("keep" in target for target in found)


def test_the_root_of_a_moment_is_guarded_only_where_it_is_differentiated():
    rule = optim.scale_by_adam()
    rest = torch.ones(4, 1)
    rest[0] = 0  # what never had a gradient
    state = rule.update(X.flip(0) * rest, rule.init(X))[1]

    def size(w):
        return rule.update(w * rest, state)[0].square().sum()

    found = targets(size, X)
    assert any("sqrt" in target for target in found)
    assert not any("where" in target for target in found)
    assert any("where" in target for target in targets(grad(size), X))
    # The slope of the root at 0 is infinite; that of the update is 0 at rest.
    for ask in (grad(size), jacfwd(size)):
        slope = traced(ask)(X)
        assert slope[1:].abs().min() > 0
        assert slope[0].abs().max() == 0
        torch.testing.assert_close(slope, ask(X))


# -- Inductor itself


@pytest.mark.slow
def test_inductor_trains_as_eager_does():
    model = Model(Everything)
    optimizer = optim.adamw(1e-2)

    def loss(params, state, batch, key):
        out, state = model.apply(params, state, batch, key=key, train=True)
        return out.square().mean(), (state, {})

    step = make_step(loss, optimizer)
    compiled, plain = jit(step, donate=0), jit(step)
    assert isinstance(compiled, Jitted)
    ts, same = (TrainState.create(*model.init(KEY), optimizer, KEY) for _ in range(2))
    eager = ts._replace(params=tree.map(torch.clone, ts.params))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor's own imports
        for _ in range(5):
            eager, expected = step(tree.map(torch.clone, eager), IMAGES)
            ts, metrics = compiled(ts, IMAGES)
            same, metrics2 = plain(same, IMAGES)
            assert equal((ts, metrics), (same, metrics2))
            torch.testing.assert_close(metrics["loss"], expected["loss"], rtol=1e-4, atol=1e-5)
    assert compiled.compiles == 1


@pytest.mark.slow
def test_donated_inputs_reach_inductor_as_static_addresses(monkeypatch):
    from torch._inductor import compile_fx

    seen = []
    real = compile_fx.compile_fx_inner

    def spy(*args, **kwargs):
        seen.append(kwargs["static_input_idxs"])
        return real(*args, **kwargs)

    monkeypatch.setattr(compile_fx, "compile_fx_inner", spy)
    step = jit(lambda x, w: (x.sum(), {k: v + x.sum() for k, v in w.items()}), donate="w")
    with torch.compiler.config.patch(force_disable_caches=True):  # or a second run would compile nothing
        total, new = step(X, {"a": X.clone(), "b": 2 * X})
    assert seen == [[1, 2]]
    assert torch.allclose(new["b"], 2 * X + total)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune-no-cudagraphs"])
def test_modes_of_inductor(mode):
    step = jit(lambda w, x: (w - x, {"sum": w.sum()}), donate=0, mode=mode)
    w = X.clone()
    for _ in range(3):
        w, metrics = step(w, X)
    torch.testing.assert_close(w, -2 * X)
    torch.testing.assert_close(metrics["sum"], -X.sum())
