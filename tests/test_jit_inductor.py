"""What `jit` asks of Inductor: kernels in shared files, loops from the cache, convolutions in their own layout."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from funcnet import _compat, grad, jit, random, scan
from funcnet._compat.sources import _Template, shares

KEY = random.key(3)
X, Y = random.normal(KEY, (48, 32)), random.normal(random.fold_in(KEY, 1), (32, 48))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(1, 40))
def test_shares_hold_every_kernel_once_and_are_even(sizes, workers):
    files = shares(sizes, workers)
    assert sorted(n for file in files for n in file) == list(range(len(sizes)))
    assert len(files) <= max(1, min(workers, len(sizes) // 2))
    filled = [sum(sizes[n] for n in file) for file in files]
    assert max(filled) - min(filled) <= max(sizes)


def several_kernels(x, y):
    """Products, which are no kernels of Inductor's, between elementwise parts and reductions, which are."""
    a = (x.exp() @ y).sin()
    b = torch.tanh(a @ x) * 2
    return (b @ y).softmax(-1), (y @ b).amax(0)


def files_of_kernels():
    """The sources that Inductor wrote into its present cache, less the headers' probes."""
    sources = [path.read_text() for path in Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.cpp")]
    return [source for source in sources if "PyInit_kernel" in source]


@pytest.mark.slow
def test_kernels_of_a_graph_share_files():
    from torch._inductor import config

    with _compat.empty_compiler_cache(), config.patch(compile_threads=2):
        results = jit(several_kernels)(X, Y)
        files = files_of_kernels()
        assert len(files) == 2
        assert sum(source.count('extern "C"  void  kernel_') for source in files) >= 4
        # From the cache, the same files are loaded again.
        again = jit(several_kernels)(X, Y)
        assert len(files_of_kernels()) == 2
    for result, reloaded, expected in zip(results, again, several_kernels(X, Y), strict=True):
        torch.testing.assert_close(result, expected)
        assert torch.equal(result, reloaded)


@pytest.mark.slow
def test_torch_compile_beside_jit_is_left_alone():
    from torch._inductor import config

    jit(torch.sin)(X)  # which installs what shares files
    with _compat.empty_compiler_cache(), config.patch(compile_threads=2):
        torch.compile(several_kernels)(X, Y)
        files = files_of_kernels()
    assert len(files) > 2
    assert not any("kernel_1(" in source for source in files)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("static PyObject* {entry_func}_py {arg_len} {call_entry_func} static PyMethodDef py_methods[]", "kernel({});"),
        ("a template of another version", "kernel({});"),
    ],
)
def test_another_binding_than_the_known_one_is_refused(text, call):
    with pytest.raises(ValueError, match="binds its kernels in another way"):
        _Template(text, call)


def hits():
    from torch._dynamo.utils import counters

    return counters["aot_autograd"]["autograd_cache_hit"]


@pytest.mark.slow
def test_graphs_with_loops_come_from_the_cache_if_their_bodies_agree():
    def sums(factor):
        return jit(lambda xs: scan(lambda total, x: (factor * total + x, total.sin()), torch.zeros(48), xs))

    expected = {factor: sums(factor).eager(Y) for factor in (0.5, 0.75)}
    assert not torch.allclose(expected[0.5][0], expected[0.75][0])
    with _compat.empty_compiler_cache():
        for factor, before in ((0.5, 0), (0.75, 0), (0.5, 1), (0.75, 1)):
            count = hits()
            torch.testing.assert_close(sums(factor)(Y), expected[factor])
            assert (hits() > count) == bool(before)


@pytest.mark.slow
def test_training_leaves_convolutions_in_their_layout(monkeypatch):
    from torch._inductor import compile_fx, config

    seen = []
    real = compile_fx.compile_fx_inner

    def spy(*args, **kwargs):
        seen.append(config.layout_optimization)
        return real(*args, **kwargs)

    def loss(weight, images):
        return F.conv2d(images, weight).square().sum()

    monkeypatch.setattr(compile_fx, "compile_fx_inner", spy)
    images, weight = X.reshape(2, 3, 16, 16), Y[:3, :27].reshape(3, 3, 3, 3)
    with torch.compiler.config.patch(force_disable_caches=True):  # or a second run would compile nothing
        for f in (grad(loss), loss):
            torch.testing.assert_close(jit(f)(weight, images), f(weight, images), rtol=1e-4, atol=1e-4)
    assert seen == [False, config.layout_optimization]
    assert config.layout_optimization
