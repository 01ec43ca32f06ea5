"""Whether a module remembers one call in the next, in an attribute that a pure call does not see."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from funcnet import tree
from funcnet.control.closure import ambient, rekeyed
from funcnet.random.seeded import KeyedMode
from funcnet.testing.agreement import inside
from funcnet.testing.failures import CheckError, compare, explain
from funcnet.testing.subjects import Call
from funcnet.testing.watch import Watch

__all__ = ["remembers"]

_KINDS = ("_parameters", "_buffers", "__dict__")


def remembers(call: Call, other: tuple[Any, ...]) -> tuple[str, CheckError] | None:
    """What a module keeps between calls, beside its tensors, if its result depends on it, and the error that says so.

    A pure call forgets what a forward assigns to its module, so such a module works otherwise than it does in torch.
    One copy of the model is fresh, another was used before within the same pure call, where nothing is forgotten.
    """
    key = call.named().get("key")
    params = other[0]
    inputs = other[len(other) - call.inputs :]
    changed: list[tuple[str, str, str]] = []

    def run(module: nn.Module, *args: Any) -> Any:
        with rekeyed(_mode(), key):
            return module(*args)

    def run_after_another(module: nn.Module, *args: Any) -> Any:
        watch = Watch({"": module})
        with _kept(module), suppress(Exception):
            for name, value in params.items():
                _put(module, name, value)
            run(module, *inputs)
        changed.extend(filter(None, [watch.change()]))
        return run(module, *args)

    fresh = call.afresh().f(*call.args, method=run)
    try:
        used = call.afresh().f(*call.args, method=run_after_another)
    except Exception as error:
        difference: Any = f"a later call raises {explain(error)}"
    else:
        difference = compare(_output(call, used), _output(call, fresh), exact=True)
    if difference is None:
        return None
    return changed[0][1] if changed else "", _error(call, changed, difference)


def _mode() -> KeyedMode:
    mode = ambient()
    assert mode is not None  # a method of a pure call runs under one
    return mode


def _output(call: Call, result: Any) -> Any:
    return result["output"] if call.train else result


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Give the module's tensors back their places and values afterwards, but nothing else that it holds."""
    kept = []
    for submodule in module.modules():
        for kind in _KINDS:
            owner = getattr(submodule, kind)
            for name, value in owner.items():
                if any(isinstance(leaf, Tensor) for leaf in tree.leaves(value)):
                    kept.append((owner, name, tree.map(_copy, value)))
    try:
        yield
    finally:
        for owner, name, value in kept:
            owner[name] = value


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, last = name.rpartition(".")
    module.get_submodule(path)._parameters[last] = value  # type: ignore[assignment]  # as a pure call puts them in


def _error(call: Call, changed: list[tuple[str, str, str]], difference: Any) -> CheckError:
    _, path, how = changed[0] if changed else ("", "", "")
    path, how = path.removeprefix("."), f": it {how}" if how else ""
    submodule = max((name for name in call.submodules() if path.startswith(f"{name}.")), key=len, default=None)
    attribute = path.removeprefix(f"{submodule}.") if submodule else path
    what = f"keeps {attribute!r}" if attribute else "keeps something"
    return CheckError(
        f"the module of {call.title} {what}{inside(submodule)} from one call to the next{how}. Its result depends on "
        f"that ({difference}), and a pure call forgets it. Keep it in a buffer, which comes back as new state.",
        submodule=submodule,
    )
