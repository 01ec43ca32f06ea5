"""A whole number that knows the formula it came from."""

import operator
from typing import SupportsIndex

__all__ = ["Count", "dividing", "product", "sizes"]


class Count(int):
    """A whole number with the text of its formula, which `+`, `*` and `//` by whole numbers carry along.

    Terms of 0 and factors of 1 are left out. Read as Python, the text has the number as its value.

    >>> count = (Count(3) * 3 * 3 + 1) * 16
    >>> count, count.formula
    (448, '(3*3*3 + 1)*16')
    """

    formula: str
    _is_sum: bool

    def __new__(cls, value: SupportsIndex, formula: str | None = None, is_sum: bool = False) -> "Count":
        """Take a number, which is its own formula by default; `is_sum` has it bracketed as a factor."""
        count = super().__new__(cls, operator.index(value))
        count.formula = str(int(count)) if formula is None else formula
        count._is_sum = is_sum
        return count

    def __add__(self, other: int) -> "Count":
        """The sum."""
        other = _count(other)
        if other == 0 or self == 0:
            return self if other == 0 else other
        return Count(int(self) + int(other), f"{self.formula} + {other.formula}", is_sum=True)

    def __mul__(self, other: int) -> "Count":
        """The product."""
        other = _count(other)
        if self == 0 or other == 0:
            return Count(0)
        if self.formula == "1" or other.formula == "1":
            return other if self.formula == "1" else self
        return Count(int(self) * int(other), f"{_factor(self)}*{_factor(other)}")

    def __floordiv__(self, other: int) -> "Count":
        """The quotient of a division without remainder."""
        return self if other == 1 else Count(int(self) // int(other), f"{_factor(self)}/{other}")

    __radd__ = __add__

    def __rmul__(self, other: int) -> "Count":
        """The product, with its factors in the order in which they are written."""
        return _count(other) * self


def product(factors: tuple[int, ...]) -> Count:
    """All factors in one product.

    >>> product((2, 1, 4)).formula
    '2*4'
    """
    result = Count(1)
    for factor in factors:
        result = result * factor
    return result


def sizes(**values: SupportsIndex) -> list[Count]:
    """The arguments as counts.

    Raises:
        TypeError: an argument is no whole number.
        ValueError: an argument is negative.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} is {value!r}; it must be a whole number, such as 3.")
        if operator.index(value) < 0:
            raise ValueError(f"{name} is {value}; a size must be 0 or more.")
    return [_count(value) for value in values.values()]


def dividing(divisor: str, by: int, **values: int) -> None:
    """Check that `by` divides all values.

    Raises:
        ValueError: it does not.
    """
    for name, value in values.items():
        if by <= 0 or value % by:
            raise ValueError(f"{divisor} is {by}, which does not divide {name}, {value}. torch refuses this layer too.")


def _count(value: SupportsIndex) -> Count:
    return value if isinstance(value, Count) else Count(value)


def _factor(count: Count) -> str:
    return f"({count.formula})" if count._is_sum else count.formula
