"""A function of trees as torch.func wants one: of flat tensors, with flat tensors for its results."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from funcnet import tree
from funcnet.control.closure import visible
from funcnet.transforms._arguments import Function, describe, name
from funcnet.tree.form import Form


class Flat:
    """A function to be differentiated with respect to all its arguments, of their leaves.

    It returns `(outputs, aux)`, both flat; the trees that they came from are those of its last run.
    """

    def __init__(
        self, f: Function, verb: str, args: tuple[Any, ...], *, has_aux: bool = False, integers: bool = False
    ) -> None:
        """Take the function and its arguments; `verb` is what errors call the transform.

        With `integers`, the function may also return these, which have no derivative.
        """
        self.f, self.verb, self.has_aux, self.integers = f, verb, has_aux, integers
        self.leaves, self.treedef = tree.flatten(visible(args))
        # torch.func wraps functions, and copies their name.
        self.__name__ = name(f)

    def __call__(self, *leaves: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run it."""
        result = self.f(*tree.unflatten(self.treedef, leaves))
        if self.has_aux and not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"{name(self.f)} must return (output, aux) under has_aux=True; it returned {describe(result)}."
            )
        output, aux = result if self.has_aux else (result, None)
        outputs, self._outdef = tree.flatten(output)
        if not all(map(self._fits, outputs)):
            self._refuse(output)
        tensors, self._aux = Form.opened(aux)
        return tuple(outputs), tensors

    def output(self, values: Sequence[Any]) -> Any:
        """A tree like the output, of these."""
        return tree.unflatten(self._outdef, values)

    def aux(self, tensors: Sequence[Tensor]) -> Any:
        """The aux that the function returned, with these for its tensors."""
        return self._aux.filled(tensors)

    def _fits(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and (self.integers or leaf.is_floating_point() or leaf.is_complex())

    def _refuse(self, output: Any) -> None:
        for path, leaf in tree.leaves_with_path(output):
            if not self._fits(leaf):
                where = f" at {path!r}" if path else ""
                raise TypeError(
                    f"{self.verb}({name(self.f)}) differentiates what {name(self.f)} returns, and got "
                    f"{describe(leaf)}{where}. Return floating tensors, and the rest as aux: `return output, aux` "
                    f"with has_aux=True, where {self.verb} takes it."
                )
