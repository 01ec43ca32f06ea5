"""The one error of a run that was asked for wrongly."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

__all__ = ["RunError", "known", "out_of_memory", "refusing"]


class RunError(ValueError):
    """What was asked for cannot be run; the message is one line, and says what to write instead."""

    __module__ = "funcnet.runs"


def known(name: str, names: list[str], what: str) -> str:
    """A name, if it is one of these.

    Raises:
        RunError: it is not; with the names near it, or all where none is.

    >>> known("adma", ["adam", "sgd"], "optimizer")
    Traceback (most recent call last):
    funcnet.runs.RunError: 'adma' is no optimizer; near names: adam.
    """
    if name in names:
        return name
    near = get_close_matches(name.lower(), names, 3, 0.5)
    told = f"near names: {', '.join(near)}" if near else f"there are {', '.join(names) or 'none'}"
    raise RunError(f"{name!r} is no {what}; {told}.")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; of the CPU's, torch says it in the message alone."""
    from torch import OutOfMemoryError  # here, since the commands' names are read without torch

    return isinstance(error, MemoryError | OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """A context in which a value that a function of the library refuses is named: `what`, and its reason in a line."""
    try:
        yield
    except RunError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{what}: {' '.join(str(error).split())}") from error
