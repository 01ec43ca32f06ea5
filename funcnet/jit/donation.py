"""Donated tensors: their memory becomes the outputs', and reading them afterwards is an error.

After a donating call the caller's tensors are the same objects over memory that now holds the new values. Changing an
object's class to one whose every use raises costs a tenth of a microsecond a leaf, where swapping the tensor for
another took ten; the outputs are fresh aliases of the same memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

__all__ = ["Donated", "DonatedTensorError", "check_separate", "poison_class"]


class DonatedTensorError(RuntimeError):
    """A tensor was read after it had been donated to a jitted function."""

    __module__ = "funcnet"


class Donated(Tensor):
    """What a donated leaf becomes; of `poison_class`."""


def poison_class(function: str, where: str, instead: str = "") -> type[Tensor]:
    """The class that a donated leaf takes on: a tensor that raises, saying where it went, on any use.

    `instead` ends the message, for what is no jitted step over one tree.
    """
    instead = instead or (
        f"Use the tree that {function} returned (`ts, metrics = {function}(ts, batch)`), copy what you need before the "
        "call (`tree.map(torch.clone, ts)`), or jit without donate=."
    )
    message = (
        f"{where} was donated to {function}, which reused its memory for the result: it cannot be read any more. "
        f"{instead}"
    )

    class Poisoned(Donated):
        @classmethod
        def __torch_function__(
            cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
        ) -> Any:
            raise DonatedTensorError(message)

        # A debugger or a traceback printer must be able to show the frame.
        def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch's own has no types to agree with
            return f"<donated tensor: {where}>"

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise DonatedTensorError(message)

        __deepcopy__ = __reduce_ex__

    return Poisoned


def check_separate(
    function: str, paths: Sequence[str], leaves: Sequence[Tensor], donated: Sequence[int], others: Sequence[int]
) -> None:
    """Raise unless every donated leaf owns its memory: it fills it, and no other leaf of the call shares it."""
    owner: dict[int, int] = {}
    for i in donated:
        storage = leaves[i].untyped_storage()
        address = storage.data_ptr()
        own = leaves[i].numel() * leaves[i].element_size()
        if leaves[i].is_conj() or leaves[i].is_neg():
            raise ValueError(
                f"{function} donates {paths[i]}, which is the lazy conjugate or imaginary part of another tensor. Pass "
                f"a copy, {paths[i]}.resolve_conj().resolve_neg()."
            )
        if own and storage.nbytes() != own:
            kind = "a view of a larger tensor" if storage.nbytes() > own else "an expanded tensor"
            raise ValueError(
                f"{function} donates {paths[i]}, which is {kind}: its memory is not its own to give. Pass a copy, as "
                f"in tree.map(torch.clone, ...)."
            )
        if address and owner.setdefault(address, i) != i:
            raise ValueError(
                f"{function} donates {paths[owner[address]]} and {paths[i]}, which share one memory: it cannot hold "
                f"two results. Tie them in the model (one leaf), or give one its own with .clone()."
            )
    for i in others:
        address = leaves[i].untyped_storage().data_ptr()
        if address and address in owner:
            raise ValueError(
                f"{paths[i]} shares the memory of {paths[owner[address]]}, which {function} donates and overwrites. "
                f"Pass a copy (.clone()), or leave it to the donated tree."
            )
