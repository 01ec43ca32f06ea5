"""Functions of the step count, for learning rates and other hyperparameters that change.

The rooms: `basic`, `decay`, `warmup` and `piecewise` hold optax's, `torch_like` and
`torch_cycles` those of `torch.optim.lr_scheduler`, and `picture` draws one.
"""

from ..values import Schedule as Schedule
from ..wrappers.inject import InjectHyperparamsState as InjectHyperparamsState
from ..wrappers.inject import InjectStatefulHyperparamsState as InjectStatefulHyperparamsState
from ..wrappers.inject import StatefulSchedule as StatefulSchedule
from ..wrappers.inject import WrappedSchedule as WrappedSchedule
from ..wrappers.inject import inject_hyperparams as inject_hyperparams
from ..wrappers.inject import inject_stateful_hyperparams as inject_stateful_hyperparams
from .basic import constant_schedule as constant_schedule
from .basic import join_schedules as join_schedules
from .basic import linear_schedule as linear_schedule
from .basic import polynomial_schedule as polynomial_schedule
from .decay import cosine_decay_schedule as cosine_decay_schedule
from .decay import exponential_decay as exponential_decay
from .picture import plot_schedule as plot_schedule
from .piecewise import cosine_onecycle_schedule as cosine_onecycle_schedule
from .piecewise import linear_onecycle_schedule as linear_onecycle_schedule
from .piecewise import piecewise_constant_schedule as piecewise_constant_schedule
from .piecewise import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from .torch_cycles import cosine_annealing_lr as cosine_annealing_lr
from .torch_cycles import cosine_annealing_warm_restarts as cosine_annealing_warm_restarts
from .torch_cycles import cyclic_lr as cyclic_lr
from .torch_cycles import one_cycle_lr as one_cycle_lr
from .torch_like import constant_lr as constant_lr
from .torch_like import exponential_lr as exponential_lr
from .torch_like import lambda_lr as lambda_lr
from .torch_like import linear_lr as linear_lr
from .torch_like import multi_step_lr as multi_step_lr
from .torch_like import multiplicative_lr as multiplicative_lr
from .torch_like import polynomial_lr as polynomial_lr
from .torch_like import sequential_lr as sequential_lr
from .torch_like import step_lr as step_lr
from .warmup import sgdr_schedule as sgdr_schedule
from .warmup import warmup_constant_schedule as warmup_constant_schedule
from .warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from .warmup import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from .warmup import warmup_stable_decay_schedule as warmup_stable_decay_schedule
