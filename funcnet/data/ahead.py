"""The next batches, made and moved to the device while this one is in use."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from funcnet import tree
from funcnet.data.streams import Stream

__all__ = ["prefetch"]

T = TypeVar("T")


class _Buffer:
    """What one thread has made and another has not taken yet: at most `size` items, then an error or the end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: deque[Any] = deque()
        self.error: BaseException | None = None
        self.ended = self.closed = False
        self.change = threading.Condition()

    def wait_for_room(self) -> bool:
        """Whether another item is wanted, once there is room for it."""
        with self.change:
            self.change.wait_for(lambda: self.closed or len(self.items) < self.size)
            return not self.closed

    def put(self, item: Any) -> None:
        with self.change:
            self.items.append(item)
            self.change.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self.change:
            self.ended, self.error = True, error
            self.change.notify_all()

    def get(self) -> list[Any]:
        """The next item, or none at the end; an error comes after the items before it."""
        with self.change:
            self.change.wait_for(lambda: self.items or self.ended)
            if self.items:
                self.change.notify_all()
                return [self.items.popleft()]
            if self.error is not None:
                raise self.error
            return []

    def close(self) -> None:
        with self.change:
            self.closed = True
            self.items.clear()
            self.change.notify_all()


@overload
def prefetch(iterable: Stream, size: int = 2, device: torch.device | str | None = None) -> Stream: ...
@overload
def prefetch(iterable: Iterable[T], size: int = 2, device: torch.device | str | None = None) -> Iterator[T]: ...
def prefetch(iterable: Iterable[Any], size: int = 2, device: torch.device | str | None = None) -> Iterator[Any]:
    """The items of an iterable, which a thread makes up to `size` ahead, with their tensors on a device.

    The thread starts with the first item that is asked for, and ends with the iterable, or with this iterator: when it
    is closed or forgotten, as by a `break`, after the item in the making. A tensor goes to a GPU through pinned memory,
    on a stream of its own. It pays where a GPU computes, or where batches wait for a disk: a step on the CPU and the
    thread take each other's cores.

    Args:
        iterable: batches, as any pytree; a `Stream` stays one, with a position before each. It runs in the thread, to
            which function modes of this one, such as `random.seeded`, do not reach.
        size: how many items may wait.
        device: where their tensors are wanted, of which "cuda" is the GPU that is current at this call; None leaves
            them where they are.

    Raises:
        ValueError: `size` is not positive. Whatever the iterable raises comes after the items before it, with the
            traceback of where it arose.

    >>> list(prefetch(range(4), size=2))
    [0, 1, 2, 3]
    """
    if size < 1:
        raise ValueError(f"size is {size}; it counts the items that may wait and must be positive.")
    target = None if device is None else torch.device(device)
    if target is not None and target.type == "cuda" and target.index is None:
        target = torch.device("cuda", torch.cuda.current_device())  # which each thread has for itself

    def generate(items: Iterable[Any]) -> Generator[Any, None, None]:
        buffer = _Buffer(size)
        thread = threading.Thread(target=_fill, args=(buffer, items, target), name="prefetch", daemon=True)
        thread.start()
        try:
            while got := buffer.get():
                item, ready = got.pop()
                yield _arrived(item, ready)
                del item
        finally:
            buffer.close()
            thread.join()

    return iterable.mapped(generate) if isinstance(iterable, Stream) else generate(iterable)


def _fill(buffer: _Buffer, iterable: Iterable[Any], device: torch.device | None) -> None:
    error: BaseException | None = None
    try:
        side: Any = None
        if device is not None and device.type == "cuda":
            torch.cuda.set_device(device)
            side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        iterator = iter(iterable)
        try:
            while buffer.wait_for_room():
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                buffer.put(_sent(item, device, side))
        finally:
            if callable(close := getattr(iterator, "close", None)):
                close()
    except BaseException as raised:  # whatever it is, the consumer's thread shall have it
        error = raised
    finally:
        buffer.end(error)


def _sent(item: Any, device: torch.device | None, side: Any) -> tuple[Any, Any]:
    """An item on its way to the device, and the event of its arrival where that is waited for."""
    if device is None:
        return item, None
    if side is None:
        return _on_tensors(lambda leaf: leaf.to(device), item), None

    def send(leaf: Tensor) -> Tensor:
        return (leaf if leaf.is_cuda else leaf.pin_memory()).to(device, non_blocking=True)

    with torch.cuda.stream(side):
        return _on_tensors(send, item), side.record_event()


def _arrived(item: Any, ready: Any) -> Any:
    if ready is not None:
        for leaf in tree.leaves(item):
            if isinstance(leaf, Tensor):
                current = torch.cuda.current_stream(leaf.device)
                current.wait_event(ready)
                leaf.record_stream(current)  # else its memory might be given to the next batch while it is read
    return item


def _on_tensors(f: Callable[[Tensor], Tensor], item: Any) -> Any:
    return tree.map(lambda leaf: f(leaf) if isinstance(leaf, Tensor) else leaf, item)
