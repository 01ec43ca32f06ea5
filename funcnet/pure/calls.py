"""What a call of a borrowed module may ask for: another method, the outputs of submodules, the place of an error."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from funcnet import _compat, tree
from funcnet.pure.skeleton import Body
from funcnet.tree.partial import partial_leaves

__all__ = ["Hooks", "innermost", "method_of"]


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


class Hooks:
    """What one call hands out of submodules' outputs, and adds to them."""

    def __init__(
        self, body: Body, mode: TorchFunctionMode, capture: str | Sequence[str], perturb: Mapping[str, Any]
    ) -> None:
        """Hang on to the submodules that are named; `remove` lets go of them."""
        self.captured: dict[str, Any] = {}
        self._mode, self._perturb = mode, perturb
        self._calls: Counter[str] = Counter()
        names = [name for name, _ in body.module.named_modules() if name]
        patterns = (capture,) if isinstance(capture, str) else tuple(capture)
        perturbed = {label: label.split(":")[0] for label in perturb}
        for what, pattern in [("capture", p) for p in patterns] + [("perturb", name) for name in perturbed.values()]:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = get_close_matches(pattern, names, 3, 0.4) or names[:3]
                raise KeyError(f"{what}={pattern!r} matches no submodule; near names: {', '.join(near)}.")
        seen = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
        for name in (name for name in names if name in seen or name in perturbed.values()):
            if "*" in name.split(".")[:-1]:
                whole = name[: name.index("*")] + "[*]"
                raise TypeError(
                    f"submodule {name!r}, which capture or perturb names, is inside equal blocks that are stacked and "
                    f"run as one. Name them all together by {whole!r}."
                )
        self._handles = [
            body.module.get_submodule(name).register_forward_hook(self._hook(name, name in seen))
            for name in names
            if name in seen or name in perturbed.values()
        ]

    def _hook(self, name: str, seen: bool) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            self._refuse_apart(name)
            count = self._calls[name]
            self._calls[name] += 1
            label = f"{name}:{count}" if count else name
            if label in self._perturb:
                output = _added(output, self._perturb[label], label)
            if seen:  # a copy, since the next layer may write into the output
                self.captured[label] = tree.map(lambda t: t.clone() if isinstance(t, Tensor) else t, output)
            return output

        return hook

    def _refuse_apart(self, name: str) -> None:
        innermost = next(m for m in reversed(_compat.function_modes()) if isinstance(m, type(self._mode)))
        if innermost is not self._mode:
            raise TypeError(
                f"submodule {name!r}, which capture or perturb names, is called inside remat, scan or another function "
                f"that runs its body apart, and only results leave that. Name the submodule around it."
            )

    def check(self) -> None:
        """At the end: raise if a perturbation has met no call."""
        for label in self._perturb:
            name, _, count = label.partition(":")
            if self._calls[name] <= int(count or 0):
                raise KeyError(f"perturb={label!r} was not used, since {name!r} was called {self._calls[name]} times.")

    def remove(self) -> None:
        """Let go of the submodules."""
        for handle in self._handles:
            handle.remove()


def _added(output: Any, perturbation: Any, label: str) -> Any:
    leaves, treedef = tree.flatten(output)
    terms = partial_leaves(perturbation, output, f"perturb[{label!r}]", "that output")
    for y, term in zip(leaves, terms, strict=True):
        if term is not None and term.shape != y.shape:
            raise tree.TreeMismatchError(
                f"perturb[{label!r}] has shape {tuple(term.shape)}, and is added to an output of shape "
                f"{tuple(y.shape)}. Make it by tree.zeros_like of what capture={label!r} returns."
            )
    # Under autocast outputs are of lower precision, which must not change.
    return tree.unflatten(treedef, [y if t is None else y + t.to(y.dtype) for y, t in zip(leaves, terms, strict=True)])


def innermost(traceback: TracebackType | None, body: Body) -> str:
    """The path of the innermost submodule that a traceback passed through; empty for the module itself."""
    path = ""
    while traceback is not None:
        path = body.paths.get(id(traceback.tb_frame.f_locals.get("self")), path)
        traceback = traceback.tb_next
    return path
