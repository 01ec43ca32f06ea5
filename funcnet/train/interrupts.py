"""Ctrl-C, taken at the end of a step."""

import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts"]


class Interrupts:
    """Within the block the first Ctrl-C is noted, and a second one interrupts at once.

    A step may be writing over its state, which must not be left half done. Python delivers signals to the main thread:
    in another, nothing is changed.
    """

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Take the signal."""
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        if self._mine:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
