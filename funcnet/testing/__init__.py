"""Checks and strategies for one's own functions and models.

Each check holds one promise of a pure function, and raises `CheckError` with the smallest counterexample it found:
which leaf, which number, in which submodule, and the key to see it again. `check_model` runs all that apply.

`funcnet.testing.strategies` draws keys, tensors, trees, whole architectures, optimizers and schedules with Hypothesis,
and needs `pip install "funcnet[test]"`; the checks do not.

>>> from torch import nn
>>> from funcnet import random, testing
>>> print(testing.check_parameter_count(nn.Linear(256, 10), 2570))
2570 parameters
"""

from funcnet.testing.dtypes import check_dtype as check_dtype
from funcnet.testing.failures import CheckError as CheckError
from funcnet.testing.failures import NotApplicableError as NotApplicableError
from funcnet.testing.gradients import check_gradients as check_gradients
from funcnet.testing.models import check_parameter_count as check_parameter_count
from funcnet.testing.models import check_seeded as check_seeded
from funcnet.testing.purity import check_pure as check_pure
from funcnet.testing.suite import CHECKS as CHECKS
from funcnet.testing.suite import Report as Report
from funcnet.testing.suite import Result as Result
from funcnet.testing.suite import check_model as check_model
from funcnet.testing.transformed import check_jit as check_jit
from funcnet.testing.transformed import check_remat as check_remat
from funcnet.testing.transformed import check_threads as check_threads
from funcnet.testing.transformed import check_vmap as check_vmap
