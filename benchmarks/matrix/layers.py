"""The rows of the matrix: every `torch.nn` class that is hard to make pure, and whole networks.

`wanted()` lists the classes from torch itself; a test fails when one of them has no row here.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from funcnet import random
from matrix import written

Draw = Callable[[Tensor], Tensor]  # a key -> one example input

EXAMPLES = 3


class Layer(NamedTuple):
    """One row."""

    name: str
    constructor: Callable[[], nn.Module]
    inputs: tuple[Draw, ...]  # the first axis of each input is that of the examples
    differentiable: int  # so many inputs, from the left, are differentiated
    reference: Callable[[], nn.Module]  # the same layer written out, where torch's own draws without asking anyone

    def example(self, key: Tensor) -> tuple[Tensor, ...]:
        """The inputs of one call."""
        return tuple(draw(k) for draw, k in zip(self.inputs, random.split(key, len(self.inputs)), strict=True))


def floats(*shape: int) -> Draw:
    """Standard normal, float64."""
    return lambda key: random.normal(key, (EXAMPLES, *shape), torch.float64)


def integers(high: int, *shape: int) -> Draw:
    """In `[0, high)`, int64."""
    return lambda key: random.randint(key, (EXAMPLES, *shape), 0, high).long()


def units(*shape: int) -> Draw:
    """Uniform in (0.1, 0.9), float64: probabilities."""
    return lambda key: random.uniform(key, (EXAMPLES, *shape), torch.float64, 0.1, 0.9)


def bits(*shape: int) -> Draw:
    """Zeros and ones, float64: the targets of a classifier with several labels."""
    return lambda key: random.bernoulli(key, 0.5, (EXAMPLES, *shape)).double()


class _Bare(nn.Module):
    """A container of parameters, at work: the containers have no forward of their own."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        shapes = {"scale": (4,), "weight": (4, 3)}
        values = {name: nn.Parameter(torch.randn(*shape)) for name, shape in shapes.items()}
        self.values = nn.ParameterDict(values) if named else nn.ParameterList(values.values())
        self.names: tuple[str | int, ...] = ("scale", "weight") if named else (0, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale, weight = (self.values[name] for name in self.names)  # type: ignore[index]  # str or int, by kind
        return torch.tanh(x * scale) @ weight


def _lazy(name: str, *args: Any, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
    """A lazy class, made definite by a first call, as it must be before it has any parameters."""

    def constructor() -> nn.Module:
        module: nn.Module = getattr(nn, name)(*args)
        module(torch.ones(EXAMPLES, *shape))
        return module

    return constructor


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, 0.2, batch_first=True), 2)


def _decoder() -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8, 0.2, batch_first=True), 2)


def _weights(n: int) -> Tensor:
    return torch.rand(n) + 0.5


_ROWS: dict[str, Layer] = {}


def _row(
    name: str,
    constructor: Callable[[], nn.Module],
    *inputs: Draw,
    differentiable: int | None = None,
    reference: Callable[[], nn.Module] | None = None,
) -> None:
    count = len(inputs) if differentiable is None else differentiable
    _ROWS[name] = Layer(name, constructor, inputs, count, reference or constructor)


def _convolutions_and_norms() -> None:
    for n in (1, 2, 3):
        shape = (5,) * n if n < 3 else (3,) * n
        for lazy in ("", "Lazy"):
            sizes = () if lazy else (2,)
            for kind, args in (("Conv", (4, 2)), ("ConvTranspose", (4, 2)), ("BatchNorm", ()), ("InstanceNorm", ())):
                name = f"{lazy}{kind}{n}d"
                options = (1e-5, 0.1, True, True) if kind == "InstanceNorm" else ()
                if lazy:
                    _row(name, _lazy(name, *args, *options, shape=(2, *shape)), floats(2, *shape))
                else:
                    cls = getattr(nn, name)
                    _row(name, lambda cls=cls, a=(*sizes, *args, *options): cls(*a), floats(2, *shape))
        _row(f"Dropout{n}d", lambda n=n: getattr(nn, f"Dropout{n}d")(0.4), floats(6, *shape))
    _row("BatchNorm2d, cumulative", lambda: nn.BatchNorm2d(2, momentum=None), floats(2, 5, 5))
    _row("SyncBatchNorm", lambda: nn.SyncBatchNorm(2), floats(2, 5))
    _row("GroupNorm", lambda: nn.GroupNorm(2, 4), floats(4, 5))
    _row("LayerNorm", lambda: nn.LayerNorm((4, 5)), floats(4, 5))
    _row("RMSNorm", lambda: nn.RMSNorm(5), floats(4, 5))


def _dense_and_random() -> None:
    _row("Linear", lambda: nn.Linear(4, 3), floats(4))
    _row("LazyLinear", _lazy("LazyLinear", 3, shape=(4,)), floats(4))
    _row("Bilinear", lambda: nn.Bilinear(4, 3, 2), floats(4), floats(3))
    _row("PReLU", lambda: nn.PReLU(4), floats(4, 5))
    _row("ParameterList", lambda: _Bare(False), floats(4))
    _row("ParameterDict", lambda: _Bare(True), floats(4))
    _row("Embedding", lambda: nn.Embedding(7, 4), integers(7, 5))
    _row(
        "Embedding, max_norm", lambda: nn.Embedding(7, 4, max_norm=1.5), integers(7, 5), reference=written.Renormalized
    )
    _row("EmbeddingBag", lambda: nn.EmbeddingBag(7, 4), integers(7, 5))
    _row("EmbeddingBag, max", lambda: nn.EmbeddingBag(7, 4, mode="max"), integers(7, 5))
    _row("Dropout", lambda: nn.Dropout(0.4), floats(6, 4))
    _row("AlphaDropout", lambda: nn.AlphaDropout(0.4), floats(6, 4))
    _row("FeatureAlphaDropout", lambda: nn.FeatureAlphaDropout(0.4), floats(6, 4))
    _row("RReLU", lambda: nn.RReLU(), floats(6, 4))
    _row("FractionalMaxPool2d", lambda: nn.FractionalMaxPool2d(2, output_ratio=0.6), floats(2, 7, 7))
    _row("FractionalMaxPool3d", lambda: nn.FractionalMaxPool3d(2, output_ratio=0.6), floats(2, 5, 5, 5))


def _losses() -> None:
    logits, classes = floats(5), integers(5)
    _row("BCELoss", lambda: nn.BCELoss(_weights(5)), units(5), bits(5), differentiable=1)
    _row(
        "BCEWithLogitsLoss",
        lambda: nn.BCEWithLogitsLoss(_weights(5), pos_weight=_weights(5)),
        logits,
        bits(5),
        differentiable=1,
    )
    _row("CrossEntropyLoss", lambda: nn.CrossEntropyLoss(_weights(5)), logits, classes, differentiable=1)
    _row("NLLLoss", lambda: nn.NLLLoss(_weights(5)), logits, classes, differentiable=1)
    _row("MultiMarginLoss", lambda: nn.MultiMarginLoss(weight=_weights(5)), logits, classes, differentiable=1)
    _row(
        "MultiLabelSoftMarginLoss",
        lambda: nn.MultiLabelSoftMarginLoss(_weights(5)),
        logits,
        bits(5),
        differentiable=1,
    )
    _row(
        "AdaptiveLogSoftmaxWithLoss",
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 9, [3, 6], 1.0),
        floats(4),
        integers(9),
        differentiable=1,
    )
    if hasattr(nn, "LinearCrossEntropyLoss"):  # torch 2.15
        _row("LinearCrossEntropyLoss", lambda: nn.LinearCrossEntropyLoss(4, 5), floats(4), classes, differentiable=1)


def _recurrent_and_attention() -> None:
    options: dict[str, Any] = {"num_layers": 2, "dropout": 0.3, "batch_first": True}
    for name in ("RNN", "GRU", "LSTM"):
        cls, out = getattr(nn, name), getattr(written, name)
        _row(name, lambda cls=cls: cls(4, 3, **options), floats(3, 4), reference=lambda out=out: out(4, 3, **options))
        cell = getattr(nn, f"{name}Cell")
        _row(f"{name}Cell", lambda cell=cell: cell(4, 3), floats(4))
    projected = {**options, "proj_size": 2, "bidirectional": True}
    _row(
        "LSTM, projected both ways",
        lambda: nn.LSTM(4, 3, **projected),
        floats(2, 4),
        reference=lambda: written.LSTM(4, 3, **projected),
    )
    sequence = floats(5, 4)
    _row(
        "MultiheadAttention",
        lambda: nn.MultiheadAttention(4, 2, 0.2, batch_first=True),
        sequence,
        floats(6, 4),
        floats(6, 4),
    )
    _row("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.2, batch_first=True), sequence)
    _row(
        "TransformerEncoderLayer, no dropout",
        lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True),
        sequence,
    )
    _row("TransformerEncoder", _encoder, sequence)
    _row(
        "TransformerDecoderLayer",
        lambda: nn.TransformerDecoderLayer(4, 2, 8, 0.2, batch_first=True),
        sequence,
        floats(6, 4),
    )
    _row("TransformerDecoder", _decoder, sequence, floats(6, 4))
    _row("Transformer", lambda: nn.Transformer(4, 2, 1, 1, 8, 0.2, batch_first=True), sequence, floats(6, 4))


def _networks() -> None:
    _row("causal attention", written.CausalAttention, floats(5, 4))
    _row("functional dropout", written.FunctionalDropout, floats(4))
    _row("tied embeddings", written.TiedEmbeddings, integers(7, 5))
    _row("plain tensor attributes", written.PlainAttributes, floats(4))
    _row("resnet18", lambda: torchvision.models.resnet18(num_classes=5), floats(3, 33, 33))
    _row(
        "vision transformer",
        lambda: torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, 0.1, num_classes=5),
        floats(3, 16, 16),
    )
    _row(
        "LSTM with dropout, and head",
        lambda: written.Tagger(nn.LSTM),
        integers(7, 5),
        reference=lambda: written.Tagger(written.LSTM),
    )
    _row("transformer with dropout", written.LanguageModel, integers(7, 5))


_convolutions_and_norms()
_dense_and_random()
_losses()
_recurrent_and_attention()
_networks()

LAYERS: dict[str, Layer] = dict(_ROWS)

EXCUSED = {
    "RNNBase": "a base class, which has no forward",
    "RNNCellBase": "a base class, which has no forward",
    "NLLLoss2d": "NLLLoss under a name that torch has deprecated",
}

_HOLDERS = {
    "Parameter",
    "UninitializedParameter",
    "register_parameter",
    "Buffer",
    "UninitializedBuffer",
    "register_buffer",
}


def _names(cls: type[nn.Module]) -> set[str]:
    """Every name that the code of a class mentions, and what its constructor's annotations mention."""
    found = set()
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        methods = [value for value in vars(base).values() if isinstance(value, types.FunctionType)]
        found |= {name for method in methods for name in method.__code__.co_names}
    for annotation in cls.__init__.__annotations__.values():
        found.add(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
    return found


def wanted() -> set[str]:
    """The classes of `torch.nn` that hold parameters or buffers, act otherwise in training, or contain such a class."""
    classes = {
        name: _names(cls)
        for name, cls in vars(nn).items()
        if inspect.isclass(cls) and issubclass(cls, nn.Module) and cls is not nn.Module
    }
    found = {name for name, names in classes.items() if names & {*_HOLDERS, "training"}}
    grew = True
    while grew:
        more = {name for name, names in classes.items() if name not in found and names & found}
        found |= more
        grew = bool(more)
    return found
