"""`tensor.data`: the same memory under a count of writes of its own, which the tensor's does not tell."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from funcnet import _compat
from funcnet.random.seeded import Replacement

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["DATA", "written_through_data"]

_data: Any = Tensor.data


def _get(mode: "PureMode", tensor: Tensor) -> Tensor:
    data: Tensor = _data.__get__(tensor)
    mode.peeked.append((tensor, data, _version(data)))
    return data


def _set(mode: "PureMode", tensor: Tensor, value: Tensor) -> None:
    mode.peeked.append((tensor, None, 0))
    if mode.holds(tensor) and tensor.shape == value.shape:  # a tracer sees what is written, and not what is exchanged
        tensor.detach().copy_(value)
    else:
        _data.__set__(tensor, value)


def _version(data: Tensor) -> int:
    bare = _compat.bare(data)
    return 0 if bare.is_inference() else bare._version


def written_through_data(mode: "PureMode", tensor: Tensor) -> bool:
    """Whether this call wrote into the memory of a tensor as `tensor.data.mul_(2)`, or gave it other memory."""
    return any(t is tensor and (data is None or _version(data) != before) for t, data, before in mode.peeked)


DATA: dict[Any, Replacement] = {_data.__get__: _get, _data.__set__: _set}
