"""`nn.RNN`, `nn.GRU`, `nn.LSTM` and their cells under every transform, against the modules themselves and loops."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from funcnet import (
    MissingKeyError,
    Model,
    _compat,
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
    tree,
    vjp,
    vmap,
)
from tests.models import built

KINDS = {
    "tanh": lambda **options: nn.RNN(3, 4, **options),
    "relu": lambda **options: nn.RNN(3, 4, nonlinearity="relu", **options),
    "gru": lambda **options: nn.GRU(3, 4, **options),
    "lstm": lambda **options: nn.LSTM(3, 4, **options),
    "projected": lambda **options: nn.LSTM(3, 4, proj_size=2, **options),
}
LENGTHS = [3, 5, 1]


def normal(seed, *shape, dtype=torch.float64):
    return random.normal(random.key(seed), shape, dtype)


def close(a, b, **tolerance):
    tree.map(lambda x, y: torch.testing.assert_close(x, y, **tolerance), a, b)


def scaled(params, factor):
    return tree.map(lambda p: p * factor, params)


class Ragged(nn.Module):
    """A recurrent layer on sequences of several lengths, packed and unpacked inside."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, *hx):
        packed = pack_padded_sequence(x, LENGTHS, self.layer.batch_first, enforce_sorted=False)
        output, states = self.layer(packed, *hx)
        padded, _ = pad_packed_sequence(output, self.layer.batch_first, padding_value=0.5, total_length=6)
        return padded, states


class Case:
    """A recurrent layer in one configuration: as a module, as a model, with inputs, and a loss of all its results."""

    def __init__(self, kind, options=None, form="batch", states=False, seed=0, dtype=torch.float64):
        self.kind, self.options, options = kind, options or {}, options or {}
        self.module = built(lambda: KINDS[kind](**options), seed).to(dtype)
        if form == "packed":
            self.module = Ragged(self.module)
        self.model, self.params, self.state = Model.from_module(self.module)
        self.form = form
        shape = (5, 3) if form == "one" else (3, 5, 3) if options.get("batch_first") else (5, 3, 3)
        self.x = normal(seed + 1, *shape, dtype=dtype)
        rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
        sizes = {"lstm": (4, 4), "projected": (2, 4)}.get(kind, (4,))
        batch = () if form == "one" else (3,)
        given = tuple(normal(seed + 2 + i, rows, *batch, n, dtype=dtype) for i, n in enumerate(sizes))
        self.hx = (given if len(given) > 1 else given[0],) if states else ()

    def loss(self, params, x, *hx, key=None, train=False, factor=1.0):
        result = self.model.apply(params, self.state, x, *hx, key=key, train=train)[0]
        return summary(result)

    def reference(self, params, x, *hx):
        """The module itself, with other parameters; a copy, since it keeps what it is called with."""
        return summary(torch.func.functional_call(copy.deepcopy(self.module), params, (x, *hx)))


def summary(result):
    leaves = [t for t in tree.leaves(tuple(result)) if t.is_floating_point()]
    return sum(((i + 1) * t).sin().sum() for i, t in enumerate(leaves))


@st.composite
def cases(draw, forms=("batch", "one", "packed")):
    options = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    form, states = draw(st.sampled_from(forms)), draw(st.booleans())
    return Case(draw(st.sampled_from(list(KINDS))), options, form, states, draw(st.integers(0, 99)))


def inner(a, b):
    return sum((x * y).sum() for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@settings(max_examples=10)
@given(cases())
def test_evaluates_as_the_module(case):
    with torch.no_grad():
        got = case.model(case.params, case.state, case.x, *case.hx)
        # The bits of a product depend on where in memory its factors lie: the module has copies like the model's.
        module = case.model.bind(case.params, case.state)
        assert torch.equal(summary(got), summary(module(case.x, *case.hx)))


@settings(max_examples=10)
@given(cases())
def test_gradients_are_those_of_the_module(case):
    summary(case.module(case.x, *case.hx)).backward()
    close(grad(case.loss)(case.params, case.x, *case.hx), {n: p.grad for n, p in case.module.named_parameters()})


@settings(max_examples=10)
@given(cases())
def test_forward_mode_and_curvature(case):
    p, x = (case.params, case.x), case.hx
    tangent = tree.map(torch.cos, p)
    # The module, twice in reverse by torch.autograd.
    leaves = [t.clone().requires_grad_() for t in tree.leaves(p)]
    value = case.reference(*tree.unflatten(tree.structure(p), leaves), *x)
    along = inner(torch.autograd.grad(value, leaves, create_graph=True), tangent)
    want = torch.autograd.grad(along, leaves)
    close(jvp(lambda *p: case.loss(*p, *x), p, tangent), (value.detach(), along.detach()))
    close(tree.leaves(hvp(lambda *p: case.loss(*p, *x), p, tangent)), list(want))
    twice = grad(lambda *p: inner(grad(lambda *p: case.loss(*p, *x), (0, 1))(*p), tangent), (0, 1))(*p)
    close(tree.leaves(twice), list(want))


@settings(max_examples=10)
@given(cases())
def test_vmap_is_a_loop(case):
    many = torch.stack([case.x, case.x.cos(), case.x.sin()])
    members = tree.stack([scaled(case.params, s) for s in (0.5, 1.0, 1.5)])
    one = [tree.map(lambda t, i=i: t[i], members) for i in range(3)]
    f, g = (lambda p, x, f=f: f(p, x, *case.hx) for f in (case.loss, case.reference))
    close(vmap(f, (None, 0))(case.params, many), torch.stack([g(case.params, x) for x in many]))
    close(ensemble(f)(members, case.x), torch.stack([g(p, case.x) for p in one]))
    close(vmap(grad(f))(members, many), tree.stack([grad(g)(p, x) for p, x in zip(one, many, strict=True)]))
    close(vmap(grad(f), (None, 0))(case.params, many), tree.stack([grad(g)(case.params, x) for x in many]))


@pytest.mark.parametrize(("kind", "form"), [("lstm", "packed"), ("gru", "batch")])
def test_jit(kind, form):
    case = Case(kind, {"bidirectional": True, "batch_first": True}, form, states=True)
    args = case.params, case.x, *case.hx
    close(jit(grad(case.loss), backend="aot_eager")(*args), grad(case.loss)(*args))


SINGLE = [
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False},
]


def operators(f, *args):
    """The names of the operators in the graph that jit makes."""
    found = set()

    def backend(graph, inputs):
        found.update(str(node.target) for node in graph.graph.nodes)
        return graph

    result = jit(f, backend=backend)(*args)
    return found, result


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("options", SINGLE)
def test_jit_holds_an_lstm_in_single_precision_as_one_node(options, states):
    case = Case("lstm", options, states=states, dtype=torch.float32)
    args = case.params, case.x, *case.hx
    for f in (grad(case.loss, (0, 1)), lambda *args: vjp(lambda *args: case.loss(*args), *args)[1](torch.ones(()))):
        names, got = operators(f, *args)
        assert "funcnet.lstm_layer_backward.default" in names
        close(got, f(*args))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_lstms_workspace_is_asked_for_in_single_precision_on_the_cpu(dtype, device):
    key = random.key(1)
    x, hidden = random.normal(key, (5, 2, 3)), random.normal(key, (1, 2, 4))
    weights = [random.normal(key, shape) for shape in ((16, 3), (16, 4), (16,), (16,))]
    if not _compat.has_lstm_layer():
        pytest.skip("this torch has no such kernel")
    expected = _compat.lstm_workspace(x, weights, hidden, False)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            assert _compat.lstm_workspace(x, weights, hidden, False) == expected > 0
    finally:
        torch.set_default_dtype(torch.float32)


def test_jit_of_an_lstm_in_single_precision_with_dropout_between_layers():
    case = Case("lstm", {"num_layers": 2, "dropout": 0.5}, dtype=torch.float32)
    f = grad(lambda p, key: case.loss(p, case.x, key=key, train=True))
    names, got = operators(f, case.params, random.key(3))
    assert "funcnet.lstm_layer_backward.default" in names
    close(got, f(case.params, random.key(3)))
    names, other = operators(f, case.params, random.key(4))
    assert not torch.equal(other["weight_hh_l0"], got["weight_hh_l0"])


def test_jit_of_an_lstm_in_single_precision_asks_the_cells_for_what_its_kernel_lacks():
    case = Case("lstm", dtype=torch.float32)
    p, along = case.params, tree.map(torch.cos, case.params)
    for f in (
        lambda p: hvp(lambda p: case.loss(p, case.x), (p,), (along,)),
        lambda p: jvp(lambda p: case.loss(p, case.x), (p,), (along,)),
        lambda p: vmap(grad(lambda p, x: case.loss(p, x)), (None, 0))(p, torch.stack([case.x, case.x.sin()])),
        grad(lambda p: case.loss(p, case.x[:, :0])),
    ):
        names, got = operators(f, p)
        assert not any("lstm_layer" in name for name in names)
        close(got, f(p), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@settings(max_examples=50)
@given(cases())
def test_jit_of_each_configuration(case):
    args = case.params, case.x, *case.hx
    close(jit(case.loss, backend="aot_eager")(*args), case.loss(*args))
    close(jit(grad(case.loss), backend="aot_eager")(*args), grad(case.loss)(*args))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_jit_of_each_transform(kind):
    case = Case(kind, {"num_layers": 2})
    many = torch.stack([case.x, case.x.cos()])
    transforms = {
        "per example": (vmap(grad(case.loss), (None, 0)), (case.params, many)),
        "jvp": (lambda p, x: jvp(lambda x: case.loss(p, x), (x,), (x,)), (case.params, case.x)),
        "hvp": (lambda p, x: hvp(lambda p: case.loss(p, x), (p,), (p,)), (case.params, case.x)),
    }
    for transform, args in transforms.values():
        close(jit(transform, backend="aot_eager")(*args), transform(*args))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_jit_by_inductor(kind, dtype):
    case = Case(kind, {"num_layers": 2, "bidirectional": True, "batch_first": True}, dtype=dtype)
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {}
    args = case.params, case.x
    close(jit(case.loss)(*args), case.loss(*args), **tolerance)
    close(jit(grad(case.loss))(*args), grad(case.loss)(*args), **tolerance)
    many = torch.stack([case.x, case.x.cos()])
    per_example = vmap(grad(case.loss), (None, 0))
    close(jit(per_example)(case.params, many), per_example(case.params, many), **tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_and_pullbacks(kind):
    case = Case(kind)
    of = lambda x: case.model(case.params, case.state, x)[0][-1, 0]  # noqa: E731 - one line
    reference = lambda x: copy.deepcopy(case.module)(x)[0][-1, 0]  # noqa: E731 - one line
    want = torch.autograd.functional.jacobian(reference, case.x)
    close(jacrev(of)(case.x), want)
    close(jacfwd(of)(case.x), want)
    close(linearize(of, case.x)[1](case.x.sin()), jvp(of, (case.x,), (case.x.sin(),))[1])
    one = case.x[:2, :1]
    close(hessian(lambda x: case.loss(case.params, x))(one), jacrev(jacrev(lambda x: case.loss(case.params, x)))(one))
    out, pull = vjp(of, case.x)
    close(jvp(pull, (out,), (out.cos(),))[1], vjp(of, case.x)[1](out.cos()))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, packed):
    case = Case(kind, {"bidirectional": True, "batch_first": True}, "packed" if packed else "batch", states=True)
    hx = case.hx[0] if isinstance(case.hx[0], tuple) else case.hx
    leaves = [t.requires_grad_() for t in (case.x, *hx, *case.params.values())]

    def f(x, *rest):
        states = rest[: len(hx)]
        params = dict(zip(case.params, rest[len(hx) :], strict=True))
        return case.loss(params, x, states if len(states) > 1 else states[0])

    with torch.random.fork_rng():  # gradcheck draws its directions from the global generator
        assert gradcheck(f, leaves, check_forward_ad=True, fast_mode=True)
        assert gradgradcheck(f, leaves, fast_mode=True)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_takes_both_paths_to_the_same_numbers(kind):
    case, double = (
        Case(kind, {"num_layers": 2, "bidirectional": True}, dtype=d) for d in (torch.float32, torch.float64)
    )
    double = double.loss, tree.cast(case.params, torch.float64), case.x.double()
    many = case.x[None]
    native, cells = case.loss(case.params, case.x), vmap(case.loss, (None, 0))(case.params, many)[0]
    want = double[0](*double[1:])
    tolerance = {"atol": 1e-5, "rtol": 1e-4, "check_dtype": False}
    close(native, want, **tolerance)
    close(cells, want, **tolerance)
    gradients = grad(double[0])(*double[1:])
    close(grad(case.loss)(case.params, case.x), gradients, **tolerance)
    per_example = vmap(grad(case.loss), (None, 0))(case.params, many)
    close(tree.map(lambda t: t[0], per_example), gradients, **tolerance)
    close(
        jvp(case.loss, (case.params, case.x), (case.params, case.x))[1],
        jvp(double[0], double[1:], double[1:])[1],
        **tolerance,
    )


@settings(max_examples=10)
@given(cases(("batch", "packed")), st.integers(0, 99))
def test_dropout_is_the_same_on_every_path(case, seed):
    case = Case(case.kind, {**case.options, "num_layers": 2, "dropout": 0.5}, case.form, bool(case.hx))
    key = random.key(seed)
    of = lambda p, x, key=key: case.loss(p, x, *case.hx, key=key, train=True)  # noqa: E731 - one line
    want = of(case.params, case.x)
    assert not torch.allclose(want, case.loss(case.params, case.x, *case.hx))
    close(vmap(of, (None, 0))(case.params, case.x[None])[0], want)
    close(jvp(of, (case.params, case.x), (case.params, case.x))[0], want)
    gradient = grad(of)(case.params, case.x)
    close(vmap(grad(of), (None, 0))(case.params, case.x[None]), tree.map(lambda t: t[None], gradient))
    keys = random.split(key, 3)
    drawn = vmap(lambda k: of(case.params, case.x, k))(keys)
    close(drawn, torch.stack([of(case.params, case.x, k) for k in keys]))
    with pytest.raises(MissingKeyError, match=r"key=random\.key"):
        of(case.params, case.x, None)


def test_per_example_gradients_of_a_language_model():
    def words():
        return nn.Sequential(
            nn.Embedding(7, 3), Outputs(nn.LSTM(3, 4, 2, dropout=0.3, batch_first=True)), nn.Linear(4, 7)
        )

    model = Model(words)
    params, state = tree.cast(model.init(random.key(1)), torch.float64)
    tokens, key = random.randint(random.key(2), (4, 6), 0, 7), random.key(3)

    def loss(p, x, key):
        logits, _ = model.apply(p, state, x[:, :-1], key=key, train=True)
        return nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten().long())

    got = per_example_grad(loss, batch=1, keys=2)(params, tokens, key)
    close(got, tree.stack([grad(loss)(params, x[None], k) for x, k in zip(tokens, random.split(key, 4), strict=True)]))
    close(jit(per_example_grad(loss, batch=1, keys=2), backend="aot_eager")(params, tokens, key), got)


class Outputs(nn.Module):
    """The outputs of a recurrent layer without its states."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells(cell, states):
    module = built(lambda: cell(3, 4, bias=states)).double()
    model, params, state = Model.from_module(module)
    h = normal(2, 5, 2, 4)
    hx = () if not states else ((h, h.cos()),) if cell is nn.LSTMCell else (h,)
    x = normal(1, 5, 2, 3)
    rows = [(x[i], *(tree.map(lambda t, i=i: t[i], s) for s in hx)) for i in range(5)]

    def first(result):
        return result[1] if isinstance(result, tuple) else result

    def loss(p, x, *hx):
        return first(model.apply(p, state, x, *hx)[0]).sin().sum()

    def reference(p, x, *hx):
        return first(torch.func.functional_call(module, p, (x, *hx))).sin().sum()

    got = vmap(grad(loss), (None, 0, *(0 for _ in hx)))(params, x, *hx)
    close(got, tree.stack([grad(reference)(params, *row) for row in rows]))
    curvature, want = (hvp(lambda p, f=f: f(p, *rows[0]), (params,), (params,)) for f in (loss, reference))
    close(curvature, want)
    close(jit(grad(loss), backend="aot_eager")(params, *rows[0]), grad(reference)(params, *rows[0]))
    members = tree.stack([params, scaled(params, 0.5)])
    close(ensemble(loss)(members, *rows[0])[1], reference(scaled(params, 0.5), *rows[0]))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_torch_its_dtypes(kind):
    case = Case(kind, {"num_layers": 2}, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        want = case.module(case.x)
        got = case.model(case.params, case.state, case.x)
        mapped = vmap(lambda x: case.model(case.params, case.state, x))(case.x[None])
        traced = jit(lambda p, x: case.model(p, case.state, x), backend="aot_eager")(case.params, case.x)
    dtypes = [t.dtype for t in tree.leaves(want)]
    for result in (got, mapped, traced):
        assert [t.dtype for t in tree.leaves(result)] == dtypes
    close(tree.map(lambda t: t[0].float(), mapped), tree.map(torch.Tensor.float, want), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_none(kind):
    case = Case(kind, {"bidirectional": True})
    x = case.x[:, :0]
    for f in (case.loss, case.reference):
        assert f(case.params, x) == 0
    close(jvp(lambda p: case.loss(p, x), (case.params,), (case.params,))[1], torch.zeros((), dtype=torch.float64))
    assert vmap(case.loss, (None, 0))(case.params, x[None]).shape == (1,)


def test_errors_are_torchs():
    case = Case("lstm")
    with pytest.raises(RuntimeError, match=r"input\.size"):
        vmap(case.loss, (None, 0))(case.params, case.x[None, ..., :2])
    with pytest.raises(RuntimeError, match="Expected hidden"):
        vmap(case.loss, (None, 0, None))(case.params, case.x[None], (case.x, case.x))


def test_jit_takes_the_lengths_of_a_packed_sequence_for_a_shape():
    case = Case("lstm", {"bidirectional": True})

    def step(params, packed):
        output, (h, _) = case.model(params, case.state, packed)
        return output, h.sum()

    jitted = jit(step, backend="aot_eager")
    for lengths in ([3, 5, 1], [5, 3, 1], [2, 2, 2]):
        packed = pack_padded_sequence(case.x, torch.tensor(lengths), enforce_sorted=False)
        got, want = jitted(case.params, packed), step(case.params, packed)
        assert isinstance(got[0], PackedSequence)
        close(tree.leaves(got), tree.leaves(want))
    assert jitted.compiles == 2
    with pytest.raises(TypeError, match="lengths of packed sequences are shapes"):
        jit(lambda x, n: Model(Unpacker)({}, {}, x, n), backend="aot_eager")(case.x, torch.tensor([5, 3, 1]))


class Unpacker(nn.Module):
    def forward(self, x, lengths):
        return pack_padded_sequence(x, lengths).data


def test_packed_sequences_in_any_order():
    rows = [normal(i, n, 3) for i, n in enumerate((2, 6, 4))]
    case = Case("gru", {"bidirectional": True, "num_layers": 2})
    packed = pack_sequence(rows, enforce_sorted=False)
    got, last = case.model(case.params, case.state, packed)
    assert isinstance(got, PackedSequence)
    padded, lengths = pad_packed_sequence(got)
    assert lengths.tolist() == [2, 6, 4]
    for i, row in enumerate(rows):  # each as if it were alone
        alone, final = case.model(case.params, case.state, row)
        close(padded[: len(row), i], alone)
        close(last[:, i], final)
        # and through the cells
        mapped = vmap(lambda data: case.model(case.params, case.state, packed._replace(data=data)))(packed.data[None])
        close(mapped[0].data[0], got.data)
        close(mapped[1][0], last)
