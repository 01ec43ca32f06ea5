"""Models by name, with the sizes that the data gives."""

import math
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple

from torch import nn

from funcnet import specs
from funcnet.model import Model
from funcnet.runs.errors import RunError, known
from funcnet.runs.grammar import Named, parse, shown, sizes
from funcnet.runs.networks import GPT, LSTM, convolutional, perceptron
from funcnet.runs.rows import Facts

__all__ = ["FORMS", "Built", "build"]

FORMS = {
    "linear": "linear",
    "mlp": "mlp:784-512-256-10, or mlp:512-256 for the hidden layers; dropout=0",
    "cnn": "cnn:32-64, the channels of each stage; dropout=0",
    "lstm": "lstm:256, the width; layers=2, dropout=0",
    "gpt": "gpt:128, the width; layers=4, heads=4, dropout=0",
}
_ELSEWHERE = "torchvision:resnet18 or package.module:factory"


class Built(NamedTuple):
    """A model, and its name with every size in it."""

    model: Model
    text: str
    channels: int | None
    """Of pictures, where it takes another number than they have: grey ones are repeated."""


def build(text: str, facts: Facts) -> Built:
    """The model that a text names, for such data.

    Raises:
        RunError: there is no such model, or it is for other data; its sizes contradict the data.
        SpecError: what is named cannot be imported or built.
    """
    name = text.partition(":")[0]
    if name not in FORMS:
        if ":" in text:
            return _elsewhere(text, name, facts)
        near = known(name, [*FORMS, "torchvision:NAME", "package.module:factory"], "model")
        raise RunError(f"{near!r} is only a form: write torchvision:resnet18 or mypackage.nets:Net.")
    named = parse(text)
    if (name in ("lstm", "gpt")) != (facts.kind == "language"):
        fits = "lstm or gpt" if facts.kind == "language" else "linear, mlp or cnn"
        raise RunError(f"{text!r} is not for {facts.told}: write {fits}, {_ELSEWHERE}.")
    if name == "cnn" and len(facts.shape) != 3:
        raise RunError(f"{text!r} is for pictures, and the data has {facts.told}: write mlp:64-64.")
    factory, resolved = _FACTORIES[name](named, facts)
    return Built(Model(factory), resolved, None)


Factory = tuple[Callable[[], nn.Module], str]


def _elsewhere(text: str, package: str, facts: Facts) -> Built:
    spec, channels = text, None
    if package == "torchvision":
        if len(facts.shape) != 3 or facts.kind == "language":
            raise RunError(f"{text!r} is for pictures, and the data has {facts.told}: write mlp:64-64.")
        spec = text if "(" in text else f"{text}(num_classes={facts.outputs})"
        channels = 3 if facts.shape[0] == 1 else None
    try:
        return Built(Model(specs.load(spec)), spec, channels)
    except specs.SpecError:
        if "." not in package and get_close_matches(package, FORMS):
            known(package, list(FORMS), "model")
        raise


def _linear(named: Named, facts: Facts) -> Factory:
    named.nothing_but(0, (), "linear")
    return partial(perceptron, (math.prod(facts.shape), facts.outputs)), "linear"


def _mlp(named: Named, facts: Facts) -> Factory:
    named.nothing_but(1, ("dropout",), "mlp:512-256,dropout=0.1")
    hidden = sizes(named, named.args[0]) if named.args else (128,)
    ends = math.prod(facts.shape), facts.outputs
    first, last = hidden[0] == ends[0], hidden[-1] == ends[1]
    if len(hidden) == 1 or not (first or last):
        widths = (ends[0], *hidden, ends[1])
    elif first and last:
        widths = hidden
    else:
        told = f"begins with {ends[0]} but does not end with {ends[1]}"
        if last:
            told = f"ends with {ends[1]} but does not begin with {ends[0]}"
        whole = "-".join(map(str, (*hidden, ends[1]) if first else (ends[0], *hidden)))
        inner = "-".join(map(str, (ends[0], *hidden, ends[1])))
        raise RunError(
            f"{named.text!r} {told}, and the data has {facts.told}: write mlp:{whole}, or mlp:{inner} if all of these "
            f"are hidden layers."
        )
    dropout = _share(named, "dropout")
    return partial(perceptron, widths, dropout), f"mlp:{'-'.join(map(str, widths))}" + _options(named)


def _cnn(named: Named, facts: Facts) -> Factory:
    named.nothing_but(1, ("dropout",), "cnn:32-64,dropout=0.1")
    channels = sizes(named, named.args[0]) if named.args else (32, 64)
    most = int(math.log2(min(facts.shape[1:])))
    if len(channels) > most:
        fits = "-".join(map(str, channels[:most])) or "16"
        raise RunError(
            f"{named.text!r} halves the sides {len(channels)} times, and the data has {facts.told}: at most {most} "
            f"stages fit, as in cnn:{fits}."
        )
    made = partial(convolutional, channels, facts.shape, facts.outputs, _share(named, "dropout"))
    return made, f"cnn:{'-'.join(map(str, channels))}" + _options(named)


def _lstm(named: Named, facts: Facts) -> Factory:
    named.nothing_but(1, ("layers", "dropout"), "lstm:256,layers=2")
    width, layers = _width(named, 256), _count(named, "layers", 2)
    made = partial(LSTM, facts.outputs, width, layers, _share(named, "dropout"))
    return made, f"lstm:{width}" + _options(named, layers=layers)


def _gpt(named: Named, facts: Facts) -> Factory:
    named.nothing_but(1, ("layers", "heads", "dropout"), "gpt:128,layers=4,heads=4")
    width, layers, heads = _width(named, 128), _count(named, "layers", 4), _count(named, "heads", 4)
    if width % heads:
        raise RunError(
            f"{named.text!r}: a width of {width} has no {heads} equal heads. Write heads={math.gcd(width, heads)}."
        )
    made = partial(GPT, facts.outputs, facts.shape[0], width, layers, heads, _share(named, "dropout"))
    return made, f"gpt:{width}" + _options(named, layers=layers, heads=heads)


_FACTORIES: dict[str, Callable[[Named, Facts], Factory]] = {
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "lstm": _lstm,
    "gpt": _gpt,
}


def _width(named: Named, default: int) -> int:
    found = sizes(named, named.args[0]) if named.args else (default,)
    if len(found) != 1:
        raise RunError(f"{named.text!r} has one width: write {named.name}:{found[0]},layers={len(found)}.")
    return found[0]


def _count(named: Named, name: str, default: int) -> int:
    value = named.options.get(name, default)
    if type(value) is not int or value < 1:
        raise RunError(f"{named.text!r}: {name} is {shown(value)}, and a whole number from 1 on is wanted.")
    return value


def _share(named: Named, name: str) -> float:
    value = named.options.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise RunError(f"{named.text!r}: {name} is {shown(value)}, and a number from 0 on and below 1 is wanted.")
    return float(value)


def _options(named: Named, **defaults: int) -> str:
    return "".join(f",{key}={shown(value)}" for key, value in {**defaults, **named.options}.items())
