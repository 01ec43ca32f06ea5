"""How names with options are written: `adamw`, `crop:28,padding=4`, `mlp:784-256-10,dropout=0.1`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from funcnet.runs.errors import RunError, known, refusing

__all__ = ["Named", "call", "parse", "shown", "sizes"]


class Named(NamedTuple):
    """A name, and what was written after its colon."""

    text: str
    name: str
    args: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}

    def nothing_but(self, args: int, options: Sequence[str], example: str) -> "Named":
        """Itself, if it has at most so many arguments, and of options only these.

        Raises:
            RunError: it has more.
        """
        if len(self.args) > args:
            raise RunError(f"{self.text!r}: {self.args[args]!r} is too much. Write {example}.")
        for option in self.options:
            known(option, list(options), f"option of {self.name}")
        return self


def parse(text: str) -> Named:
    """Read `name`, `name:argument`, `name:key=value,key=value` or both.

    Values are whole numbers, numbers, `true`, `false`, `none`, several of them with colons between, or else words.

    Raises:
        RunError: there is no name, an option has none, or is there twice; an argument comes after an option.

    >>> parse("crop:28,padding=4")
    Named(text='crop:28,padding=4', name='crop', args=('28',), options={'padding': 4})
    >>> parse("resized-crop:scale=0.5:1").options
    {'scale': (0.5, 1)}
    """
    name, colon, rest = text.partition(":")
    args: list[str] = []
    options: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if options or not key:
                raise RunError(f"{text!r}: {part!r} after a comma is no option. Write name:argument,key=value.")
            args.append(key)
        elif not key.isidentifier() or not value or key in options:
            wrong = "comes twice" if key in options else "is no option"
            raise RunError(f"{text!r}: {part!r} {wrong}. Write key=value for each, with commas between.")
        else:
            options[key] = _value(value)
    if not name or (colon and not rest):
        raise RunError(
            f"{text!r} has no {'options after its colon' if name else 'name'}. Write name or name:key=value."
        )
    return Named(text, name, tuple(args), options)


def _value(text: str) -> Any:
    if ":" in text:
        return tuple(_value(part) for part in text.split(":"))
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def shown(value: Any) -> str:
    """A value as it is written: the inverse of reading one.

    >>> shown((0.5, 1)), shown(True)
    ('0.5:1', 'true')
    """
    if isinstance(value, tuple):
        return ":".join(map(shown, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def sizes(named: Named, text: str) -> tuple[int, ...]:
    """Positive sizes with `-` between: `512-256`.

    Raises:
        RunError: it is something else.

    >>> sizes(parse("mlp:512-256"), "512-256")
    (512, 256)
    """
    parts = text.split("-")
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise RunError(f"{named.text!r}: {text!r} are no sizes. Write whole numbers, as in {named.name}:512-256.")
    return tuple(int(part) for part in parts)


def call(named: Named, function: Callable[..., Any], given: Mapping[str, Any], hidden: Sequence[str] = ()) -> Any:
    """What a function makes of a name's arguments and options, beside those that are `given`.

    Args:
        named: what was written; its arguments go to the parameters that follow those given, in their order.
        function: called with all of it by keyword.
        given: its other arguments. An option of the same name goes before.
        hidden: parameters that cannot be written.

    Raises:
        RunError: an unknown option, or a value that the function refuses.
    """
    parameters = [name for name in inspect.signature(function).parameters if name not in hidden]
    open_ = [name for name in parameters if name not in given]
    if len(named.args) > len(open_):
        raise RunError(f"{named.text!r}: {named.args[len(open_)]!r} is too much. Options are {', '.join(open_)}.")
    placed = {name: _value(arg) for name, arg in zip(open_, named.args, strict=False)}
    for option in named.options:
        known(option, parameters, f"option of {named.name}")
        if option in placed:
            raise RunError(f"{named.text!r}: {option} is given twice, as {placed[option]} and by its name.")
    arguments = {**given, **placed, **named.options}
    needed = inspect.signature(function).parameters
    for name in parameters:
        if name not in arguments and needed[name].default is inspect.Parameter.empty:
            raise RunError(f"{named.text!r} needs its {name}: write {named.name}:{name}=...")
    with refusing(repr(named.text)):
        return function(**arguments)
