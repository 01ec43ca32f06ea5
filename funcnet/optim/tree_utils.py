"""The functions of `funcnet.optim.tree` under the names of `optax.tree_utils`: `tree.add` is `tree_utils.tree_add`."""

import inspect
from typing import Any

from . import tree
from .tree.paths import NamedTupleKey as NamedTupleKey

globals().update({f"tree_{name}": f for name, f in vars(tree).items() if inspect.isfunction(f)})


def __getattr__(name: str) -> Any:  # also tells type checkers that there are names they do not see
    names = sorted(own for own in globals() if own.startswith("tree_"))
    raise AttributeError(f"tree_utils has no {name}: it has {', '.join(names)}.")
