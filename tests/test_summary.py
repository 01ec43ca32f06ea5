"""FLOPs, activations and shapes of one call, and their table, from Python and from the shell."""

import resource
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from funcnet import Model, counts, random, specs
from funcnet.cli import main
from funcnet.counts.rows import collapse
from tests.models import Everything, built, cnn, lstm, transformer

# Whole words that torch says once a process.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported"),
    pytest.mark.filterwarnings("ignore:dropout option adds dropout"),
]

size = st.integers(1, 6)


class Function(nn.Module):
    """A function of its inputs as a module; with `parameter` a function of that and its inputs."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(*shape)) if shape else None

    def forward(self, *inputs):
        return self.function(*([] if self.weight is None else [self.weight]), *inputs)


class Reading(nn.Module):
    """A module that reads a value, so that it runs on real tensors."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if x.sum() < 1e9 else x


def of(rows):
    return {row.path: row.cost for row in rows}


def tokens(*shape, high=10):
    return specs.Input(shape, torch.int64, high)


# FLOPs


@given(size, size, size)
def test_linear(batch, n_in, n_out):
    model = built(lambda: nn.Sequential(nn.Linear(n_in, n_out), nn.Linear(n_out, n_in)))
    once = 2 * batch * n_in * n_out
    found = of(counts.summary(model, (batch, n_in), train=True).rows)
    # The first layer's input needs no gradient.
    assert [(found[p].forward, found[p].backward) for p in ("0", "1")] == [(once, once), (once, 2 * once)]


@given(st.data(), st.sampled_from([1, 2, 3]), st.booleans())
def test_convolution(data, dims, transposed):
    groups, stride, padding, batch = (data.draw(st.integers(1, 3)) for _ in range(4))
    channels = [groups * data.draw(st.integers(1, 3)) for _ in range(2)]
    kernel = [data.draw(st.integers(1, 3)) for _ in range(dims)]
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    convolution = built(lambda: kind(*channels, kernel, stride, padding, groups=groups))
    model = built(lambda: nn.Sequential(nn.PReLU(), convolution))
    x = random.normal(random.key(0), (batch, channels[0], *[8] * dims))
    # Each weight meets each position: of the output, or of the input where the convolution is transposed.
    positions = prod((x if transposed else model(x)).shape[2:])
    once = 2 * batch * positions * convolution.weight.numel()
    found = of(counts.summary(model, x, train=True).rows)["1"]
    assert (found.forward, found.backward) == (once, 2 * once)
    if groups == 1:
        assert torch_count(model, x) == 3 * once


def torch_count(model, x):
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    return counter.get_total_flops()


@given(
    st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]), size, st.integers(2, 5), st.integers(1, 2), st.booleans(), st.booleans()
)
def test_recurrence(kind, n_in, hidden, layers, bidirectional, projected):
    options = {"proj_size": hidden - 1} if projected and kind is nn.LSTM else {}
    module = built(lambda: kind(n_in, hidden, layers, bidirectional=bidirectional, **options))
    length, batch = 4, 3
    found = counts.summary(module, (length, batch, n_in), train=True)
    matrices = sum(p.numel() for p in module.parameters() if p.ndim == 2)
    # Each matrix meets each element of each sequence; the backward less twice, for there is nothing before the first.
    assert found.forward == 2 * length * batch * matrices
    assert found.forward < found.backward <= 2 * found.forward


@given(size, st.integers(1, 3), size, size, st.booleans())
def test_attention(batch, heads, width, length, train):
    dim = heads * width
    module = built(lambda: nn.MultiheadAttention(dim, heads, dropout=0.1, batch_first=True))
    x = (batch, length, dim)
    found = counts.summary(module, x, x, x, train=train)
    projections, products = 8 * batch * length * dim**2, 4 * batch * length**2 * dim
    assert found.forward == projections + products


def test_fused_attention():
    module = Function(F.scaled_dot_product_attention, 2, 4, 16, 8)
    kv = (2, 4, 12, 8)
    found = counts.summary(module, kv, kv, train=True)
    once = 2 * 2 * 4 * 16 * 12 * 8
    # Scores and values; the backward takes the scores again, and has a product for each gradient.
    assert (found.forward, found.backward) == (2 * once, 5 * once)


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (torch.mv, [(3, 5), (5,)], 30),
        (torch.matmul, [(2, 3, 5), (5,)], 60),
        (torch.addmv, [(3,), (3, 5), (5,)], 30),
        (torch.dot, [(7,), (7,)], 14),
        (torch.vdot, [(7,), (7,)], 14),
        (torch.addbmm, [(3, 2), (4, 3, 5), (4, 5, 2)], 240),
        (torch.baddbmm, [(4, 3, 2), (4, 3, 5), (4, 5, 2)], 240),
        (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [(4, 3, 5), (4, 2, 5)], 240),
        (lambda a, b, w: F.bilinear(a, b, w), [(7, 3), (7, 4), (5, 3, 4)], 3 * 7 * 5 * 3 * 4),
        (torch.add, [(7,), (7,)], 0),
    ],
)
def test_contractions(function, shapes, flops):
    assert counts.summary(Function(function), *shapes).forward == flops


def test_embeddings_and_elementwise_work_count_none():
    model = built(lambda: nn.Sequential(nn.Embedding(10, 4), nn.LayerNorm(4), nn.GELU(), nn.Dropout()))
    found = counts.summary(model, tokens(2, 3), train=True)
    assert (found.forward, found.backward) == (0, 0)
    assert counts.summary(built(lambda: nn.EmbeddingBag(10, 4)), tokens(2, 3), train=True).forward == 0


def test_resnet50_has_its_published_figures():
    found = counts.summary(Model(torchvision.models.resnet50), (1, 3, 224, 224))
    assert found.count == 25_557_032
    assert found.forward == 2 * 4_089_184_256
    shapes = {row.path: row.cost.shapes for row in found.rows}
    assert shapes["layer4.2.conv2"] == ((1, 512, 7, 7),)
    assert shapes[""] == ((1, 1000),)


def test_a_model_without_groups_agrees_with_torchs_counter():
    found = counts.summary(Model(torchvision.models.resnet18), (2, 3, 64, 64), train=True)
    with torch.device("meta"):
        module, x = torchvision.models.resnet18(), torch.empty(2, 3, 64, 64)
    assert found.forward + found.backward == torch_count(module, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_torchvision_models_have_their_published_figures(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    (side,) = weights.transforms().crop_size
    model = Model(getattr(torchvision.models, name), **({"image_size": side} if name.startswith("vit_") else {}))
    found = counts.summary(model, (1, 3, side, side))
    assert found.forward / 2e9 == pytest.approx(weights.meta["_ops"], rel=0.005, abs=0.0006)
    # GoogLeNet's published count is without its auxiliary classifiers.
    auxiliary = sum(row.count for row in found.rows if name == "googlenet" and row.path.startswith("aux"))
    assert found.count - auxiliary == weights.meta["num_params"]
    # Every layer's count is that of its formula; what is left belongs to torchvision's own classes.
    own = {"class_token", "pos_embedding", "layer_scale", "relative_position_bias_table", "logit_scale"}
    for row in found.rows:
        if row.expected is None:
            assert {term.partition(":")[0] for term in row.formula.split(", ") if term} <= own
        else:
            assert eval(row.formula or "0") == row.expected == row.count


# Who did it


def test_a_modules_own_work_is_in_its_own_row():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 3)
            self.mix = nn.Parameter(torch.ones(3, 3))

        def forward(self, x):
            return self.second(self.first(x @ self.mix).relu()) @ self.mix

    found = of(counts.summary(built(lambda: nn.Sequential(Block(), Block())), (7, 3), train=True).rows)
    mix, dense = 2 * 7 * 9, 2 * 7 * 15
    assert [(path, c.forward, c.backward) for path, c in sorted(found.items())] == [
        ("", 0, 0),
        ("0", 2 * mix, 3 * mix),  # the model's input needs no gradient
        ("0.first", dense, 2 * dense),
        ("0.second", dense, 2 * dense),
        ("1", 2 * mix, 4 * mix),
        ("1.first", dense, 2 * dense),
        ("1.second", dense, 2 * dense),
    ]


def test_a_shared_module_has_all_its_calls_in_one_row():
    def shared():
        layer = nn.Linear(3, 3)
        return nn.Sequential(layer, nn.ReLU(), layer)

    found = of(counts.summary(built(shared), (7, 3), train=True).rows)
    once = 2 * 7 * 9
    assert (found["0"].calls, found["0"].forward, found["0"].backward) == (2, 2 * once, 3 * once)
    assert found["0"].output_bytes == 2 * 4 * 7 * 3


def test_the_shape_is_that_of_the_first_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 5)

        def forward(self, x):
            return self.layer(x), self.layer(x[:2])

    found = counts.summary(built(Twice), (7, 3))
    assert [row.cost.shapes for row in found.rows] == [((7, 5), (2, 5)), ((7, 5),)]
    assert "7,5 +1" in str(found)


def test_what_is_frozen_has_no_backward():
    module = built(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)))
    module[0].requires_grad_(False)
    found = counts.summary(module, (7, 3), train=True)
    assert of(found.rows)["0"].backward == 0
    assert found.backward == 2 * 7 * 16
    module.requires_grad_(False)
    found = counts.summary(module, (7, 3), train=True)
    assert (found.backward, found.kept, found.frozen) == (0, 0, 36)


def test_recomputed_work_is_the_backwards_and_stays_in_its_row():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False)

    found = counts.summary(built(Checkpointed), (7, 3), train=True)
    once = 2 * 7 * 15
    # The first layer again and its weight; torch stops before the last layer, whose output nothing needs.
    assert of(found.rows)["inner.0"].backward == 2 * once
    assert of(found.rows)["inner.2"].backward == 2 * once
    assert (found.forward, found.kept) == (2 * once, 0)


# Activations


@pytest.mark.parametrize(
    ("make", "x", "kept"),
    [
        (lambda: nn.Linear(3, 5), (7, 3), 0),  # only its input and its weight
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)), (7, 3), 4 * 35),  # one tensor, twice
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True)), (7, 3), 4 * 35),
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.GELU()), (7, 3), 4 * 35),
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5)), (7, 3), 35),  # which elements stay, a byte each
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 5, 5), 4 * (2 * 4 * 9 + 2 * 4)),
        (lambda: Function(lambda w, x: (w * x)[:2].exp().sum(), 6), (6,), 4 * 2),
        (lambda: Function(lambda w, x: [f(w * x) for f in (torch.exp, torch.tanh)][1], 6), (6,), 4 * 6),  # one is gone
        (lambda: Function(lambda w, x: (w * x).exp()[:2].sum(), 6), (6,), 4 * 6),  # all of the memory that a view is of
    ],
)
def test_kept_bytes(make, x, kept):
    found = counts.summary(built(make), x, train=True)
    assert found.kept == kept
    assert counts.summary(built(make), x).kept == 0


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (cnn, (2, 3, 9, 9)),
        (transformer, (2, 5, 8)),
        (lambda: nn.GRU(3, 4, 2, dropout=0.5, bidirectional=True), (5, 2, 3)),
        (Everything, (2, 3, 9, 9)),
        (lambda: torchvision.models.mobilenet_v3_small(), (2, 3, 32, 32)),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_tensors_without_memory_give_what_real_ones_give(make, x, train):
    fake = counts.summary(built(lambda: nn.Sequential(make())), x, train=train)
    real = counts.summary(built(lambda: Reading(make())), x, train=train)
    assert [row.cost for row in fake.rows[1:]] == [row.cost for row in real.rows[1:]]
    assert fake.forward > 0


# What it is given, and leaves alone


@pytest.mark.parametrize("wrap", [nn.Sequential, Reading])
def test_the_module_and_the_input_are_left_as_they_are(wrap):
    module = built(lambda: wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)))).eval()
    x = random.normal(random.key(1), (2, 3, 9, 9))
    before = {name: (t, t.clone(), t._version) for name, t in [*module.state_dict().items(), ("x", x)]}
    counts.summary(module, x, train=True)
    after = {**module.state_dict(), "x": x}
    for name, (tensor, value, version) in before.items():
        assert torch.equal(after[name], value)
        assert tensor._version == version
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_an_input_that_is_written_in_place_is_copied_first():
    x = random.normal(random.key(0), (4, 3))
    before = x.clone()
    counts.summary(built(lambda: Reading(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)))), x)
    assert torch.equal(x, before)


def test_train_is_what_the_call_says_and_not_the_module():
    dropping = built(lambda: nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5)))
    assert counts.summary(dropping.eval(), (7, 3), train=True).kept == 35
    norm = built(lambda: nn.BatchNorm1d(3))
    assert counts.summary(norm.train(), (1, 3)).rows[0].cost.calls == 1
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        counts.summary(norm.eval(), (1, 3), train=True)


def test_what_a_submodule_computed_for_nothing_is_not_kept():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (nn.Sequential(nn.Linear(3, 5), nn.Tanh()) for _ in range(2))

        def forward(self, x):
            self.unused(x)
            return self.used(x)

    found = counts.summary(built(Idle), (7, 3), train=True)
    assert found.kept == 4 * 35
    assert found.forward == 2 * found.backward == 2 * 2 * 7 * 15


def test_any_arguments():
    class Pick(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, batch, name, *, scale=None):
            return {"out": self.layer(batch[name]) * scale, "name": name}

    x = torch.ones(4, 3)
    found = counts.summary(built(Pick), {"a": x}, "a", scale=(2,))
    assert found.forward == 2 * 4 * 6
    assert found.rows[0].cost.shapes == ((4, 2),)


def test_a_model_that_does_not_fit_takes_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = Model(lambda: nn.Sequential(nn.Linear(50_000, 50_000), nn.ReLU(), nn.Linear(50_000, 50_000)))
    found = counts.summary(model, (1024, 50_000), train=True)
    assert found.parameter_bytes == 4 * 2 * 50_001 * 50_000  # 20 GB
    assert found.backward == 3 * 2 * 1024 * 50_000**2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_threads_do_not_see_each_other():
    modules = [built(make) for make in (cnn, lstm, transformer)] * 4
    inputs = [(2, 3, 9, 9), (2, 3, 5), (2, 5, 8)] * 4
    alone = [counts.summary(m, x, train=True).rows for m, x in zip(modules, inputs, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda m, x: counts.summary(m, x, train=True).rows, modules, inputs))
    assert together == alone


def test_errors_are_the_models_own(caplog):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        counts.summary(built(lambda: nn.Linear(3, 4)), (2, 5))
    assert caplog.records == []
    with pytest.raises(TypeError, match="not of a type"):
        counts.summary(nn.Linear, (2, 5))
    model, params, state = Model.from_module(built(lambda: Reading(nn.Linear(3, 4))))
    with pytest.raises(TypeError, match=r"without its values \(.*\)\. Write summary\(model\.bind\(params, state\)"):
        counts.summary(model, (2, 3))
    assert counts.summary(model.bind(params, state), (2, 3)).forward == 48


# The table


CALLED, TRAINED = (
    counts.summary(Model(torchvision.models.resnet18), (2, 3, 32, 32), train=train) for train in (False, True)
)


@pytest.mark.parametrize("depth", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("train", [True, False])
def test_columns_add_up_at_every_depth(depth, train):
    found = replace(TRAINED if train else CALLED, depth=depth)
    lines = found.text(200).splitlines()
    table = lines[1 : lines.index("")]
    start = lines[0].index("parameters")
    column = [line[start : start + 10].strip().replace(",", "") for line in table]
    assert sum(map(int, filter(None, column))) == found.count == 11_689_512
    assert all(len(line) - len(line.lstrip()) <= 2 * (depth if depth is not None else 9) for line in table)
    assert ("backward" in lines[0]) == train
    costs = [row.cost for row in collapse(found.rows, depth) if row.cost]
    assert sum(cost.forward for cost in costs) == found.forward > 0
    assert sum(cost.backward for cost in costs) == found.backward
    assert sum(cost.kept for cost in costs) == found.kept
    assert (found.kept > 0) == (found.backward > 0) == train


@given(st.integers(30, 140))
def test_no_line_is_wider_than_asked(width):
    text = SUMMARY.text(width)
    assert max(map(len, text.splitlines())) <= max(width, 80)  # the last lines are sentences
    table = text.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= width
    if width >= 66:  # below that there is no room for the numbers either
        output = table[0].index("output")
        assert not any("…" in line[output:] for line in table)


def test_names_are_cut_before_formulas_are_squeezed():
    module = built(lambda: nn.TransformerEncoderLayer(64, 4, 128))
    text = counts.summary(module, (5, 2, 64)).text(72)
    assert "self_attn: MultiheadA" in text
    assert "MultiheadAttention" not in text
    assert "(64 + 1)*128" in text


SUMMARY = counts.summary(built(lambda: nn.TransformerEncoderLayer(64, 4, 128)), (5, 2, 64), train=True)


def test_the_table_at_80_columns():
    assert counts.summary(built(transformer), (2, 5, 8)).text(80) == TABLE.strip("\n")


TABLE = """
module                           output  parameters  formula               FLOPs
TransformerEncoderLayer          2,5,8
  self_attn: MultiheadAttention  2,5,8          288  8*(8 + 8 + 8 + 3) +  6.72 k
                                                     (8 + 1)*8
  linear1: Linear                2,5,16         144  (8 + 1)*16           2.56 k
  dropout: Dropout               2,5,16
  linear2: Linear                2,5,8          136  (16 + 1)*8           2.56 k
  norm1: LayerNorm               2,5,8           16  2*8
  norm2: LayerNorm               2,5,8           16  2*8
  dropout1: Dropout              2,5,8
  dropout2: Dropout              2,5,8

parameters   600 (trainable 600, frozen 0), 2.40 kB
buffers      0
FLOPs        11.8 k forward
"""


# The shell


def test_the_command_prints_the_table(capsys):
    assert main(["summary", "torchvision:resnet18", "--input", "1,3,224,224", "--depth", "1", "--train"]) == 0
    out = capsys.readouterr().out
    assert out == f"{counts.summary(Model(torchvision.models.resnet18), (1, 3, 224, 224), train=True, depth=1)}\n"
    assert "  layer1: Sequential          1,64,56,56       147,968" in out
    assert "3.63 G forward, 7.02 G backward" in out


def test_the_command_without_input_counts_parameters(capsys):
    assert main(["summary", "torch.nn:Conv2d(3, 16, kernel_size=3)"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "Conv2d         448  (3*3*3 + 1)*16"


def test_whole_numbers_as_input(capsys):
    assert main(["summary", "torch.nn:Embedding(10, 4)", "--input", "2,5:int64:10"]) == 0
    assert "2,5,4           40  10*4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["torchvision:resnet51"], "torchvision has no model 'resnet51'; near names: resnet50"),
        (["nosuch:Model"], "nosuch cannot be imported: ModuleNotFoundError: No module named 'nosuch'"),
        (["torch.nn:Linear(3, 4)", "--input", "2;3"], "'2;3' is no input. Write sizes as 1,3,224,224"),
        (["torch.nn:Linear(3, 4)", "--input", "2,5"], "fails with --input 2,5: RuntimeError"),
        (["torch.nn:LazyLinear(3)"], "fails with no --input: TypeError: 'weight' is a lazy parameter"),
    ],
)
def test_what_cannot_be_summarized_is_one_line_and_status_2(arguments, message, capsys):
    assert main(["summary", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("funcnet: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_wrong_depth_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["summary", "torch.nn:ReLU", "--depth", "-1"])
    assert stop.value.code == 2
    assert "'-1' is no depth" in capsys.readouterr().err
