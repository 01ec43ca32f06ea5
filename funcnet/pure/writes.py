"""What tells of writes in place: torch's counts of them, and `tensor.data`, which has a count of its own."""

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from funcnet import _compat
from funcnet.random.seeded import Replacement

if TYPE_CHECKING:
    from funcnet.pure.mode import PureMode

__all__ = ["DATA", "versions", "written_through_data"]

_version = attrgetter("_version")
_data: Any = Tensor.data


def versions(values: Iterable[Any]) -> list[int]:
    """How often each tensor was written in place: inside transforms the tensor that their wrappers hide."""
    values = tuple(map(_bare, values) if _compat.transform_active() else values)
    try:
        return list(map(_version, values))
    except (AttributeError, RuntimeError):  # what is no tensor has no count, and inference tensors refuse to tell
        return [v._version if isinstance(v, Tensor) and not v.is_inference() else 0 for v in values]


def _bare(value: Any) -> Any:
    return _compat.bare(value) if isinstance(value, Tensor) else value


def _get(mode: "PureMode", tensor: Tensor) -> Tensor:
    data: Tensor = _data.__get__(tensor)
    mode.peeked.setdefault(id(tensor), []).append((tensor, data, versions([data])))
    return data


def _set(mode: "PureMode", tensor: Tensor, value: Tensor) -> None:
    mode.peeked.setdefault(id(tensor), []).append((tensor, None, []))
    if mode.holds(tensor) and tensor.shape == value.shape:  # a tracer sees what is written, and not what is exchanged
        tensor.detach().copy_(value)
    else:
        _data.__set__(tensor, value)


def written_through_data(mode: "PureMode", tensor: Tensor) -> bool:
    """Whether this call wrote into the memory of a tensor as `tensor.data.mul_(2)`, or gave it other memory."""
    return any(data is None or versions([data]) != before for _, data, before in mode.peeked.get(id(tensor), ()))


DATA: dict[Any, Replacement] = {_data.__get__: _get, _data.__set__: _set}
