"""Two ways of running a call that must agree, and the submodule in which they part."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

from torch import nn

from funcnet.testing.failures import CheckError, compare, explain
from funcnet.testing.subjects import Call

__all__ = ["agree", "first_difference", "inside", "locate", "raised_in"]

Way: TypeAlias = Callable[[Callable[..., Any]], Any]
"""Runs a function on arguments that it knows of: plainly, mapped, compiled ..."""


def agree(
    call: Call,
    way: Way,
    reference: Way,
    said: tuple[str, str],
    *,
    exact: bool = False,
    of: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f,
) -> None:
    """Hold that running `f` in one way gives what another way gives.

    Args:
        call: what is run.
        way: runs a function, on the arguments that it knows of, in the way that is checked.
        reference: runs it in the way that is trusted.
        said: the two ways in words: `("under vmap", "in a loop")`.
        exact: whether every number must be the same.
        of: what is made of the call's function first, such as its gradient.

    Raises:
        CheckError: the results differ, or the first way raises. The submodule is that whose outputs differ first.
    """
    here, there = said
    want = reference(of(call.f))
    try:
        got = way(of(call.f))
    except Exception as error:
        raise CheckError(
            f"{call.title} fails {here}, and does not {there}: {explain(error)}", submodule=raised_in(error)
        ) from error
    difference = compare(got, want, exact=exact)
    if difference is None:
        return
    if not exact and compare(reference(of(call.f)), want, exact=True) is not None:
        raise CheckError(
            f"{call.title} gives different results for the same arguments, so nothing can be said of it {here}. See "
            f"check_pure."
        )
    submodule = first_difference(call, way, reference, exact)
    where = f" The outputs differ first{inside(submodule)}." if submodule else ""
    raise CheckError(
        f"{call.title} gives another result {here} than {there}: {difference}.{where}",
        leaf=difference.leaf,
        index=difference.place,
        submodule=submodule,
    )


def first_difference(call: Call, way: Way, reference: Way, exact: bool = False) -> str | None:
    """The submodule whose outputs are the first to differ; None where it cannot be told."""
    if not call.submodules():
        return None

    def captured(*args: Any) -> Any:
        return call.f(*args, capture=("*",))[-1]

    try:
        got, want = list(_captures(way(captured))), list(_captures(reference(captured)))
    except Exception:
        return None  # the outputs of submodules may be what this way cannot return
    for name in want[0]:
        if compare([one.get(name) for one in got], [one[name] for one in want], exact=exact) is not None:
            return name.partition(":")[0]
    return None


def _captures(value: Any) -> Iterator[dict[str, Any]]:
    """The outputs of submodules of each call, which a way may return in lists."""
    if isinstance(value, list):
        for part in value:
            yield from _captures(part)
    else:
        yield value


def locate(call: Call, probe: Callable[[], Any]) -> str | None:
    """The innermost submodule that changes what a probe reads; None where it cannot be told.

    The call is run again for it, whatever becomes of it.
    """
    changed: list[str] = []

    def watched(module: nn.Module, *args: Any) -> Any:
        open_calls: list[tuple[Any, int]] = []

        def enter(submodule: nn.Module, args: Any) -> None:
            open_calls.append((probe(), len(changed)))

        def leave(submodule: nn.Module, args: Any, output: Any, name: str) -> None:
            before, known = open_calls.pop()
            if len(changed) == known and probe() != before:
                changed.append(name)

        handles = []
        for name, submodule in module.named_modules():
            handles += [
                submodule.register_forward_pre_hook(enter),
                submodule.register_forward_hook(functools.partial(leave, name=name)),
            ]
        try:
            return module(*args)
        finally:
            for handle in handles:
                handle.remove()

    if call.case is not None:
        with suppress(Exception):
            call.f(*call.args, method=watched)
    return changed[0] if changed else None


def raised_in(error: Exception) -> str | None:
    """The submodule that a model's error says it was raised in."""
    found = re.search(r"submodule '([^']+)'", explain(error))
    return found[1] if found else None


def inside(submodule: str | None) -> str:
    """Where it happens, as a part of a sentence."""
    return f" in submodule {submodule!r}" if submodule else ""
