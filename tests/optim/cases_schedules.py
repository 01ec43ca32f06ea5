"""Schedules."""

from cases import Case

SCHEDULES = [
    Case("constant_schedule", {"value": 0.3}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 5}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 5, "transition_begin": 3}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 0}),
    Case("cosine_decay_schedule", {"init_value": 0.5, "decay_steps": 9}),
    Case("cosine_decay_schedule", {"init_value": 0.5, "decay_steps": 9, "alpha": 0.2, "exponent": 2.0}),
    Case(
        "warmup_cosine_decay_schedule",
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 4, "decay_steps": 12, "end_value": 0.1},
    ),
    Case(
        "warmup_cosine_decay_schedule",
        {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 5, "exponent": 3.0},
    ),
]
