"""Pytrees: nested dicts, lists, tuples, NamedTuples and registered dataclasses of tensors.

The rooms: `structure` opens and names a tree, `mapping` applies functions to it, `names` takes it apart by name,
`vector` lays it out flat, and `mismatch` is the one error for two trees that differ.
"""

from .mapping import cast, map, nbytes, ones_like, size, stack, to, unstack, zeros_like
from .mismatch import TreeMismatchError, check_like
from .names import Pattern, UnknownNameError, merge, split
from .structure import (
    PyTree,
    TreeDef,
    flatten,
    leaves,
    leaves_with_path,
    paths,
    register_dataclass,
    structure,
    unflatten,
)
from .vector import Unravel, global_norm, ravel

__all__ = [
    "Pattern",
    "PyTree",
    "TreeDef",
    "TreeMismatchError",
    "UnknownNameError",
    "Unravel",
    "cast",
    "check_like",
    "flatten",
    "global_norm",
    "leaves",
    "leaves_with_path",
    "map",
    "merge",
    "nbytes",
    "ones_like",
    "paths",
    "ravel",
    "register_dataclass",
    "size",
    "split",
    "stack",
    "structure",
    "to",
    "unflatten",
    "unstack",
    "zeros_like",
]
