"""Any torch code, drawing from a key."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as v1
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torchvision.ops import stochastic_depth
from torchvision.transforms import v2

from funcnet import jit, random

X = torch.linspace(-1, 1, 96).reshape(2, 6, 8)
IMAGE = torch.linspace(0, 1, 3 * 16 * 16).reshape(3, 16, 16)
P = torch.full((4, 5), 0.4)


def _init(name: str, shape: tuple[int, ...] = (6, 5), *args: Any) -> Callable[[], torch.Tensor]:
    return lambda: getattr(nn.init, name)(torch.zeros(shape), *args)


def _fill(name: str, *args: Any) -> Callable[[], torch.Tensor]:
    return lambda: getattr(torch.zeros(50), name)(*args)


def _module(make: Callable[[], nn.Module], *args: torch.Tensor) -> Callable[[], Any]:
    return lambda: make().train()(*args)


CASES: dict[str, Callable[[], Any]] = {
    "dropout": lambda: F.dropout(X, 0.5),
    "dropout inplace": lambda: F.dropout(X, 0.5, inplace=True),
    "dropout1d": lambda: F.dropout1d(X, 0.5),
    "dropout2d": lambda: F.dropout2d(X[None], 0.5),
    "dropout3d": lambda: F.dropout3d(X[None, None], 0.5),
    "alpha_dropout": lambda: F.alpha_dropout(X, 0.5, True),
    "feature_alpha_dropout": lambda: F.feature_alpha_dropout(X, 0.5, True),
    "torch.dropout": lambda: torch.dropout(X, 0.5, True),
    "torch.dropout_": lambda: torch.dropout_(X, 0.5, True),
    "torch.feature_dropout": lambda: torch.feature_dropout(X, 0.5, True),
    "torch.alpha_dropout": lambda: torch.alpha_dropout(X, 0.5, True),
    "native_dropout": lambda: torch.native_dropout(X, 0.5, True),
    "rrelu": lambda: F.rrelu(X, training=True),
    "torch.rrelu": lambda: torch.rrelu(X, 0.1, 0.3, True),
    "gumbel_softmax": lambda: F.gumbel_softmax(X),
    "multinomial": lambda: torch.multinomial(P, 30, True),
    "multinomial without": lambda: P.multinomial(3),
    "bernoulli": lambda: torch.bernoulli(P),
    "bernoulli p": lambda: torch.bernoulli(X, 0.5),
    "Tensor.bernoulli": lambda: P.bernoulli(),
    "rand": lambda: torch.rand(2, 3),
    "rand tuple": lambda: torch.rand((2, 3), dtype=torch.float64),
    "randn": lambda: torch.randn(4),
    "randint": lambda: torch.randint(100, (4,)),
    "randint low": lambda: torch.randint(-100, 100, (4,)),
    "randint words": lambda: torch.randint(low=0, high=100, size=(4,)),
    "randperm": lambda: torch.randperm(10),
    "normal tensors": lambda: torch.normal(X, 2.0),
    "normal size": lambda: torch.normal(0.0, 1.0, (4,)),
    "poisson": lambda: torch.poisson(P * 10),
    "rand_like": lambda: torch.rand_like(X),
    "randn_like": lambda: torch.randn_like(X),
    "randint_like": lambda: torch.randint_like(X, 100),
    "binomial": lambda: torch.binomial(torch.full((30,), 20.0), torch.full((30,), 0.5)),
    "uniform_": _fill("uniform_", -1.0, 1.0),
    "normal_": _fill("normal_", 1.0, 2.0),
    "exponential_": _fill("exponential_", 2.0),
    "cauchy_": _fill("cauchy_"),
    "log_normal_": _fill("log_normal_"),
    "geometric_": _fill("geometric_", 0.2),
    "random_": _fill("random_", 0, 1000),
    "random_ to": _fill("random_", 1000),
    "random_ bare": _fill("random_"),
    "bernoulli_": _fill("bernoulli_", 0.4),
    "fractional_max_pool2d": lambda: F.fractional_max_pool2d(torch.rand(1, 40, 16, 16), 3, output_ratio=(0.6, 0.6)),
    "fractional_max_pool3d": lambda: F.fractional_max_pool3d(
        torch.rand(1, 20, 8, 8, 8), 2, output_ratio=(0.6, 0.6, 0.6)
    ),
    "attention": lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=0.5),
    "attention causal": lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=0.5, is_causal=True),
    "MultiheadAttention": _module(lambda: nn.MultiheadAttention(8, 2, dropout=0.5), X, X, X),
    "MultiheadAttention fast": lambda: nn.MultiheadAttention(8, 2, dropout=0.5)(X, X, X, need_weights=False)[0],
    "TransformerEncoderLayer": _module(lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.5), X),
    "stochastic_depth": lambda: stochastic_depth(torch.ones(40, 3), 0.5, "row"),
    "init uniform_": _init("uniform_"),
    "init normal_": _init("normal_"),
    "init trunc_normal_": _init("trunc_normal_"),
    "init xavier_uniform_": _init("xavier_uniform_"),
    "init xavier_normal_": _init("xavier_normal_"),
    "init kaiming_uniform_": _init("kaiming_uniform_"),
    "init kaiming_normal_": _init("kaiming_normal_"),
    "init orthogonal_": _init("orthogonal_"),
    "init sparse_": _init("sparse_", (6, 5), 0.5),
    "Linear": lambda: nn.Linear(3, 4).weight.detach(),
    "Conv2d": lambda: nn.Conv2d(3, 4, 3).weight.detach(),
    "Embedding": lambda: nn.Embedding(3, 4).weight.detach(),
    "LSTM": lambda: nn.LSTM(3, 4).weight_hh_l0.detach(),
    "Normal": lambda: torch.distributions.Normal(0.0, 1.0).rsample((4,)),
    "Gamma": lambda: torch.distributions.Gamma(2.0, 1.0).rsample((4,)),
    "Beta": lambda: torch.distributions.Beta(2.0, 1.0).rsample((4,)),
    "Dirichlet": lambda: torch.distributions.Dirichlet(torch.ones(3)).rsample((4,)),
    "Categorical": lambda: torch.distributions.Categorical(torch.ones(30)).sample((9,)),
    "Bernoulli": lambda: torch.distributions.Bernoulli(0.5).sample((30,)),
    "Poisson": lambda: torch.distributions.Poisson(9.0).sample((30,)),
    "Binomial": lambda: torch.distributions.Binomial(20, torch.tensor(0.5)).sample((30,)),
    "StudentT": lambda: torch.distributions.StudentT(3.0).rsample((4,)),
    "VonMises": lambda: torch.distributions.VonMises(0.0, 1.0).sample((4,)),
    "v1": lambda: v1.Compose([v1.RandomResizedCrop(8), v1.RandomHorizontalFlip(), v1.ColorJitter(0.5, 0.5)])(IMAGE),
    "v1 erasing": lambda: v1.RandomErasing(p=1.0)(IMAGE),
    "v1 rotation": lambda: v1.RandomRotation(40)(IMAGE),
    "v2": lambda: v2.Compose([v2.RandomResizedCrop(8), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5)])(IMAGE),
    "v2 erasing": lambda: v2.RandomErasing(p=1.0)(IMAGE),
    "v2 noise": lambda: v2.GaussianNoise()(IMAGE),
}


def _leaves(value: Any) -> list[torch.Tensor]:
    return [x for x in torch.utils._pytree.tree_leaves(value) if isinstance(x, torch.Tensor)]


@pytest.mark.parametrize("name", CASES)
def test_is_a_function_of_the_key(name: str) -> None:
    f, before, x = CASES[name], torch.get_rng_state(), X.clone()

    def run(seed: int) -> list[torch.Tensor]:
        with random.seeded(random.key(seed)) as mode:
            out = _leaves(f())
        assert mode.draws > 0
        return out

    a, b, others = run(0), run(0), [run(seed) for seed in range(1, 9)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(X, x)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert any(p.shape != q.shape or not torch.equal(p, q) for o in others for p, q in zip(a, o, strict=True))


VMAPPED = [
    "dropout", "dropout1d", "alpha_dropout", "rrelu", "gumbel_softmax", "rand", "randn", "randint", "randperm",
    "bernoulli", "attention", "stochastic_depth", "uniform_", "normal_", "bernoulli_", "multinomial", "poisson",
    "init kaiming_uniform_", "native_dropout",
]  # fmt: skip


def _run(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    def f(key: torch.Tensor) -> torch.Tensor:
        with random.seeded(key):
            out = CASES[name]()
        return out[0] if isinstance(out, tuple) else out

    if name in ("uniform_", "normal_", "bernoulli_", "init kaiming_uniform_"):

        def g(key: torch.Tensor) -> torch.Tensor:
            with random.seeded(key):
                tensor = torch.empty(6, 5)
                init = name.startswith("init")
                (getattr(nn.init, name[5:]) if init else lambda t: getattr(t, name)())(tensor)
            return tensor

        return g
    return f


@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_over_keys_is_a_loop(name: str) -> None:
    keys = random.split(random.key(4), 3)
    f = _run(name)
    torch.testing.assert_close(torch.func.vmap(f)(keys), torch.stack([f(k) for k in keys]))


@pytest.mark.parametrize("name", VMAPPED)
def test_traced_is_eager(name: str) -> None:
    f = _run(name)
    graph = make_fx(f, tracing_mode="fake" if name.startswith(("rand", "uniform_", "normal_")) else "real")(
        random.key(0)
    )
    torch.testing.assert_close(graph(random.key(9)), f(random.key(9)))


@pytest.mark.parametrize("name", ["dropout", "gumbel_softmax", "rand", "attention", "MultiheadAttention"])
def test_compiled_is_eager(name: str) -> None:
    with random.seeded(random.key(1)):
        layer = nn.MultiheadAttention(8, 2, dropout=0.5).requires_grad_(False)  # else its gradient would be lost

    def f(key: torch.Tensor) -> torch.Tensor:
        m = _mode(key)
        with m:
            if name == "MultiheadAttention":
                return layer(X, X, X)[0]
            return CASES[name]()

    compiled = jit(f, backend="aot_eager")
    torch.testing.assert_close(compiled(random.key(9)), f(random.key(9)))


def _mode(key: torch.Tensor) -> Any:
    from funcnet.random.seeded import KeyedMode

    return KeyedMode(key)


def test_grad_and_dropout_scale() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        with random.seeded(random.key(0)):
            return F.dropout(x, 0.25).sum()

    g = torch.func.grad(loss)(torch.ones(4000))
    assert sorted(set(g.tolist())) == pytest.approx([0.0, 4 / 3])
    assert abs((g == 0).float().mean() - 0.25) < 0.03


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = random.normal(random.key(1), (40000,))
    with random.seeded(random.key(0)):
        y = F.alpha_dropout(x, 0.3, True)
    assert abs(y.mean()) < 0.03
    assert abs(y.std() - 1) < 0.03


def test_attention_without_dropout_is_torch() -> None:
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    from funcnet.random.attention import _attention

    for kwargs in ({}, {"is_causal": True}, {"attn_mask": mask}, {"scale": 0.3}):
        want = F.scaled_dot_product_attention(X, X, X, **kwargs)

        def once(key: torch.Tensor, kwargs: dict[str, Any] = kwargs) -> torch.Tensor:
            return _attention(_mode(key), X, X, X, dropout_p=0.3, **kwargs)

        many = torch.func.vmap(once)(random.split(random.key(0), 2000))
        torch.testing.assert_close(many.mean(0), want, atol=0.08, rtol=0.0)


def test_evaluation_draws_nothing() -> None:
    with random.seeded(random.key(0)) as mode:
        assert F.dropout(X, 0.5, training=False) is X
        F.scaled_dot_product_attention(X, X, X)
        F.rrelu(X)
    assert mode.draws == 0


def test_errors() -> None:
    g = torch.Generator()
    for f in (lambda: torch.rand(3, generator=g), lambda: torch.zeros(3).uniform_(generator=g)):
        with random.seeded(random.key(0)), pytest.raises(TypeError, match="generator="):
            f()
    with pytest.raises(TypeError, match=r"write random.key\(3\)"), random.seeded(3):
        pass
    with random.seeded(random.key(0)), pytest.raises(ValueError, match="between 0 and 1"):
        F.dropout(X, 1.5)
    with pytest.raises(TypeError, match="has no key"), _mode(None):
        torch.rand(3)
