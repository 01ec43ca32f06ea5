"""Optimizers as pure functions, with Optax's protocol, names, arguments and defaults.

The rooms: `base` states the contract, `values` says what hyperparameters may be, and `leafwise` applies a rule written
for one leaf to a tree. `scaling`, `weights` and `clipping` hold links that chains share, `wrappers` what goes around
them, `schedules` the functions of the step count. Then a file per family, in the order state, rule, alias. `fast` and
`many` make ordinary eager steps fast.
"""

from . import contrib as contrib
from . import schedules as schedules
from .adam import ScaleByAdamState as ScaleByAdamState
from .adam import adam as adam
from .adam import adamw as adamw
from .adam import scale_by_adam as scale_by_adam
from .base import EmptyState as EmptyState
from .base import GradientTransformation as GradientTransformation
from .base import GradientTransformationExtraArgs as GradientTransformationExtraArgs
from .base import OptState as OptState
from .base import Params as Params
from .base import TransformInit as TransformInit
from .base import TransformUpdate as TransformUpdate
from .base import Updates as Updates
from .base import advance as advance
from .base import apply_updates as apply_updates
from .base import chain as chain
from .base import identity as identity
from .base import named_chain as named_chain
from .base import set_to_zero as set_to_zero
from .base import stateless as stateless
from .base import stateless_with_tree_map as stateless_with_tree_map
from .base import with_extra_args as with_extra_args
from .base import with_extra_args_support as with_extra_args_support
from .clipping import clip_by_global_norm as clip_by_global_norm
from .scaling import ScaleByScheduleState as ScaleByScheduleState
from .scaling import scale as scale
from .scaling import scale_by_learning_rate as scale_by_learning_rate
from .scaling import scale_by_schedule as scale_by_schedule
from .schedules import constant_lr as constant_lr
from .schedules import constant_schedule as constant_schedule
from .schedules import cosine_annealing_lr as cosine_annealing_lr
from .schedules import cosine_annealing_warm_restarts as cosine_annealing_warm_restarts
from .schedules import cosine_decay_schedule as cosine_decay_schedule
from .schedules import cosine_onecycle_schedule as cosine_onecycle_schedule
from .schedules import cyclic_lr as cyclic_lr
from .schedules import exponential_decay as exponential_decay
from .schedules import exponential_lr as exponential_lr
from .schedules import join_schedules as join_schedules
from .schedules import lambda_lr as lambda_lr
from .schedules import linear_lr as linear_lr
from .schedules import linear_onecycle_schedule as linear_onecycle_schedule
from .schedules import linear_schedule as linear_schedule
from .schedules import multi_step_lr as multi_step_lr
from .schedules import multiplicative_lr as multiplicative_lr
from .schedules import one_cycle_lr as one_cycle_lr
from .schedules import piecewise_constant_schedule as piecewise_constant_schedule
from .schedules import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from .schedules import plot_schedule as plot_schedule
from .schedules import polynomial_lr as polynomial_lr
from .schedules import polynomial_schedule as polynomial_schedule
from .schedules import sequential_lr as sequential_lr
from .schedules import sgdr_schedule as sgdr_schedule
from .schedules import step_lr as step_lr
from .schedules import warmup_constant_schedule as warmup_constant_schedule
from .schedules import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from .schedules import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from .schedules import warmup_stable_decay_schedule as warmup_stable_decay_schedule
from .sgd import TraceState as TraceState
from .sgd import sgd as sgd
from .sgd import trace as trace
from .values import Scalar as Scalar
from .values import ScalarOrSchedule as ScalarOrSchedule
from .values import Schedule as Schedule
from .weights import WeightDecaySchedule as WeightDecaySchedule
from .weights import add_decayed_weights as add_decayed_weights
from .wrappers import MaskedNode as MaskedNode
from .wrappers import MaskedState as MaskedState
from .wrappers import masked as masked
