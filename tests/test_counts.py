"""Parameter counts: every formula against the real module, whole models against torch and torchvision."""

import inspect

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from funcnet import Model, counts, random
from tests.models import Everything, built

pytestmark = [
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
    pytest.mark.filterwarnings("ignore:`(nn.Container|NLLLoss2d)`:FutureWarning"),
]

SMALL = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "vit_b_32", "swin_t"]

size = st.integers(1, 9)
flag = st.booleans()


def arguments(**strategies):
    return st.fixed_dictionaries(strategies)


@st.composite
def convolution(draw, dims):
    groups = draw(st.integers(1, 4))
    kernel = draw(st.one_of(size, st.tuples(*[size] * dims)))
    channels = {name: groups * draw(size) for name in ("in_channels", "out_channels")}
    return {**channels, "kernel_size": kernel, "groups": groups, "bias": draw(flag)}


@st.composite
def recurrent(draw, projected=False):
    hidden = draw(st.integers(2, 9))
    sizes = {"input_size": draw(size), "hidden_size": hidden, "num_layers": draw(st.integers(1, 4))}
    if projected:
        sizes["proj_size"] = draw(st.integers(0, hidden - 1))
    return {**sizes, "bias": draw(flag), "bidirectional": draw(flag)}


@st.composite
def attention(draw):
    heads = draw(st.integers(1, 4))
    sizes = {"embed_dim": heads * draw(size), "num_heads": heads}
    optional = st.one_of(st.none(), size)
    return {**sizes, "bias": draw(flag), "add_bias_kv": draw(flag), "kdim": draw(optional), "vdim": draw(optional)}


@st.composite
def transformer_layer(draw):
    heads = draw(st.integers(1, 4))
    width = heads * draw(size)
    return {"d_model": width, "nhead": heads, "dim_feedforward": draw(size), "bias": draw(flag)}


@st.composite
def transformer(draw):
    layers = {name: draw(st.integers(0, 3)) for name in ("num_encoder_layers", "num_decoder_layers")}
    return {**draw(transformer_layer()), **layers}


@st.composite
def adaptive_softmax(draw):
    *cutoffs, classes = sorted(draw(st.sets(st.integers(1, 40), min_size=2, max_size=5)))
    shape = {"in_features": draw(st.integers(1, 60)), "n_classes": classes, "cutoffs": cutoffs}
    return {**shape, "div_value": draw(st.floats(1, 5)), "head_bias": draw(flag)}


SHAPE = st.one_of(size, st.lists(size, min_size=1, max_size=3))
NORM = arguments(num_features=size, affine=flag, bias=flag)
CELL = arguments(input_size=size, hidden_size=size, bias=flag)
TABLE = arguments(num_embeddings=size, embedding_dim=size)

# Formula, the classes that it counts, and their hyperparameters, which torch and the formula take by the same names.
LAYERS = {
    "linear": (["Linear", "LazyLinear"], arguments(in_features=size, out_features=size, bias=flag)),
    "bilinear": (["Bilinear"], arguments(in1_features=size, in2_features=size, out_features=size, bias=flag)),
    **{f"conv{n}d": ([f"Conv{n}d", f"LazyConv{n}d"], convolution(n)) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": ([f"ConvTranspose{n}d", f"LazyConvTranspose{n}d"], convolution(n)) for n in (1, 2, 3)},
    "batch_norm": ([*(f"{p}BatchNorm{n}d" for p in ("", "Lazy") for n in (1, 2, 3)), "SyncBatchNorm"], NORM),
    "instance_norm": ([f"{p}InstanceNorm{n}d" for p in ("", "Lazy") for n in (1, 2, 3)], NORM),
    "group_norm": (
        ["GroupNorm"],
        arguments(num_groups=st.just(3), num_channels=size.map((3).__mul__), affine=flag),
    ),
    "layer_norm": (["LayerNorm"], arguments(normalized_shape=SHAPE, elementwise_affine=flag, bias=flag)),
    "rms_norm": (["RMSNorm"], arguments(normalized_shape=SHAPE, elementwise_affine=flag)),
    "embedding": (["Embedding"], TABLE),
    "embedding_bag": (["EmbeddingBag"], TABLE),
    "prelu": (["PReLU"], arguments(num_parameters=size)),
    "adaptive_log_softmax_with_loss": (["AdaptiveLogSoftmaxWithLoss"], adaptive_softmax()),
    "linear_cross_entropy_loss": (
        ["LinearCrossEntropyLoss"],
        arguments(in_features=size, num_classes=size, out_features=st.lists(size, max_size=2).map(tuple), bias=flag),
    ),
    "rnn": (["RNN"], recurrent()),
    "gru": (["GRU"], recurrent()),
    "lstm": (["LSTM"], recurrent(projected=True)),
    "rnn_cell": (["RNNCell"], CELL),
    "gru_cell": (["GRUCell"], CELL),
    "lstm_cell": (["LSTMCell"], CELL),
    "multihead_attention": (["MultiheadAttention"], attention()),
    "transformer_encoder_layer": (["TransformerEncoderLayer"], transformer_layer()),
    "transformer_decoder_layer": (["TransformerDecoderLayer"], transformer_layer()),
    "transformer": (["Transformer"], transformer()),
}
COUNTED = {kind: formula for formula, (kinds, _) in LAYERS.items() for kind in kinds if hasattr(nn, kind)}
# Counted from the counts of what they are given; tested below.
COUNTED |= {"TransformerEncoder": "transformer_encoder", "TransformerDecoder": "transformer_decoder"}
BASES = {"RNNBase", "RNNCellBase"}  # what the recurrent layers are made of; they compute nothing

# Arguments with which each class of torch.nn can be constructed.
ARGUMENTS = {
    "in_features": 4, "out_features": 6, "num_features": 4, "in_channels": 4, "out_channels": 6, "kernel_size": 3,
    "padding": 1, "output_size": 2, "input_size": 4, "hidden_size": 3, "num_embeddings": 5, "embedding_dim": 4,
    "embed_dim": 4, "num_heads": 2, "num_groups": 2, "num_channels": 4, "normalized_shape": 4, "in1_features": 3,
    "in2_features": 4, "d_model": 4, "nhead": 2, "n_classes": 9, "num_classes": 9, "cutoffs": [3, 5], "groups": 2,
    "upscale_factor": 2, "downscale_factor": 2, "threshold": 1.0, "value": 1.0, "norm_type": 2, "lambd": 0.5,
    "size": 3, "dim": 0, "unflattened_size": (2, 2), "bias": True, "num_chunks": 3, "mode": "LSTM", "num_layers": 2,
}  # fmt: skip
SPECIAL = {
    **dict.fromkeys(["RNN", "GRU", "LSTM"], lambda kind: kind(4, 3)),
    **dict.fromkeys(["FractionalMaxPool2d", "FractionalMaxPool3d"], lambda kind: kind(3, output_size=2)),
    "TransformerEncoder": lambda kind: kind(nn.TransformerEncoderLayer(4, 2, batch_first=True), 2),
    "TransformerDecoder": lambda kind: kind(nn.TransformerDecoderLayer(4, 2), 2),
    "DataParallel": lambda kind: kind(nn.Identity()),
}


def meta(kind, **arguments):
    """A module of torch.nn without storage."""
    with torch.device("meta"):
        return kind(**arguments)


def numel(module):
    return sum(p.numel() for p in module.parameters())


def supported(kind, arguments):
    """Arguments of a norm without a bias in a version of torch that has not got that: none, and the same drawn with."""
    if "bias" in arguments and "bias" not in inspect.signature(kind).parameters and "Norm" in kind.__name__:
        return {name: value for name, value in arguments.items() if name != "bias"}
    return arguments


def torch_layers():
    return sorted(n for n, kind in vars(nn).items() if isinstance(kind, type) and issubclass(kind, nn.Module))


@pytest.mark.parametrize("name", torch_layers())
def test_every_torch_layer_with_parameters_has_a_formula(name):
    kind = getattr(nn, name)
    required = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    with torch.device("meta"):
        module = SPECIAL.get(name, lambda kind: kind(**{n: ARGUMENTS[n] for n in required if n in ARGUMENTS}))(kind)
    if list(module.parameters()) and name not in BASES:
        assert callable(getattr(counts, COUNTED[name]))


@pytest.mark.parametrize("formula", LAYERS)
@given(data=st.data())
def test_formula_is_the_count_of_the_module(formula, data):
    kinds, strategy = LAYERS[formula]
    for kind in [getattr(nn, name) for name in kinds if hasattr(nn, name) and not name.startswith("Lazy")]:
        drawn = supported(kind, data.draw(strategy))
        count = getattr(counts, formula)(**drawn)
        module = meta(kind, **drawn)
        assert count == numel(module)
        assert eval(count.formula) == count  # the text is the arithmetic

        # Read back from the module, row by row.
        rows = counts.parameters(module).rows
        assert sum(row.count for row in rows) == count
        for row in rows:
            assert (row.expected or 0) == row.count
            assert eval(row.formula or "0") == row.count


@pytest.mark.parametrize("kind", sorted(kind for kind in COUNTED if kind.startswith("Lazy")))
@given(data=st.data())
def test_formula_is_the_count_of_a_lazy_module_that_has_seen_its_input(kind, data):
    formula = COUNTED[kind]
    drawn = supported(getattr(nn, kind), data.draw(LAYERS[formula][1]))
    count = getattr(counts, formula)(**drawn)
    seen = next(name for name in ("in_features", "in_channels", "num_features") if name in drawn)
    features = drawn.pop(seen)
    module = meta(getattr(nn, kind), **drawn)
    dims = 0 if kind == "LazyLinear" else int(kind[-2])
    module(torch.empty(2, features, *[9] * dims, device="meta"))
    assert count == numel(module) == counts.parameters(module).count


@given(transformer_layer(), st.integers(1, 4), flag)
def test_encoder_and_decoder_are_counted_from_their_layer_and_norm(layer, number, with_norm):
    norm = meta(nn.LayerNorm, normalized_shape=layer["d_model"]) if with_norm else None
    norm_count = counts.layer_norm(layer["d_model"]) if with_norm else 0
    encoder = nn.TransformerEncoder(meta(nn.TransformerEncoderLayer, **layer), number, norm, enable_nested_tensor=False)
    count = counts.transformer_encoder(counts.transformer_encoder_layer(**layer), number, norm_count)
    assert count == numel(encoder) == eval(count.formula)
    decoder = nn.TransformerDecoder(meta(nn.TransformerDecoderLayer, **layer), number, norm)
    count = counts.transformer_decoder(counts.transformer_decoder_layer(**layer), number, norm_count)
    assert count == numel(decoder) == eval(count.formula)


def test_textbook_figures():
    assert counts.conv2d(3, 16, 3) == 448
    assert counts.linear(256, 10) == 2570
    assert counts.parameters(Model(torchvision.models.resnet50)).count == 25_557_032
    bert_base = counts.transformer_encoder(counts.transformer_encoder_layer(768, 12, 3072), 12)
    assert bert_base == 85_054_464


@given(st.lists(st.tuples(st.sampled_from("+*"), st.integers(0, 5)), max_size=8), st.integers(0, 5))
def test_a_count_is_the_value_of_its_text(steps, start):
    count, value = counts.Count(start), start
    for sign, number in steps:
        count, value = (count + number, value + number) if sign == "+" else (number * count, number * value)
    assert count == value == eval(count.formula)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: counts.linear(3.5, 2), TypeError, r"in_features is 3\.5; it must be a whole number"),
        (lambda: counts.linear(3, -2), ValueError, r"out_features is -2; a size must be 0 or more"),
        (lambda: counts.embedding(True, 2), TypeError, "num_embeddings is True"),
        (lambda: counts.conv2d(3, 4, 3, groups=2), ValueError, "groups is 2, which does not divide in_channels, 3"),
        (lambda: counts.conv2d(4, 4, 3, groups=0), ValueError, "groups is 0, which does not divide"),
        (lambda: counts.conv2d(3, 4, (3,)), ValueError, r"kernel_size is \(3,\); this layer has 2 of them"),
        (lambda: counts.conv1d(3, 4, (1.5,)), TypeError, r"kernel_size\[0\] is 1\.5"),
        (lambda: counts.multihead_attention(10, 3), ValueError, "num_heads is 3, which does not divide embed_dim, 10"),
        (lambda: counts.group_norm(2, 5), ValueError, "num_groups is 2, which does not divide num_channels, 5"),
        (lambda: counts.layer_norm((3, -1)), ValueError, r"normalized_shape\[1\] is -1"),
        (lambda: counts.adaptive_log_softmax_with_loss(8, 9, [5, 3]), ValueError, r"cutoffs are \[5, 3\]; they must"),
        (lambda: counts.adaptive_log_softmax_with_loss(8, 9, [9]), ValueError, "less than 9 classes"),
        (lambda: counts.parameters(nn.Linear), TypeError, "not of a type. Write Model"),
        (lambda: counts.parameters(nn.LazyLinear(3)), TypeError, "'weight' is a lazy parameter"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_tied_frozen_and_plain_tensors_are_told_apart():
    model = Model(Everything)
    found = counts.parameters(model)
    params, state = model.init(random.key(0))
    assert found.trainable == sum(p.numel() for p in params.values())
    assert found.buffers == sum(s.numel() for s in state.values())
    by_path = {row.path: row for row in found.rows}
    assert (by_path["second"].count, by_path["second"].formula) == (4, "bias: 4, weight is first.weight")
    assert by_path["second"].expected == 20
    assert by_path[""].buffers == 4 + 1 + 4 + 4
    assert by_path["norm"].formula == "2*4"

    module = built(Everything)
    module.conv.requires_grad_(False)
    frozen = counts.parameters(module)
    assert (frozen.frozen, frozen.trainable) == (3 * 9 * 4, found.trainable - 3 * 9 * 4)
    assert {row.path: row for row in frozen.rows}["conv"].formula == "3*3*3*4"


def test_parameters_that_no_formula_knows_are_listed_by_name():
    class Scaled(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.scale = nn.Parameter(torch.ones(1, 2, 5))

    (row,) = counts.parameters(built(Scaled)).rows
    assert row.formula == "weight: 2*3, bias: 2, scale: 2*5"
    assert (row.count, row.expected) == (18, 8)

    class Recurrent(nn.GRU):  # keeps its weights in a list as well
        def __init__(self):
            super().__init__(1, 2, bias=False)
            self.scale = nn.Parameter(torch.ones(7))

    (row,) = counts.parameters(built(Recurrent)).rows
    assert row.formula == "weight_ih_l0: 6, weight_hh_l0: 6*2, scale: 7"

    normed = built(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert counts.parameters(normed).count == numel(normed) == 10

    listed = built(lambda: nn.ParameterList([torch.ones(2, 3), torch.ones(4)]))
    assert counts.parameters(listed).rows[0].formula == "0: 2*3, 1: 4"


def test_nothing_of_the_module_is_held_or_changed():
    module = built(nn.Sequential, 0)
    module.append(built(lambda: nn.MultiheadAttention(8, 2)))
    before = {name: (p, p._version) for name, p in module.named_parameters()}
    found = counts.parameters(module)
    assert {name: (p, p._version) for name, p in module.named_parameters()} == before
    # Attention has its output projection in its row.
    assert [(row.path, row.formula) for row in found.rows] == [("", ""), ("0", "8*(8 + 8 + 8 + 3) + (8 + 1)*8")]


@pytest.mark.parametrize("name", SMALL)
def test_torchvision_models_agree_to_the_unit(name):
    """The small ones; tests/test_summary.py has all of them."""
    found = counts.parameters(Model(getattr(torchvision.models, name)))
    assert found.count == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
