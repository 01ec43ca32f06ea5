"""Optimizers and links of optax.contrib."""

import hypothesis.strategies as st
from cases import COSINE, Case

RATE = st.floats(1e-3, 1.0)
DECAY = st.floats(0.5, 0.999)
MEANS = {"learning_rate": RATE, "b1": DECAY, "b2": DECAY}
MASK = {"a": True, "b": {"c": False, "d": True}}
ROOT = 1e-5  # optax takes the root of the step count in float32
LINE = 1e-5  # optax's straight lines are of float32 for an int32 count: 2.5e-6 of an update; in float64 5e-13
SINGULAR = 1e-4  # optax finds singular vectors in float32
FULL = {"empty": "optax divides by the number of rows"}
BASES = {"smooth": "derivatives take the singular vectors for constants"}
# Drawn gradients belong to no function, and one over their curvature multiplies rounding: in 10 draws of 25 steps for
# each tree optax's float32 is off from its float64 by up to 23 times the largest element (medians up to 4e-2), as ours
# is, while in float64 the two agree to 3e-9.
WILD = {"single": "optax's own float32 is nowhere near its float64"}
FREE = "it seeks its own learning rate, from far below, for longer than the contract lasts"


class Contrib(Case):
    """A case of the room, or of the top level; a wrapper's learning rate is that of what it wraps."""

    def build(self, library, **overrides):
        if not self.schedule and "learning_rate" not in self.kwargs and "learning_rate" in overrides:
            rate = {"learning_rate": overrides.pop("learning_rate")}
            inner = {k: v for k, v in self.kwargs.items() if isinstance(v, Case)}
            overrides |= {k: v._replace(kwargs=v.kwargs | rate) for k, v in inner.items()}
        room = "contrib" if hasattr(library.contrib, self.name) else ""
        return Case.build(self._replace(room=room), library, **overrides)


class Difference(Contrib):
    """A rule that subtracts what may be nearly equal: in float32 that costs two digits.

    Parameters, 1 and b2, or a gradient's step and the decay's.
    """

    single = 1e-3


TURNED = Contrib("MuonDimensionNumbers", {"reduction_axis": 1, "output_axis": 0})
SMOOTH = {"learning_rate": Case("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 300})}
SGD = Contrib("sgd", {"learning_rate": 0.1})

OPTIMIZERS = [
    Contrib("acprop", {"learning_rate": 0.1, "eps_root": 1e-8}, drawn=MEANS),
    Contrib("acprop", {"learning_rate": 0.1, "b1": 0.5, "b2": 0.9, "weight_decay": 0.1, "mask": MASK}),
    Contrib("acprop", {"eps": 1e-3, "eps_root": 1e-4}, COSINE),
    Contrib("ademamix", {"learning_rate": 0.1}, drawn=MEANS | {"b3": DECAY, "alpha": st.floats(0.0, 10.0)}),
    Contrib("ademamix", {"learning_rate": 0.1, "b3": 0.9, "alpha": 2.0, "eps_root": 1e-4, "weight_decay": 0.1}),
    Contrib("ademamix", {"weight_decay": 0.1, "mask": MASK}, COSINE),
    Contrib(
        "simplified_ademamix",
        {"learning_rate": 0.01},
        tuned={"b1": 0.9, "learning_rate": 0.02},
        drawn=MEANS | {"alpha": st.floats(0.0, 10.0)},
    ),
    Contrib("simplified_ademamix", {"learning_rate": 0.01, "b1": 0.9, "alpha": 2.0, "eps": 1e-3, "weight_decay": 0.1}),
    Difference("adopt", {"learning_rate": 0.1}, drawn=MEANS),
    Difference("adopt", {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "nesterov": True, "use_clipping": False}),
    Difference("adopt", {"nesterov": True}, COSINE),
    Difference("cocob", {"learning_rate": 1.0}, drawn={"learning_rate": RATE, "alpha": st.floats(1.0, 200.0)}),
    Difference("cocob", {"learning_rate": 1.0, "alpha": 10.0, "eps": 1e-2, "weight_decay": 0.1}),
    Contrib(  # at a constant rate of 1 it circles the parabola's foot
        "dadapt_adamw",
        {"learning_rate": 1.0},
        tuned={"estim_lr0": 1e-2, "learning_rate": 0.3},
        drawn={"learning_rate": RATE},
    ),
    Contrib(
        "dadapt_adamw",
        {"learning_rate": 1.0, "betas": (0.8, 0.9), "eps": 1e-3, "estim_lr0": 1e-2, "weight_decay": 0.1},
        tuned={"learning_rate": 0.3},
    ),
    Contrib("dadapt_adamw", {"estim_lr0": 0.1}, COSINE),
    Contrib("dog", {"learning_rate": 1.0}, drawn={"learning_rate": RATE}, without={"convergence": FREE}),
    Contrib("dog", {"learning_rate": 1.0, "init_step": ("distance", 0.1), "weight_decay": 0.1}),
    Contrib("dog", {"init_step": ("learning_rate", 0.1)}, COSINE, without={"convergence": FREE}),
    Contrib("dowg", {"learning_rate": 1.0}, drawn={"learning_rate": RATE}),
    Difference("dowg", {"learning_rate": 1.0, "init_estim_sq_dist": 0.1, "eps": 1e-3, "weight_decay": 0.1}),
    Contrib("galore", {"learning_rate": 0.1}, rtol=SINGULAR, without=BASES),
    Contrib(
        "galore",
        {"learning_rate": 0.1, "rank": 1, "update_proj_gap": 50, "scale": 0.5},  # the next signs are open in optax
        tuned=SMOOTH | {"update_proj_gap": 10, "scale": 1.0},
        rtol=SINGULAR,
        without=BASES,
    ),
    Contrib(
        "galore",
        {"base_optimizer": Contrib("trace", {"decay": 0.9}), "weight_decay": 0.1},
        COSINE,
        rtol=SINGULAR,
        without=BASES,
    ),
    Contrib("lbfgs", {"learning_rate": 0.1, "linesearch": None, "memory_size": 3}, without=WILD),
    Contrib("lbfgs", {"linesearch": None, "memory_size": 2}, COSINE, without=WILD),
    Difference("madgrad", {"learning_rate": 0.1}, drawn={"learning_rate": RATE, "momentum": DECAY}, rtol=ROOT),
    Difference("madgrad", {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-3}, rtol=ROOT),
    Difference("madgrad", {}, COSINE, rtol=ROOT),
    Difference("mechanize", {"base_optimizer": SGD}, tuned={"s_init": 0.1}),
    Difference(
        "mechanize",
        {"base_optimizer": Contrib("adam", {"learning_rate": 0.1}), "weight_decay": 0.1, "s_init": 0.1, "num_betas": 3},
    ),
    Difference("momo", {"learning_rate": 0.1}, extra=("value",), drawn={"learning_rate": RATE, "beta": DECAY}),
    Difference(
        "momo",
        {"learning_rate": 1.0, "weight_decay": 0.1, "lower_bound": 0.1},
        extra=("value",),
        tuned={"lower_bound": 0.0},
    ),
    Difference(
        "momo", {"adapt_lower_bound": True}, COSINE, extra=("value",), tuned={"learning_rate": 0.1, "beta": 0.5}
    ),
    Difference("momo_adam", {"learning_rate": 0.1}, extra=("value",), drawn=MEANS),
    Difference(
        "momo_adam",
        {"learning_rate": 1.0, "weight_decay": 0.1, "lower_bound": 0.1},
        extra=("value",),
        tuned={"lower_bound": 0.0},
    ),
    Difference(
        "momo_adam", {"adapt_lower_bound": True, "eps": 1e-3}, COSINE, extra=("value",), tuned={"learning_rate": 0.02}
    ),
    Contrib("muon", {"learning_rate": 0.1}, tuned=SMOOTH, drawn={"learning_rate": RATE, "beta": DECAY}, without=FULL),
    Contrib(
        "muon",
        {"learning_rate": 0.1, "ns_coeffs": "dion", "nesterov": False, "weight_decay": 0.1, "consistent_rms": 0.2},
    ),
    Contrib(
        "muon",
        {"learning_rate": 0.1, "adaptive": True, "preconditioning": "aol", "ns_steps": 3},
        tuned=SMOOTH,
        without=FULL,
    ),
    Contrib(
        "muon",
        {"learning_rate": 0.1, "preconditioning": "spectral", "adam_weight_decay": 0.1},
        tuned=SMOOTH,
        without=FULL,
    ),
    Contrib("muon", {"preconditioning": "schatten", "adam_learning_rate": 0.1}, COSINE, without=FULL),
    Contrib(
        "muon",
        {"learning_rate": 0.1, "muon_weight_dimension_numbers": {"a": TURNED, "b": None}},
        tuned=SMOOTH | {"muon_weight_dimension_numbers": None},
    ),
    Contrib("prodigy", {"learning_rate": 1.0}, tuned={"estim_lr0": 1e-2}, drawn={"learning_rate": RATE}),
    Difference(
        "prodigy",
        {"learning_rate": 1.0, "betas": (0.8, 0.9), "beta3": 0.9, "estim_lr0": 1e-2, "weight_decay": 0.1},
        tuned={"learning_rate": 0.3},  # at a constant rate of 1 it circles as well
    ),
    Contrib(
        "prodigy",
        {"estim_lr0": 0.1, "safeguard_warmup": True, "estim_lr_coef": 0.5},
        COSINE,
        tuned={"learning_rate": 1.0},
    ),
    Contrib("sam", {"optimizer": SGD, "adv_optimizer": Contrib("sgd", {"learning_rate": 0.05})}),
    Contrib(
        "sam",
        {
            "optimizer": Contrib("adam", {"learning_rate": 0.1}),
            "adv_optimizer": Contrib("sgd", {"learning_rate": 0.05, "momentum": 0.5}),
            "sync_period": 3,
            "reset_state": False,
        },
    ),
    Difference("schedule_free", {"base_optimizer": SGD, "learning_rate": 0.1, "b1": 0.5, "weight_lr_power": 1.0}),
    Difference("schedule_free", {"base_optimizer": Contrib("adam", {"learning_rate": 0.1, "b1": 0.0})}, COSINE),
    Difference("schedule_free_sgd", {"learning_rate": 0.1}, drawn={"learning_rate": RATE, "b1": DECAY}),
    Difference("schedule_free_sgd", {"learning_rate": 0.1, "warmup_steps": 5, "weight_decay": 0.1}, rtol=LINE),
    Difference("schedule_free_adamw", {"learning_rate": 0.1}, drawn=MEANS),
    Difference("schedule_free_adamw", {"learning_rate": 0.1, "warmup_steps": 5, "weight_decay": 0.1}, rtol=LINE),
    Contrib(
        "sophia",
        {"learning_rate": 0.1, "hessian_diagonal_fn": Contrib("identity"), "update_interval": 3, "clip_threshold": 3.0},
        drawn={"b1": DECAY, "b2": DECAY, "gamma": st.floats(0.1, 2.0), "eps": st.floats(0.1, 1.0)},
        without={"convergence": "the gradient stands for the curvature"},
    ),
    Contrib(
        "sophia",
        {"hessian_diagonal_fn": Contrib("identity"), "gamma": 1.0, "eps": 0.5, "clip_threshold": None},
        COSINE,
        without={"convergence": "the gradient stands for the curvature"},
    ),
    Contrib("split_real_and_imaginary", {"inner": Contrib("adam", {"learning_rate": 0.1})}),
]

LINKS = [
    Contrib("normalize"),
    Contrib("reduce_on_plateau", {"factor": 0.5, "patience": 2, "rtol": 0.5, "cooldown": 1}, extra=("value",)),
    Contrib("reduce_on_plateau", {"patience": 1, "atol": 2.0, "min_scale": 0.05}, extra=("value",)),
    Contrib("reduce_on_plateau", {"patience": 2, "rtol": 0.9, "accumulation_size": 3}, extra=("value",)),
    Contrib("scale_by_acprop"),
    Contrib("scale_by_ademamix", {"b3": 0.99}),
    Difference("scale_by_adopt", {"b2": 0.9}),
    Difference("scale_by_cocob"),
    Contrib("scale_by_galore", {"rank": 2}, rtol=SINGULAR, without=BASES),
    Contrib("scale_by_lbfgs", without=WILD),
    Contrib("scale_by_lbfgs", {"memory_size": 1}, without=WILD),
    Difference("scale_by_madgrad", {"learning_rate": 0.1}, rtol=ROOT),
    Contrib("scale_by_simplified_ademamix", {"alpha": 1.0}),
]
