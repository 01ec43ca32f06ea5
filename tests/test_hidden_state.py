"""What a forward leaves in its module is gone at the next call: the result depends on the arguments alone."""

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from funcnet import Model, ensemble, grad, jit, random, tree, vmap
from tests.models import built

KEY = random.key(0)
X = random.normal(KEY, (2, 4))


class Remembers(nn.Module):
    """Keeps what it saw in one attribute of the given kind, and lets its output depend on it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(4, 4)
        self.last: Tensor | None = None
        self.calls = 0
        self.seen: list[Tensor] = []
        self.nested: dict[str, list[int]] = {"n": []}
        self.object = SimpleNamespace(calls=0)
        self.register_buffer("hidden", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "attribute":
            self.last = x if self.last is None else self.last + x
            x = self.last
        elif self.kind == "number":
            self.calls += 1
            x = x * self.calls
        elif self.kind == "list":
            self.seen.append(x)
            x = x * len(self.seen)
        elif self.kind == "nested":
            self.nested["n"].append(1)
            x = x * len(self.nested["n"])
        elif self.kind == "object":
            self.object.calls += 1
            x = x * self.object.calls
        elif self.kind == "new buffer":
            self.hidden = x if self.hidden is None else self.hidden + x
            x = self.hidden
        elif self.kind == "mode":
            x = x * 2 if self.training else x
            self.eval()
        elif self.kind == "submodule":
            if hasattr(self, "late"):
                x = x * 2
            self.late = nn.Identity()
        return self.linear(x)


KINDS = ["attribute", "number", "list", "nested", "object", "new buffer", "mode", "submodule"]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_do_not_see_each_other(kind):
    module = built(lambda: Remembers(kind)).train()
    model, params, state = Model.from_module(module)
    with torch.no_grad():
        want = module(X)  # the plain module, at its first call
    for _ in range(3):
        output, new_state = model.apply(params, state, X, train=True)
        assert torch.equal(output, want)
        assert new_state.keys() == state.keys()


def test_a_transform_leaves_no_wrapper_behind():
    model = Model(Remembers, "attribute")
    params, state = model.init(KEY)
    vmap(lambda x: model(params, state, x))(X)
    grad(lambda p: model(p, state, X).sum())(params)
    assert torch.equal(jit(lambda p: model(p, state, X), backend="aot_eager")(params), model(params, state, X))


def test_what_the_caller_was_given_stays_his():
    class Collects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outputs: list[Tensor] = []

        def forward(self, x: Tensor) -> list[Tensor]:
            self.outputs.append(x)
            return self.outputs

    model = Model(Collects)
    first, second = model({}, {}, X), model({}, {}, 2 * X)
    assert tree.map(torch.equal, (first, second), ([X], [2 * X])) == ([True], [True])


def test_an_assigned_member_of_a_list_becomes_new_state():
    class History(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.past = [torch.zeros(4), torch.zeros(4)]

        def forward(self, x: Tensor) -> Tensor:
            self.past[1] = self.past[0] + 1
            self.past[0] = x[0]
            return x

    model = Model(History)
    params, state = model.init(KEY)
    _, new = model.apply(params, state, X)
    assert torch.equal(new["past.0"], X[0])
    assert torch.equal(new["past.1"], torch.ones(4))
    assert not state["past.0"].any()


def test_init_gives_memory_of_its_own():
    vectors = torch.ones(3, 2)
    model = Model(lambda: nn.Embedding.from_pretrained(vectors, freeze=False))
    params, _ = model.init(KEY)
    params["weight"].add_(1)  # as a donating step does
    assert torch.equal(vectors, torch.ones(3, 2))
    assert torch.equal(model.init(KEY)[0]["weight"], vectors)


def test_the_skeleton_leaves_the_global_generator():
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("noise", torch.rand(4, device="cpu"))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.noise

    before = torch.get_rng_state()
    Model(Draws)({}, {"noise": torch.zeros(4)}, X)  # built for its names alone
    assert torch.equal(torch.get_rng_state(), before)


def test_a_module_may_hold_a_model():
    inner = Model(nn.Linear, 4, 2)

    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.inner = nn.Parameter(torch.ones(2, 4)), inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner({"weight": self.weight, "bias": torch.zeros(2)}, {}, x)

    model = Model(Holds)
    assert torch.allclose(model(*model.init(KEY), X), X.sum(1, keepdim=True).expand(2, 2))


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Ambiguous(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("constructor", "error", "message"),
    [
        (lambda: nn.Sequential(Locked()), TypeError, r"attribute '0.lock' of Sequential is a lock that cannot be"),
        (Ambiguous, ValueError, r"two tensors of Ambiguous have the one name 'table.a.b'. Rename a key of 'table'"),
        (lambda: torch.jit.script(nn.Linear(2, 2)), TypeError, r"this module is scripted .* the Python module"),
    ],
)
def test_modules_that_cannot_be_pure(constructor, error, message):
    module = built(constructor)
    with pytest.raises(error, match=message):
        Model.from_module(module)


def test_a_train_method_may_return_nothing():
    class Silent(nn.Module):
        def train(self, mode: bool = True) -> None:  # type: ignore[override]  # as people write it
            super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if self.training else x

    assert torch.equal(Model(Silent).apply({}, {}, X, train=True)[0], 2 * X)


class Decaying(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        with torch.no_grad():
            self.weight.mul_(0.5)
        return x * self.weight


def test_a_forward_that_writes_its_parameter_is_refused():
    model = Model(Decaying)
    params, state = model.init(random.key(0))
    with pytest.raises(
        RuntimeError, match=r"Model\(Decaying\) wrote into 'weight' in place.*keep what changes in a buffer"
    ):
        model(params, state, torch.ones(3))


def test_a_forward_that_writes_its_input_is_refused():
    model = Model(nn.ReLU, inplace=True)
    with pytest.raises(RuntimeError, match=r"wrote into its argument 0 in place.*relu without inplace=True"):
        model({}, {}, torch.tensor([-1.0, 1.0]))
    with pytest.raises(RuntimeError, match=r"wrote into its argument input in place"):
        model({}, {}, input=torch.tensor([-1.0, 1.0]))
    with pytest.raises(RuntimeError, match=r"wrote into its argument 0 in place"):
        vmap(lambda x: model({}, {}, x))(-torch.ones(2, 3))
    inside = Model(lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)))
    params, state = inside.init(random.key(0))
    assert (inside(params, state, torch.ones(1, 2)) >= 0).all()


def test_a_forward_that_writes_into_a_tree_is_refused():
    class Adds(nn.Module):
        def forward(self, rows, scale=1.0):
            return rows["x"][0].add_(scale)

    model, rows = Model(Adds), {"x": [torch.zeros(2)], "n": 3}
    with pytest.raises(RuntimeError, match=r"wrote into its argument 0\.x\.0 in place"):
        model({}, {}, rows, scale=2.0)


class Averages(nn.Module):
    """Writes past autograd's counts, as exponential means and codebooks often do."""

    def __init__(self, what):
        super().__init__()
        self.what = what
        self.register_buffer("mean", torch.zeros(3))
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        if self.what == "write":
            self.mean.data.lerp_(x.detach().mean(0), 0.25)
        elif self.what == "view":
            self.mean.data[1:].copy_(x.detach().mean(0)[1:])
        elif self.what == "assign":
            self.mean.data = x.detach().mean(0)
        elif self.what == "parameter":
            self.weight.data.clamp_(max=0.5)
        elif self.what == "argument":
            x.data.mul_(2)
        return (x - self.mean) * self.weight.data


@pytest.mark.parametrize("what", ["write", "view", "assign", "read"])
@pytest.mark.parametrize("way", [lambda f: f, lambda f: jit(f, backend="aot_eager")], ids=["eager", "jit"])
def test_what_is_written_through_data_becomes_new_state(what, way):
    x, module = random.normal(random.key(1), (4, 3)), Averages(what)
    model, params, state = Model.from_module(module)
    output, new = way(lambda p, s, x: model.apply(p, s, x, train=True))(params, state, x)
    torch.testing.assert_close(output, module(x))
    torch.testing.assert_close(new["mean"], module.mean)
    assert torch.equal(state["mean"], torch.zeros(3))


@pytest.mark.parametrize(("what", "name"), [("parameter", "'weight'"), ("argument", "its argument 0")])
def test_writing_through_data_what_is_not_ones_own_is_refused(what, name):
    model = Model(Averages, what)
    params, state = model.init(random.key(0))
    with pytest.raises(RuntimeError, match=f"wrote into {name} in place"):
        model(params, state, torch.ones(4, 3))


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm], ids=["new", "old"])
def test_spectral_norm_keeps_its_power_iteration_as_state(norm: object):
    model = Model(lambda: norm(nn.Linear(3, 2)))
    params, state = model.init(random.key(0))
    module, x = model.bind(params, state).train(), random.normal(random.key(1), (4, 3))
    output, new = model.apply(params, state, x, train=True)
    assert torch.equal(output, module(x))
    vectors = [name for name in new if name.endswith(("_u", "_v"))]
    assert len(vectors) == 2
    for name in vectors:
        assert torch.equal(new[name], module.get_buffer(name))
        assert not torch.equal(new[name], state[name])
    _, other = model.apply({k: 2 + v for k, v in params.items()}, state, x, train=True)
    _, both = ensemble(lambda p, s: model.apply(p, s, x, train=True), (0, 1))(
        {k: torch.stack([v, 2 + v]) for k, v in params.items()}, {k: torch.stack([v, v]) for k, v in state.items()}
    )
    for name in vectors:
        torch.testing.assert_close(both[name], torch.stack([new[name], other[name]]))
