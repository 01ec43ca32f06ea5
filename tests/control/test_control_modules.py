"""Loops and branches inside a module that `Model.apply` runs: keys, statistics, buffers, autocast, threads."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from funcnet import MissingKeyError, Model, grad, jit, random, tree, vmap
from funcnet.control import cond, fori_loop, remat, scan, while_loop

KEY = random.key(9)
X = random.normal(KEY, (4, 6, 3))


def close(got, want):
    tree.map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5), got, want)


class Recurrent(nn.Module):
    """A step with a weight, BatchNorm, dropout and a buffer written in place, in a loop of some kind."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.norm, self.drop, self.kind = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), kind
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def step(self, h, x):
        self.calls += 1
        return self.drop(self.norm(torch.tanh(self.linear(h) + x)))

    def forward(self, xs):
        first = F.dropout(xs, 0.3, self.training)
        out = getattr(self, f"by_{self.kind}")(first)
        return out, F.dropout(xs, 0.5, self.training)  # what is drawn after the loop

    def by_scan(self, xs):
        return scan(lambda h, x: (self.step(h, x), h.sum()), xs[0], xs)

    def by_reverse(self, xs):
        return scan(lambda h, x: (self.step(h, x), h.sum()), xs[0], xs, reverse=True, unroll=3)

    def by_fori(self, xs):
        return fori_loop(0, 4, lambda i, h: self.step(h, 0.1 * i), xs[0])

    def by_while(self, xs):
        return while_loop(lambda s: s[1] < 4, lambda s: (self.step(s[0], 0.1), s[1] + 1), (xs[0], 0))[0]

    def by_cond(self, xs):
        return cond(xs.sum() > 0, lambda h: self.step(h, 0.1), lambda h: 2 * F.dropout(h, 0.5, self.training), xs[0])

    def by_remat(self, xs):
        return scan(lambda h, x: (remat(self.step)(h, x), h.sum()), xs[0], xs)

    def by_scan_in_remat(self, xs):
        return remat(self.by_scan)(xs)


KINDS = ["scan", "reverse", "fori", "while", "cond", "remat", "scan_in_remat"]
TURNS = {"cond": 1}


def loss_of(kind):
    model = Model(Recurrent, kind)
    params, state = model.init(random.key(1))

    def loss(params, xs, key):
        (out, last), new = model.apply(params, state, xs, key=key, train=True)
        return sum((leaf**2).sum() for leaf in tree.leaves(out)) + last.sum(), new

    return model, params, state, loss


@pytest.mark.parametrize("kind", KINDS)
def test_eager_and_compiled_draw_and_record_alike(kind):
    _, params, _, loss = loss_of(kind)
    xs = X + 0.5
    value, new = loss(params, xs, KEY)
    assert new["calls"] == new["norm.num_batches_tracked"] == TURNS.get(kind, 4)
    close(jit(loss, backend="eager")(params, xs, KEY), (value, new))
    assert loss(params, xs, random.key(10))[0] != value


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "while"])
def test_gradients(kind):
    _, params, _, loss = loss_of(kind)
    slopes = grad(loss, has_aux=True)
    close(jit(slopes, backend="eager")(params, X, KEY), slopes(params, X, KEY))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_under_vmap(kind):
    _, params, _, loss = loss_of(kind)
    xs, keys = torch.stack([X, X + 1, X - 1]), random.split(KEY, 3)
    mapped = vmap(loss, (None, 0, 0))
    want = tree.stack([loss(params, x, key) for x, key in zip(xs, keys, strict=True)])
    close(mapped(params, xs, keys), want)
    close(jit(mapped, backend="aot_eager")(params, xs, keys), want)


def test_scan_draws_a_fresh_key_each_step_and_none_without_one():
    class Noise(nn.Module):
        def forward(self, x):
            return scan(lambda c, _: (c, F.dropout(x, 0.5, self.training)), torch.tensor(0), length=3)[1]

    model = Model(Noise)
    x = torch.ones(64)
    out, _ = model.apply({}, {}, x, key=KEY, train=True)
    assert len({tuple(row.tolist()) for row in out}) == 3
    with pytest.raises(MissingKeyError, match=r"key=random.key\(0\)"):
        model.apply({}, {}, x, train=True)
    close(model({}, {}, x), torch.ones(3, 64))


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: jit(f, backend="eager")])
def test_autocast_reaches_the_steps_and_their_backward(wrap):
    w, h, xs = (random.normal(random.fold_in(KEY, i), shape) for i, shape in enumerate([(3, 3), (2, 3), (4, 2, 3)]))

    seen = []

    def loss(w):
        def step(h, x):
            product = (h + x) @ w
            seen.append(product.dtype)
            return torch.tanh(product.float()), None

        with torch.autocast("cpu", torch.bfloat16):
            final, _ = scan(step, h, xs)
        return final.sum()

    def by_hand(w):
        state = h
        for x in xs:
            state = torch.tanh(((state + x).bfloat16() @ w.bfloat16()).float())
        return state.sum()

    torch.testing.assert_close(wrap(grad(loss))(w), grad(by_hand)(w), rtol=5e-2, atol=5e-2)
    assert set(seen) == {torch.bfloat16}  # on the way back as well, where the steps are run again outside of the block


def test_threads():
    _, params, _, loss = loss_of("scan")
    inputs = [X + i for i in range(4)]
    want = [loss(params, x, KEY) for x in inputs]
    got = {}

    def work(i):
        got[i] = [loss(params, inputs[i], KEY) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(want):
        for result in got[i]:
            close(result, expected)


def test_a_model_adds_nothing_of_its_skeleton_to_a_graph():
    """Its tensors hold no values; the compiler refuses them as operands of a loop."""
    model = Model(nn.Linear, 3, 3)
    params, state = model.init(KEY)
    devices = []

    def look(graph, examples):
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.higher_order.scan):
            devices.extend(leaf.meta["val"].device.type for leaf in tree.leaves(node.args[1:]))
        return graph

    def descend(params):
        def loss(p):
            return model(p, state, X[0]).square().sum()

        return scan(lambda p, _: (tree.map(lambda a, b: a - 0.1 * b, p, grad(loss)(p)), loss(p)), params, length=5)

    got = jit(descend, backend=look)(params)
    close(got, descend(params))
    assert devices
    assert set(devices) == {"cpu"}


class Counting(nn.Module):
    """Counts its turns, and averages what it meets, until each example is done."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.norm = kind, nn.BatchNorm1d(3, affine=False)
        self.register_buffer("turns", torch.zeros(()))

    def forward(self, xs, count):
        def body(i, x):
            self.turns += 1
            return F.dropout(self.norm(x + self.turns), 0.5, self.training)

        if self.kind == "fori":
            return fori_loop(torch.zeros_like(count), count, body, xs)
        going = lambda state: (state[0] < count) & (self.turns < 3)  # noqa: E731
        return while_loop(going, lambda state: (state[0] + 1, body(*state)), (torch.zeros_like(count), xs))[1]


@pytest.mark.parametrize("kind", ["fori", "while"])
def test_what_an_element_writes_under_vmap_stays_once_it_is_done(kind):
    model = Model(Counting, kind)
    params, state = model.init(KEY)
    counts = torch.tensor([1, 3, 0, 5])

    def call(count):
        return model.apply(params, state, X[0], count, key=KEY, train=True)

    got, want = vmap(call)(counts), tree.stack([call(count) for count in counts])
    assert got[1]["turns"].tolist() == [1, 3, 0, 5 if kind == "fori" else 3]
    close(got, want)
