"""Optimizers as pure functions, with Optax's protocol, names, arguments and defaults.

The rooms: `base` states the contract, `transforms` holds the links that chains share, `wrappers` what goes around them,
`schedules` the functions of the step count; then a file per family, in the order state, rule, alias. `fast` holds the
kernels of ordinary eager steps.
"""

from .adam import ScaleByAdamState, adam, adamw, scale_by_adam
from .base import (
    EmptyState,
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    TransformInit,
    TransformUpdate,
    advance,
    apply_updates,
    chain,
    identity,
)
from .schedules import (
    constant_schedule,
    cosine_decay_schedule,
    join_schedules,
    linear_schedule,
    warmup_cosine_decay_schedule,
)
from .sgd import TraceState, sgd, trace
from .transforms import (
    ScaleByScheduleState,
    WeightDecaySchedule,
    add_decayed_weights,
    clip_by_global_norm,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from .wrappers import MaskedNode, MaskedState, masked

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "MaskedNode",
    "MaskedState",
    "Scalar",
    "ScalarOrSchedule",
    "ScaleByAdamState",
    "ScaleByScheduleState",
    "Schedule",
    "TraceState",
    "TransformInit",
    "TransformUpdate",
    "WeightDecaySchedule",
    "adam",
    "adamw",
    "add_decayed_weights",
    "advance",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "identity",
    "join_schedules",
    "linear_schedule",
    "masked",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "sgd",
    "trace",
    "warmup_cosine_decay_schedule",
]
