"""What every loss promises, for every entry of the registry; and each against optax."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from funcnet import jit, losses, optim, tree

sys.path.insert(0, str(Path(__file__).parent))
from loss_registry import LOSSES, Draw

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")

every = pytest.mark.parametrize("loss", LOSSES, ids=str)


def tensors(loss, draw):
    args, kwargs = loss.arguments(draw)
    return [torch.as_tensor(a) if isinstance(a, np.ndarray) else a for a in args], {
        key: torch.as_tensor(value) if isinstance(value, np.ndarray) else value for key, value in kwargs.items()
    }


def smooth_part(loss, seed=0):
    """A function of the arguments to differentiate in, and those."""
    args, kwargs = tensors(loss, Draw(seed))

    def of(*chosen):
        given = list(args)
        for place, value in zip(loss.smooth, chosen, strict=True):
            given[place] = value
        return getattr(losses, loss.name)(*given, **kwargs)

    return of, tuple(args[place].clone() for place in loss.smooth)


def test_the_registry_has_every_loss():
    made = {name for name, value in vars(losses).items() if inspect.isfunction(value)}
    named = {loss.name for loss in LOSSES}
    # They have tests of their own.
    assert made - named == {"ctc_loss_with_forward_probs", "make_fenchel_young_loss"}
    assert named <= made


@every
def test_slopes_are_right(loss):
    f, chosen = smooth_part(loss)
    leaves = tuple(value.requires_grad_() for value in chosen)
    with torch.random.fork_rng():  # directions are drawn from the global generator
        torch.manual_seed(0)
        assert torch.autograd.gradcheck(f, leaves, check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(f, leaves, check_undefined_grad=False, fast_mode=True)


@every
def test_slopes_under_func_are_autograds(loss):
    f, chosen = smooth_part(loss)
    leaves = tuple(value.clone().requires_grad_() for value in chosen)
    want = torch.autograd.grad(f(*leaves).sin().sum(), leaves)
    got = grad(lambda chosen: f(*chosen).sin().sum())(chosen)
    torch.testing.assert_close(got, want)
    value, moved = jvp(lambda *chosen: f(*chosen).sin().sum(), chosen, chosen)
    torch.testing.assert_close(moved, sum((g * x).sum() for g, x in zip(want, chosen, strict=True)))
    assert value.isfinite()


@every
def test_slopes_are_finite_at_extreme_values(loss):
    for dtype in (np.float32, np.float64):
        args, kwargs = tensors(loss, Draw(3, 1e4, dtype))
        chosen = args[loss.smooth[0]].clone().requires_grad_()
        args[loss.smooth[0]] = chosen
        values = getattr(losses, loss.name)(*args, **kwargs)
        assert values.isfinite().all()
        assert torch.autograd.grad(values.sum(), chosen)[0].isfinite().all()


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.mapped], ids=str)
def test_vmap_gives_one_loss_an_example(loss):
    args, kwargs = tensors(loss, Draw(1))
    if "axis" in kwargs:
        kwargs["axis"] = kwargs["axis"] - 1
    f = getattr(losses, loss.name)
    got = vmap(lambda *args: f(*args, **kwargs))(*args)
    torch.testing.assert_close(got, torch.stack([f(*row, **kwargs) for row in zip(*args, strict=True)]))
    whole = tensors(loss, Draw(1))[1]
    torch.testing.assert_close(got, f(*args, **whole))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if not loss.mapped], ids=str)
def test_vmap_over_batches_equals_a_loop(loss):
    batches = [smooth_part(loss, seed) for seed in (0, 0)]
    chosen = [tuple((1 + n) * value for value in batch) for n, (_, batch) in enumerate(batches)]
    f = batches[0][0]
    got = vmap(f)(*[torch.stack(values) for values in zip(*chosen, strict=True)])
    torch.testing.assert_close(got, torch.stack([f(*values) for values in chosen]))


@every
def test_changes_nothing_and_traces(loss):
    args, kwargs = tensors(loss, Draw(2))
    kept = tree.map(torch.clone, [a for a in args if isinstance(a, torch.Tensor)])
    f = getattr(losses, loss.name)
    want = f(*args, **kwargs)
    assert all(torch.equal(a, b) for a, b in zip([a for a in args if isinstance(a, torch.Tensor)], kept, strict=True))
    if loss.name != "ctc_loss":  # a loop in the graph, which make_fx alone does not make
        torch.testing.assert_close(make_fx(lambda x: f(x, *args[1:], **kwargs))(args[0])(args[0]), want)


@every
def test_compiles(loss):
    args, kwargs = tensors(loss, Draw(2))
    f = getattr(losses, loss.name)

    def mean(first):
        return f(first, *args[1:], **kwargs).mean()

    torch.testing.assert_close(jit(grad(mean), backend="aot_eager")(args[0]), grad(mean)(args[0]))


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_keeps_the_dtype(loss, dtype):
    args, kwargs = tensors(loss, Draw(2))

    def cast(value):
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    f = getattr(losses, loss.name)
    got = f(*[cast(a) for a in args], **{k: cast(v) for k, v in kwargs.items()})
    assert got.dtype == (torch.float32 if loss.name == "ctc_loss" else dtype)
    tolerance = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.2}[dtype]
    torch.testing.assert_close(got.double(), f(*args, **kwargs), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def optax():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    with jax.enable_x64(True):
        yield optax


def compare(optax, loss, draw, rtol):
    import jax.numpy as jnp

    args, kwargs = loss.arguments(draw)
    mine_args, mine_kwargs = tensors(loss, draw.__class__(draw.seed, draw.scale, draw.dtype))
    got = getattr(losses, loss.name)(*mine_args, **mine_kwargs)
    theirs = getattr(optax.losses, loss.name)
    want = np.asarray(
        theirs(
            *[jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args],
            **{k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()},
        )
    )
    assert got.shape == want.shape
    assert got.dtype == mine_args[0].dtype  # optax's own may be jax's default dtype, which some of its constants have
    size = max(1.0, draw.scale)
    np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=rtol * size)


class Seeded(Draw):
    def __init__(self, seed, scale, dtype):
        super().__init__(seed, scale, dtype)
        self.seed = seed


@pytest.mark.filterwarnings("ignore:The function convex_kl_divergence is deprecated:DeprecationWarning")
@settings(max_examples=3)
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.optax], ids=str)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 10.0, 1e3, 1e6]), double=st.booleans())
def test_equals_optax(optax, loss, seed, scale, double):
    dtype = np.float64 if double else np.float32
    compare(optax, loss, Seeded(seed, scale, dtype), 1e-9 if double else 1e-5)


def test_signatures_are_optaxs(optax):
    compared = 0
    for home, name in [(losses, name) for name in dir(losses)] + [(optim, name) for name in dir(optim.losses)]:
        ours, theirs = getattr(home, name, None), getattr(optax.losses, name, None)
        if not inspect.isfunction(ours) or not callable(theirs):
            continue
        mine, other = (inspect.signature(f).parameters for f in (ours, theirs))
        assert list(mine)[: len(other)] == list(other), name
        for key, parameter in other.items():
            assert mine[key].kind == parameter.kind, (name, key)
            if not callable(parameter.default):
                assert mine[key].default == parameter.default, (name, key)
        compared += 1
    assert compared > 40


def test_optim_has_the_names_that_optax_has(optax):
    top = {name for name in dir(optax) if name in dir(optax.losses) and not name.startswith("_")}
    assert top <= set(dir(optim))
    assert {name for name in dir(optax.losses) if not name.startswith("_")} <= set(dir(losses))
    assert optim.losses is losses
