"""Work in the background, one piece at a time, that no exit of the interpreter cuts short."""

import threading
import warnings
from collections.abc import Callable

__all__ = ["Writer"]


class Writer:
    """Runs one piece of work at a time in a thread that the interpreter waits for; errors surface at the next call.

    >>> writer = Writer()
    >>> writer.start(lambda: 1 / 0)
    >>> writer.wait()
    Traceback (most recent call last):
    ...
    ZeroDivisionError: division by zero
    """

    def __init__(self) -> None:
        """Idle."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Wait for what is running, raise its error, and begin another."""
        self.wait()
        thread = threading.Thread(target=self._run, args=(work,), name="funcnet-checkpoint", daemon=False)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is on its way out and starts no threads
            self._run(work)
        else:
            self._thread = thread

    def wait(self) -> None:
        """Wait for what is running, and raise its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Wait where no one can catch an error any more: it becomes a warning."""
        try:
            self.wait()
        except BaseException as error:
            warnings.warn(f"the last checkpoint was not written: {error}", RuntimeWarning, stacklevel=2)

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
