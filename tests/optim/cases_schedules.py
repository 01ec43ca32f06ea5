"""Schedules."""

from cases import Case

SCHEDULES = [
    Case("constant_schedule", {"value": 0.3}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 5}),
    Case("linear_schedule", {"init_value": 0.1, "end_value": 1.0, "transition_steps": 5, "transition_begin": 3}),
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
    Case("polynomial_schedule", {"init_value": 1.0, "end_value": 0.1, "power": 2, "transition_steps": 8}),
    Case(
        "polynomial_schedule",
        {"init_value": 0.2, "end_value": 1.0, "power": 0.5, "transition_steps": 6, "transition_begin": 4},
    ),
    Case(
        "polynomial_schedule",
        {"init_value": 0.2, "end_value": 1.0, "power": 3, "transition_steps": 6, "transition_begin": -2},
    ),
    Case("exponential_decay", {"init_value": 0.5, "transition_steps": 3, "decay_rate": 0.7}),
    Case("exponential_decay", {"init_value": 0.5, "transition_steps": 3, "decay_rate": 0.7, "staircase": True}),
    Case(
        "exponential_decay",
        {"init_value": 0.5, "transition_steps": 2, "decay_rate": 0.5, "transition_begin": 3, "end_value": 0.1},
    ),
    Case("exponential_decay", {"init_value": 0.5, "transition_steps": 2, "decay_rate": 1.5, "end_value": 2.0}),
    Case("exponential_decay", {"init_value": 0.5, "transition_steps": 2, "decay_rate": 0.0}),
    Case("piecewise_constant_schedule", {"init_value": 2.0}),
    Case("piecewise_constant_schedule", {"init_value": 2.0, "boundaries_and_scales": {7: 0.5, 3: 0.1, 10: 0.0}}),
    Case("piecewise_interpolate_schedule", {"interpolate_type": "linear", "init_value": 2.0}),
    Case(
        "piecewise_interpolate_schedule",
        {"interpolate_type": "linear", "init_value": 2.0, "boundaries_and_scales": {8: 0.1, 3: 0.5}},
    ),
    Case(
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cosine", "init_value": 2.0, "boundaries_and_scales": {0: 3.0, 4: 0.1, 9: 2.0}},
    ),
    Case("linear_onecycle_schedule", {"transition_steps": 12, "peak_value": 0.4}),
    Case(
        "linear_onecycle_schedule",
        {"transition_steps": 9, "peak_value": 0.4, "pct_start": 0.5, "pct_final": 0.5, "div_factor": 4.0},
    ),
    Case("cosine_onecycle_schedule", {"transition_steps": 12, "peak_value": 0.4}),
    Case(
        "cosine_onecycle_schedule",
        {"transition_steps": 10, "peak_value": 0.4, "pct_start": 0.05, "div_factor": 4.0, "final_div_factor": 7.0},
    ),
    Case("warmup_constant_schedule", {"init_value": 0.1, "peak_value": 0.9, "warmup_steps": 4}),
    Case(
        "warmup_exponential_decay_schedule",
        {"init_value": 0.1, "peak_value": 0.9, "warmup_steps": 4, "transition_steps": 2, "decay_rate": 0.6},
    ),
    Case(
        "warmup_exponential_decay_schedule",
        {
            "init_value": 0.1,
            "peak_value": 0.9,
            "warmup_steps": 3,
            "transition_steps": 2,
            "decay_rate": 0.6,
            "transition_begin": 2,
            "staircase": True,
            "end_value": 0.3,
        },
    ),
    Case(
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5},
                {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 1, "decay_steps": 6, "end_value": 0.05},
            ]
        },
    ),
]
