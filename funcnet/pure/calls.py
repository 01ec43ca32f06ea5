"""What a call of a borrowed module may ask for: another method, the outputs of submodules, the place of an error."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from funcnet import _compat
from funcnet.pure.skeleton import Body

__all__ = ["capture_outputs", "innermost", "method_of", "versions"]


def method_of(module: nn.Module, method: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """What to call: the module itself, one of its methods, or a function of it."""
    if method is None:
        return module
    if callable(method):
        return lambda *args, **kwargs: method(module, *args, **kwargs)
    found: Callable[..., Any] | None = getattr(module, method, None)
    if not callable(found):
        names = [name for name in dir(module) if not name.startswith("_")]
        near = ", ".join(get_close_matches(method, names, 3))
        raise AttributeError(
            f"{type(module).__name__} has no method {method!r}" + (f"; near names: {near}." if near else ".")
        )
    return found


def capture_outputs(body: Body, patterns: Sequence[str]) -> tuple[dict[str, Any], list[Any]]:
    """A dict that the outputs of the matching submodules go to, and the hooks that put them there."""
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    captured: dict[str, Any] = {}
    names = [name for name, _ in body.module.named_modules() if name]
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = get_close_matches(pattern, names, 3, 0.4) or names[:3]
            raise KeyError(f"capture={pattern!r} matches no submodule; near names: {', '.join(near)}.")

    def hook_of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            count = sum(key == name or key.startswith(f"{name}:") for key in captured)
            captured[f"{name}:{count}" if count else name] = output

        return hook

    return captured, [body.module.get_submodule(name).register_forward_hook(hook_of(name)) for name in chosen]


def innermost(traceback: TracebackType | None, body: Body) -> str:
    """The path of the innermost submodule that a traceback passed through; empty for the module itself."""
    path = ""
    while traceback is not None:
        path = body.paths.get(id(traceback.tb_frame.f_locals.get("self")), path)
        traceback = traceback.tb_next
    return path


def versions(values: Iterable[Any]) -> list[int]:
    """How often each tensor was written in place; nothing inside a transform, whose wrappers do not count."""
    if _compat.transform_active():
        return []
    return [v._version if isinstance(v, Tensor) and not v.is_inference() else 0 for v in values]
