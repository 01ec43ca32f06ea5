"""Hypothesis strategies: keys, tensors, trees, whole architectures, optimizers and schedules.

Numbers come from a drawn key, not one by one: an example is small to describe, is the same when it is replayed, and
shrinks by its shape.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401 - only whether it is there
except ModuleNotFoundError as error:
    raise ImportError(
        'funcnet.testing.strategies draws with Hypothesis, which is not installed: pip install "funcnet[test]". The '
        "checks of funcnet.testing need no Hypothesis."
    ) from error

from funcnet.testing.strategies.architectures import architectures as architectures
from funcnet.testing.strategies.layers import Architecture as Architecture
from funcnet.testing.strategies.layers import Layer as Layer
from funcnet.testing.strategies.optimizers import OPTIMIZERS as OPTIMIZERS
from funcnet.testing.strategies.optimizers import SCHEDULES as SCHEDULES
from funcnet.testing.strategies.optimizers import Recipe as Recipe
from funcnet.testing.strategies.optimizers import optimizers as optimizers
from funcnet.testing.strategies.optimizers import schedules as schedules
from funcnet.testing.strategies.values import dtypes as dtypes
from funcnet.testing.strategies.values import keys as keys
from funcnet.testing.strategies.values import shapes as shapes
from funcnet.testing.strategies.values import tensors as tensors
from funcnet.testing.strategies.values import trees as trees
