"""Gradient descent, Adam, and the links that chains share."""

import hypothesis.strategies as st
from cases import COSINE, Case

RATE = st.floats(1e-4, 1.0)
DECAY = st.floats(0.0, 0.999)

OPTIMIZERS = [
    Case("sgd", {"learning_rate": 0.1}),
    Case("sgd", {"learning_rate": 0.05, "momentum": 0.9}),
    Case("sgd", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    Case("sgd", {"momentum": 0.5}, COSINE),
    Case("adam", {"learning_rate": 0.1}),
    Case("adam", {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-4}),
    Case("adam", {"learning_rate": 0.1, "b1": 0.0}),
    Case("adam", {"learning_rate": 0.1, "nesterov": True}),
    Case("adam", {}, COSINE),
    Case("adamw", {"learning_rate": 0.1}),
    Case("adamw", {"learning_rate": 0.1, "weight_decay": 0.1, "nesterov": True}),
    Case("adamw", {"learning_rate": 0.1, "weight_decay": 0.1, "mask": {"a": True, "b": {"c": False, "d": True}}}),
    Case("adamw", {"weight_decay": 0.05}, COSINE),
]

LINKS = [
    Case("identity"),
    Case("scale", {"step_size": -0.3}),
    Case("scale_by_learning_rate", {"learning_rate": 0.3, "flip_sign": False}),
    Case("scale_by_learning_rate", {}, COSINE),
    Case("scale_by_adam", {"eps_root": 1e-8}),
    Case("scale_by_adam", {"b2": 0.9}),
    Case("trace", {"decay": 0.9}),
    Case("trace", {"decay": 0.9, "nesterov": True}),
    Case("add_decayed_weights", {"weight_decay": 0.1}),
    Case("add_decayed_weights", {"weight_decay": 0.1, "mask": {"a": False, "b": True}}),
    Case("clip_by_global_norm", {"max_norm": 1.0}),
    Case("clip_by_global_norm", {"max_norm": 1e6}),
]
