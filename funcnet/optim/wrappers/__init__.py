"""Transformations around transformations."""

from .masking import MaskedNode as MaskedNode
from .masking import MaskedState as MaskedState
from .masking import masked as masked
