"""gradcheck in float64 for every differentiable public function and every layer with parameters.

First and second order, reverse and forward mode, one by one and batched. A public function that is neither checked nor
excused, with the reason, fails a test here.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from matrix.layers import LAYERS
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import funcnet
from funcnet import Model, optim, random, tree
from tests.models import built

KEY = random.key(23)
F64 = torch.float64


def check(f: Callable[..., Any], args: tuple[Tensor, ...], *, fast: bool = True, announced: bool = False) -> None:
    """Both orders and both modes; `fast` looks along random directions, not at every element.

    `announced`: the second order is that of `funcnet.grad`, which a kernel without a second derivative can see coming.
    """
    args = tuple(a.detach().clone().requires_grad_() for a in args)
    with torch.random.fork_rng():  # gradcheck draws its directions from the global generator
        torch.manual_seed(0)
        assert gradcheck(f, args, check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
        if announced:
            gradient = funcnet.grad(lambda *args: weighed(f(*args)), tuple(range(len(args))))
            assert gradcheck(gradient, args, check_forward_ad=True, fast_mode=fast)
        else:
            assert gradgradcheck(f, args, check_fwd_over_rev=True, fast_mode=fast)


def weighed(output: Any) -> Tensor:
    """A scalar in which every element counts for itself."""
    leaves = tree.leaves(output)
    return sum(
        ((leaf * normal(80 + i, *leaf.shape)).sum() for i, leaf in enumerate(leaves)), torch.zeros((), dtype=F64)
    )


def check_along(f: Callable[..., Any], args: tuple[Tensor, ...]) -> None:
    """For functions that use forward mode, of which torch's own knows one level: funcnet's against differences."""
    direction = tuple(normal(90 + i, *a.shape) for i, a in enumerate(args))
    h = 1e-5

    def at(g: Callable[..., Any], t: float) -> list[Tensor]:
        return tree.leaves(g(*(a + t * v for a, v in zip(args, direction, strict=True))))

    def scalar(*args: Tensor) -> Tensor:
        return weighed(f(*args))

    every = tuple(range(len(args)))
    for g in (f, funcnet.grad(scalar, every)):
        pushed = tree.leaves(funcnet.jvp(g, args, direction)[1])
        for got, above, below in zip(pushed, at(g, h), at(g, -h), strict=True):
            torch.testing.assert_close(got, (above - below) / (2 * h), rtol=1e-5, atol=1e-7)
    # Reverse mode, once and twice: the same slopes.
    slope = sum((g * v).sum() for g, v in zip(funcnet.grad(scalar, every)(*args), direction, strict=True))
    torch.testing.assert_close(slope, funcnet.jvp(scalar, args, direction)[1])
    twice = funcnet.grad(lambda *a: funcnet.jvp(scalar, a, direction)[1], every)(*args)
    torch.testing.assert_close(twice, funcnet.jvp(funcnet.grad(scalar, every), args, direction)[1])


def normal(i: int, *shape: int) -> Tensor:
    return random.normal(random.fold_in(KEY, i), shape, F64)


def positive(i: int, *shape: int) -> Tensor:
    return random.uniform(random.fold_in(KEY, i), shape, F64, 0.5, 2.0)


class Check(NamedTuple):
    f: Callable[..., Any]
    args: tuple[Tensor, ...]


STEP = torch.tensor(3)
V, W, M = normal(0, 3), normal(1, 3), normal(2, 3, 3)
A, B = positive(3, 3), positive(4, 3)


def nested(a: Tensor, b: Tensor) -> dict[str, Any]:
    return {"a": a, "b": (None, [b])}


def curved(x: Tensor, w: Tensor) -> Tensor:
    return (torch.sin(x * w) * x.roll(1)).sum() ** 2


def rows(x: Tensor) -> Tensor:
    return torch.stack([x, x.sin(), x * x])


def flat(x: Any) -> tuple[Tensor, ...]:
    return tuple(tree.leaves(x))


def own(kind: str) -> Callable[..., Tensor]:
    if kind == "custom_jvp":
        f = funcnet.custom_jvp(lambda x, w: torch.sin(x) * w)
        f.defjvps(lambda dx, _, x, w: torch.cos(x) * w * dx, lambda dw, _, x, w: torch.sin(x) * dw)
        return f
    f = funcnet.custom_vjp(lambda x, w: torch.sin(x) * w)
    f.defvjp(lambda x, w: (torch.sin(x) * w, (x, w)), lambda r, ct: (ct * r[0].cos() * r[1], ct * r[0].sin()))
    return f


DENSE = Model(nn.Sequential, built(lambda: nn.Linear(3, 4)), nn.Tanh(), built(lambda: nn.Linear(4, 2)))
PARAMS, _ = DENSE.init(KEY, dtype=F64)
LEAVES, TREEDEF = tree.flatten(PARAMS)


def dense(*args: Tensor) -> Any:
    *leaves, x, added = args
    params = tree.unflatten(TREEDEF, leaves)
    return DENSE.apply(params, {}, x, perturb={"1": added}, capture="1")[::2]


BLOCKS = Model(
    lambda: funcnet.stacked(nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(2))), "")
)
FUNCTIONS = {
    "Model": [Check(lambda *args: flat(dense(*args)), (*LEAVES, normal(5, 2, 3), normal(6, 2, 4)))],
    "associative_scan": [Check(lambda m: funcnet.associative_scan(lambda a, b: a * b + b.sin(), m), (M,))],
    "cond": [Check(lambda x, w: funcnet.cond(torch.tensor(True), curved, lambda x, w: (x + w).sum(), x, w), (V, W))],
    "ensemble": [Check(lambda w, x: funcnet.ensemble(curved)(rows(w), x), (V, W))],
    "fori_loop": [Check(lambda x, w: funcnet.fori_loop(0, 3, lambda i, x: torch.sin(x * w) + i, x), (V, W))],
    "grad": [Check(lambda x, w: funcnet.grad(curved, (0, 1))(x, w), (V, W))],
    "jacrev": [Check(lambda x: funcnet.jacrev(lambda x: {"y": rows(x)})(x)["y"], (V,))],
    "linearize": [Check(lambda x, t: funcnet.linearize(lambda x: rows(x) * x, x)[1](t), (V, W))],
    "per_example_grad": [Check(lambda w, x: funcnet.per_example_grad(lambda w, x: (x @ w).sin().sum())(w, x), (V, M))],
    "remat": [Check(lambda x, w: funcnet.remat(curved)(x, w), (V, W))],
    "scan": [Check(lambda h, xs: flat(funcnet.scan(lambda h, x: (torch.tanh(h + x), h * x), h, xs)), (V, M))],
    "value_and_grad": [Check(lambda x, w: funcnet.value_and_grad(curved)(x, w), (V, W))],
    "vjp": [Check(lambda x, ct: funcnet.vjp(rows, x)[1](ct), (V, M))],
    "vmap": [Check(lambda m, w: funcnet.vmap(curved, in_dims=(1, None))(m, w), (M, W))],
    "while_loop": [
        Check(
            lambda x: funcnet.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1].sin() * x), (STEP * 0, x))[1],
            (V,),
        )
    ],
    "tree.cast": [Check(lambda a: flat(tree.cast(nested(a, a), F64)), (V,))],
    "tree.global_norm": [Check(lambda a, b: tree.global_norm(nested(a, b)), (V, M))],
    "tree.map": [Check(lambda a, b: flat(tree.map(lambda x, y: x * y.sin(), nested(a, b), nested(b, a))), (V, W))],
    "tree.merge": [Check(lambda a, b: flat(tree.merge({"a": a.sin()}, {"b": a * b})), (V, W))],
    "tree.ravel": [
        Check(lambda a, b: tree.ravel(nested(a.sin(), b))[0], (V, M)),
        Check(lambda v: flat(tree.ravel(nested(V, M))[1](v * v)), (normal(7, 12),)),
    ],
    "stack_blocks": [Check(lambda a, b: flat(funcnet.stack_blocks({"0.x": a.sin(), "1.x": a * b}, "")), (V, W))],
    "stacked": [
        Check(
            lambda w, b, x: (BLOCKS({"*.0.weight": w, "*.0.bias": b}, {}, x),),
            (normal(5, 2, 3, 3), normal(6, 2, 3), V),
        )
    ],
    "unstack_blocks": [Check(lambda m: flat(funcnet.unstack_blocks({"*.x": m * m})), (M,))],
    "tree.split": [Check(lambda a, b: flat(tree.split({"a": a.sin(), "b": a * b}, "a")), (V, W))],
    "tree.stack": [Check(lambda a, b: flat(tree.stack([nested(a, b), nested(b.sin(), a)])), (V, W))],
    "tree.unstack": [Check(lambda m: flat(tree.unstack({"m": m * m})), (M,))],
    "tree.unflatten": [Check(lambda a, b: flat(tree.unflatten(tree.structure((0, 0)), [a.sin(), a * b])), (V, W))],
    "tree.to": [Check(lambda a: flat(tree.to(nested(a.sin(), a), "cpu")), (V,))],
    "optim.apply_updates": [Check(lambda a, b: flat(optim.apply_updates(nested(a, b), nested(b.sin(), a))), (V, W))],
    "optim.advance": [Check(lambda p, g: flat(advanced(optim.adam(0.1), p, g)), (V, W))],
    "random.uniform": [Check(lambda lo, hi: random.uniform(KEY, (4, 3), F64, lo, hi), (V, A + 3))],
    "random.truncated_normal": [Check(lambda lo, hi: random.truncated_normal(KEY, lo, hi, (3,), F64), (-A, B))],
    "random.multivariate_normal": [
        Check(lambda m, c: random.multivariate_normal(KEY, m, c @ c.mT + torch.eye(3, dtype=F64), (2,), F64), (V, M))
    ],
    "random.double_sided_maxwell": [
        Check(lambda loc, scale: random.double_sided_maxwell(KEY, loc, scale, (3,), F64), (V, A))
    ],
    "random.lognormal": [Check(lambda s: random.lognormal(KEY, s, (3,), F64), (A,))],
    "random.pareto": [Check(lambda b: random.pareto(KEY, b, (3,), F64), (A,))],
    "random.rayleigh": [Check(lambda s: random.rayleigh(KEY, s, (3,), F64), (A,))],
    "random.triangular": [Check(lambda a, b: random.triangular(KEY, -a, a * 0, b, (3,), F64), (A, B))],
    "random.wald": [Check(lambda m: random.wald(KEY, m, (3,), F64), (A,))],
    "random.weibull_min": [Check(lambda s, c: random.weibull_min(KEY, s, c, (3,), F64), (A, B))],
    "random.choice": [Check(lambda a: random.choice(KEY, a, (5,)), (V,))],
    "random.permutation": [Check(lambda a: random.permutation(KEY, a * a), (M,))],
}


def advanced(transformation: Any, p: Tensor, g: Tensor) -> Any:
    params = {"p": p, "q": p.sin()}
    state = transformation.init({"p": V, "q": W})
    for scale in (1.0, 0.5):  # the second step's moments are those of the first
        updates = tree.map(lambda x, s=scale: x * s, {"p": g, "q": g * g})
        params, state = optim.advance(transformation, updates, state, params)
    return params


def updated(transformation: Any, p: Tensor, g: Tensor) -> Any:
    params = {"a": p, "b": p.sin()}
    state = transformation.init({"a": V, "b": W})
    first, state = transformation.update({"a": g, "b": g * g}, state, params)
    second, _ = transformation.update(tree.map(torch.sin, first), state, params)
    return first, second


def transformations() -> dict[str, Any]:
    """Each optimizer and link with arguments under which it is smooth."""
    mask = {"a": True, "b": False}
    return {
        "adam": optim.adam(0.1, eps_root=1e-4),
        "adamw": optim.adamw(optim.cosine_decay_schedule(0.1, 10), eps_root=1e-4, weight_decay=0.1),
        "add_decayed_weights": optim.add_decayed_weights(0.1),
        "chain": optim.chain(optim.clip_by_global_norm(0.5), optim.trace(0.9)),
        "clip_by_global_norm": optim.clip_by_global_norm(0.5),
        "identity": optim.identity(),
        "masked": optim.masked(optim.scale_by_adam(eps_root=1e-4), mask, outside="unchanged"),
        "scale": optim.scale(-0.3),
        "scale_by_adam": optim.scale_by_adam(eps_root=1e-4),
        "scale_by_learning_rate": optim.scale_by_learning_rate(0.3),
        "scale_by_schedule": optim.scale_by_schedule(optim.linear_schedule(1.0, 0.0, 5)),
        "sgd": optim.sgd(0.1, momentum=0.9, nesterov=True),
        "trace": optim.trace(0.9),
    }


SCHEDULES: dict[str, Callable[[Tensor], Any]] = {
    "constant_schedule": lambda v: optim.constant_schedule(v)(STEP) * 1.0,
    "cosine_decay_schedule": lambda v: optim.cosine_decay_schedule(v, 10)(STEP),
    "join_schedules": lambda v: optim.join_schedules([lambda _: v, lambda _: v * v], [2])(STEP),
    "linear_schedule": lambda v: optim.linear_schedule(v, v * v, 10)(STEP),
    "warmup_cosine_decay_schedule": lambda v: optim.warmup_cosine_decay_schedule(v * 0.1, v, 2, 10)(STEP),
}

# Those that go forward themselves.
FORWARD = {
    "custom_vjp": [],  # whose rule knows no forward mode: below
    "custom_jvp": [Check(own("custom_jvp"), (V, W))],
    "hvp": [Check(lambda x, t: funcnet.hvp(lambda x: curved(x, W), (x,), (t,)), (V, W))],
    "jacfwd": [Check(lambda x: funcnet.jacfwd(rows)(x), (V,))],
    "jvp": [Check(lambda x, t: flat(funcnet.jvp(rows, (x,), (t,))), (V, W))],
    "hessian": [Check(lambda x, w: funcnet.hessian(curved)(x, w), (V, W))],
}

EXCUSED = {
    "fit make_epoch make_step": "a loop of updates, which are checked",
    "make_eval": "means of what the caller measures",
    "jit": "no gradient flows through it, which is an error that tests/test_jit.py covers",
    "stop_gradient": "its derivative is zero by purpose, not by its values: tests/test_transforms.py",
    "tree.check_like tree.flatten tree.leaves tree.leaves_with_path tree.nbytes tree.ones_like tree.paths "
    "tree.register_dataclass tree.size tree.structure tree.zeros_like": "nothing new that depends on values",
    "random.bernoulli random.binomial random.bits random.categorical random.geometric random.multinomial "
    "random.poisson random.rademacher random.randint": "draws integers",
    "random.cauchy random.exponential random.gumbel random.laplace random.logistic random.maxwell random.normal "
    "random.orthogonal random.ball": "has no parameter to differentiate",
    "random.beta random.chisquare random.dirichlet random.f random.gamma random.generalized_normal random.loggamma "
    "random.t": "implicit derivatives, which are not those of the draw at a fixed key: by their mean, in tests/random",
    "random.check_key random.check_reuse random.fold_in random.key random.seeded random.split": "of integer keys",
}


# In tests/losses, tests/optim/test_schedules_more.py, and the contracts of tests/optim, whose inventory is there.
ELSEWHERE = ("funcnet.losses", "funcnet.optim")


CHECKED = {*transformations(), *SCHEDULES, "advance", "apply_updates"}


def public() -> set[str]:
    """The functions and classes of the public rooms that compute; records, types and errors aside."""
    found = set()
    for room, prefix in ((funcnet, ""), (tree, "tree."), (optim, "optim."), (random, "random.")):
        for name, value in vars(room).items():
            mine = callable(value) and getattr(value, "__module__", "").startswith("funcnet")
            record = inspect.isclass(value) and issubclass(value, tuple | Exception)
            mine = mine and (name in CHECKED or not value.__module__.startswith(ELSEWHERE))
            if mine and not name.startswith("_") and not record and not inspect.ismodule(value):
                found.add(prefix + name)
    return found


TYPES = {"tree.TreeDef", "tree.Unravel"}


def test_every_public_function_is_checked_or_excused():
    optimizers = {f"optim.{name}" for name in (*transformations(), *SCHEDULES)}
    listed = set(FUNCTIONS) | set(FORWARD) | set(" ".join(EXCUSED).split()) | optimizers
    assert public() - TYPES - listed == set()
    assert listed - public() == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    for f, args in FUNCTIONS[name]:
        check(f, args, fast=False)


@pytest.mark.parametrize("name", FORWARD)
def test_functions_that_go_forward(name):
    for f, args in FORWARD[name]:
        check_along(f, args)


@pytest.mark.parametrize("kind", ["custom_vjp", "custom_jvp"])
def test_rules(kind):
    args = tuple(a.clone().requires_grad_() for a in (V, W))
    with torch.random.fork_rng():
        assert gradcheck(own(kind), args, check_batched_grad=True, check_forward_ad=kind == "custom_jvp")
        assert gradgradcheck(own(kind), args)


@pytest.mark.parametrize("name", transformations())
def test_updates(name):
    check(lambda p, g: flat(updated(transformations()[name], p, g)), (V, W))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    check(SCHEDULES[name], (torch.tensor(0.3, dtype=F64),))


# -- layers


def applied(name: str) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """A layer in train mode as a function of its parameters and inputs, of which it returns the floating outputs."""
    layer = LAYERS[name]
    model = Model(layer.constructor)
    params, state = model.init(KEY, dtype=F64)
    leaves = [p + 0.2 * normal(i, *p.shape) for i, p in enumerate(params.values())]
    inputs = layer.example(random.fold_in(KEY, 1))
    moving = [x for x in inputs[: layer.differentiable] if x.is_floating_point()]
    rest = inputs[len(moving) :]

    def f(*args: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(params, args[: len(leaves)], strict=True))
        output, _ = model.apply(values, state, *args[len(leaves) :], *rest, key=KEY, train=True)
        return tuple(leaf for leaf in tree.leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())

    return f, (*leaves, *moving)


QUICK = ["Linear", "Conv2d", "BatchNorm1d", "LayerNorm", "Embedding", "PReLU", "GRUCell", "functional dropout"]


APART = {
    "resnet18": "of millions of parameters, made of layers that are checked",
    "vision transformer": "the same",
    "Embedding, max_norm": "torch takes the scale of a row for a constant, and so do we",
    "plain tensor attributes": "detaches what it subtracts",
}
# Their kernels have no second derivative, and learn from funcnet's transforms alone that one is wanted.
ANNOUNCED = {"EmbeddingBag", "EmbeddingBag, max", "MultiMarginLoss"}


def layers() -> list[Any]:
    among = [name for name in LAYERS if name not in APART]
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in among]


def test_layers_are_apart_for_a_reason():
    assert set(APART) | set(QUICK) | ANNOUNCED <= set(LAYERS)


@pytest.mark.parametrize("name", layers())
def test_layers(name):
    check(*applied(name), announced=name in ANNOUNCED)
