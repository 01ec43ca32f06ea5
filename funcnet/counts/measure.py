"""One call of a module, and its backward, watched: where its FLOPs, outputs and kept activations arise."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from funcnet import _compat, tree
from funcnet.counts.rows import Cost

__all__ = ["measure"]

_OWNER = "funcnet.counts"  # the key of a node's submodule in its metadata


def measure(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], backward: bool) -> dict[str, Cost]:
    """What each called submodule costs, by path, without what its submodules cost.

    Args:
        module: a module that no one else uses.
        args: what it is called with.
        kwargs: likewise.
        backward: whether to go back through the call as well, as training does: to the trainable parameters, not to
            the inputs.
    """
    watch = _Watch(module)
    given = [*module.parameters(), *module.buffers(), *tree.leaves((list(args), dict(kwargs)))]
    watch.given = {_compat.storage_of(t)[0] for t in given if _has_storage(t)}
    with watch.counter, torch.set_grad_enabled(backward):
        with saved_tensors_hooks(watch.keep, lambda saved: saved.tensor):
            output = module(*args, **kwargs)
        watch.settle()
        outputs = [t for t in tree.leaves(output) if isinstance(t, Tensor) and t.requires_grad]
        watch.claim(outputs, "")
        watch.phase = "backward"
        if backward and outputs:
            torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])
    return watch.costs()


@dataclass(eq=False)
class _Saved:
    """A tensor that lives as long as autograd keeps it."""

    tensor: Tensor
    path: str


class _Watch:
    """Follows which submodule is at work: by hooks in the forward, by owners of autograd's nodes in the backward."""

    def __init__(self, module: nn.Module) -> None:
        self.phase = "forward"
        self.given: set[int] = set()  # the memory of parameters, buffers and inputs, which the backward does not cost
        self.counter = _compat.FlopCounter(lambda: (self.phase, self.path))
        self._inside: list[str] = []
        self._node_path = ""
        self._saved: list[ref[_Saved]] = []
        self._kept: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
        for path, submodule in module.named_modules():
            submodule.register_forward_pre_hook(self._enter(path), with_kwargs=True)
            submodule.register_forward_hook(self._leave(path), always_call=True)  # recomputation stops by an error

    @property
    def path(self) -> str:
        """The submodule at work. A part that is computed again in the backward has hooks at work there, too."""
        return self._inside[-1] if self._inside else self._node_path

    def keep(self, tensor: Tensor) -> "_Saved":
        """Note what autograd keeps, and for whom."""
        saved = _Saved(tensor.detach(), self.path)  # with its history, a saved output would hold itself
        self._saved.append(ref(saved))
        return saved

    def settle(self) -> None:
        """Count the memory that is kept by now, once; what was computed and thrown away is not."""
        counted = set(self.given)
        for saved in filter(None, (weak() for weak in self._saved)):
            if _has_storage(saved.tensor):
                storage, size = _compat.storage_of(saved.tensor)
                if storage not in counted:
                    counted.add(storage)
                    self._kept[saved.path] += size

    def claim(self, tensors: Sequence[Any], path: str) -> None:
        """Give the nodes that led to these tensors and have no owner yet to a submodule."""
        nodes = [t.grad_fn for t in tensors if isinstance(t, Tensor) and t.grad_fn is not None]
        while nodes:
            node = nodes.pop()
            metadata = cast(dict[str, str], node.metadata)  # a property that torch's stubs take for a method
            if _OWNER in metadata:
                continue
            metadata[_OWNER] = path
            node.register_prehook(self._at(path))
            nodes += [before for before, _ in node.next_functions if before is not None]

    def costs(self) -> dict[str, Cost]:
        """The findings."""
        flops = self.counter.counts()
        paths = {"", *self._calls, *self._kept, *(path for _, path in flops)}
        return {
            path: Cost(
                self._calls[path],
                self._shapes.get(path, ()),
                self._bytes[path],
                flops.get(("forward", path), 0),
                flops.get(("backward", path), 0),
                self._kept[path],
            )
            for path in paths
        }

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.claim(tree.leaves((args, kwargs)), self.path)
            self._inside.append(path)

        return hook

    def _leave(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensors = [t for t in tree.leaves(output) if isinstance(t, Tensor)]
            self.claim(tensors, path)
            self._inside.pop()
            if self.phase == "forward":
                self._calls[path] += 1
                self._shapes.setdefault(path, tuple(tuple(t.shape) for t in tensors))
                self._bytes[path] += sum(t.numel() * t.element_size() for t in tensors)

        return hook

    def _at(self, path: str) -> Callable[[Any], None]:
        def hook(gradients: Any) -> None:
            self._node_path = path

        return hook


def _has_storage(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided
