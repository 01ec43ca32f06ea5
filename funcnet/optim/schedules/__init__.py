"""Functions of the step count, for learning rates and other hyperparameters that change."""

from .basic import constant_schedule as constant_schedule
from .basic import cosine_decay_schedule as cosine_decay_schedule
from .basic import join_schedules as join_schedules
from .basic import linear_schedule as linear_schedule
from .basic import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
