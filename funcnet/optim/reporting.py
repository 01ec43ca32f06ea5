"""What a rule says about itself, where it may."""

from typing import Any

from torch import Tensor

from .. import _compat


def report(condition: Tensor, message: str, **values: Any) -> None:
    """Print a message with numbers where a condition holds, in ordinary eager steps; elsewhere nothing."""
    if _compat.plain() and condition:
        print(message.format(**{name: float(value) for name, value in values.items()}))
