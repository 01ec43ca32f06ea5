"""The families with running means, signs, trust ratios and step sizes of their own."""

import warnings

import hypothesis.strategies as st
from cases import COSINE, Case

from funcnet import optim

DECAY = st.floats(0.0, 0.99)
EPS = st.floats(1e-8, 1e-2)
MASK = {"a": True, "b": {"c": False, "d": True}}


ENDING = optim.cosine_decay_schedule(0.1, 300)  # for steps of one length, which circle the minimum
STUCK = {"convergence": "its steps shrink with the parameters, so that a scalar never changes its sign; see test_links"}
FLOAT32 = {"smooth": "it keeps a float32, which finite differences cannot see through; in float64 in test_links"}


class Vectors(Case):
    """A rule that optax has for leaves with axes and elements: a 0-dim leaf is given to it as a vector."""

    def build(self, library, **overrides):
        rule = super().build(library, **overrides)
        if library.__name__ == "funcnet.optim":
            return rule
        import jax

        def widened(tree):
            return jax.tree.map(lambda x: x.reshape(x.shape or (1,)) if x.size else jax.numpy.zeros(1), tree)

        def shaped(tree, like):
            return jax.tree.map(lambda x, y: x.reshape(y.shape) if y.size else y, tree, like)

        def with_momentum(state, f):
            if hasattr(state, "nu"):
                return state._replace(nu=f(state.nu))
            return (with_momentum(state[0], f), *state[1:])

        def init(params):
            return with_momentum(rule.init(widened(params)), lambda nu: shaped(nu, params))

        def update(updates, state, params):
            moved, state = rule.update(widened(updates), with_momentum(state, widened), widened(params))
            return shaped(moved, updates), with_momentum(state, lambda nu: shaped(nu, params))

        return library.GradientTransformation(init, update)


class Keyed(Case):
    """A rule whose state holds a key, which is a type of its own in jax and an int32 tensor here."""

    def build(self, library, **overrides):
        rule = super().build(library, **overrides)
        if library.__name__ == "funcnet.optim":
            return rule
        import jax

        def is_key(leaf):
            return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)

        def opened(state):
            return jax.tree.map(lambda x: jax.random.key_data(x).view("int32") if is_key(x) else x, state)

        def closed(state):
            return jax.tree.map(lambda x: jax.random.wrap_key_data(x.view("uint32")) if x.shape == (2,) else x, state)

        def update(updates, state, params):
            updates, state = rule.update(updates, closed(state), params)
            return updates, opened(state)

        return library.GradientTransformation(lambda params: opened(rule.init(params)), update)


class Cancelling(Case):
    """A rule that subtracts what may be nearly equal: in float32 that costs two digits, here and in optax."""

    single = 1e-3


class Deprecated(Case):
    """A rule that optax warns of."""

    def build(self, library, **overrides):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return super().build(library, **overrides)


OPTIMIZERS = [
    # it divides by a difference, which little of the past makes small
    Cancelling(
        "adabelief",
        {"learning_rate": 0.1},
        drawn={"b1": st.floats(0.1, 0.99), "b2": st.floats(0.5, 0.99)},
    ),
    Case("adabelief", {"learning_rate": 0.1, "eps": 1e-4, "eps_root": 1e-6, "nesterov": True}),
    Case("adabelief", {}, COSINE),
    Case("adadelta", {"learning_rate": 1.0}, drawn={"rho": DECAY, "eps": EPS}, tuned={"eps": 1e-2}),
    Case(
        "adadelta",
        {"learning_rate": 0.5, "weight_decay": 0.1, "weight_decay_mask": MASK},
        tuned={"learning_rate": 1.0, "eps": 1e-2, "weight_decay_mask": None},
    ),
    Case("adadelta", {"weight_decay": 0.0}, COSINE, tuned={"learning_rate": 1.0, "eps": 1e-2}),
    Case("adagrad", {"learning_rate": 0.1}, drawn={"eps": EPS}, tuned={"learning_rate": 0.5}),
    Case("adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.0}, tuned={"learning_rate": 0.5}),
    Case("adagrad", {}, COSINE, tuned={"learning_rate": 0.5}),
    Case("adamax", {"learning_rate": 0.1}, drawn={"b1": DECAY, "b2": DECAY, "eps": EPS}),
    Case("adamax", {}, COSINE),
    Case("adamaxw", {"learning_rate": 0.1, "weight_decay": 0.1, "mask": MASK}),
    Case("adamaxw", {"weight_decay": 0.05}, COSINE),
    Case("nadam", {"learning_rate": 0.1}),
    Case("nadamw", {"learning_rate": 0.1, "weight_decay": 0.1}),
    Case("amsgrad", {"learning_rate": 0.1}, drawn={"b1": DECAY, "b2": DECAY, "eps": EPS}),
    Case("amsgrad", {"learning_rate": 0.1, "bias_correction_mu": False, "bias_correction_nu": False, "eps_root": 1e-6}),
    Case("amsgrad", {}, COSINE),
    Case("adan", {"learning_rate": 0.1}, drawn={"b1": DECAY, "b2": DECAY, "b3": DECAY}),
    Case("adan", {"learning_rate": 0.1, "b1": 0.9, "eps_root": 0.0, "weight_decay": 0.1, "mask": MASK}),
    Case("adan", {}, COSINE, tuned={"b1": 0.9}),
    # near b2 = 0 the mean of squares is what is left of two equal numbers
    Case("yogi", {"learning_rate": 0.1}, drawn={"b1": DECAY, "b2": st.floats(0.5, 0.99), "eps": EPS}),
    Case("yogi", {}, COSINE),
    Case("radam", {"learning_rate": 0.1}, tuned={"b2": 0.99}),
    Case("radam", {"learning_rate": 0.1, "b2": 0.9, "threshold": 4.5, "nesterov": True, "eps_root": 1e-6}),
    Case("radam", {"b2": 0.5}, COSINE, tuned={"b2": 0.99}),
    Case("rmsprop", {"learning_rate": 0.01}, drawn={"decay": DECAY, "eps": EPS}),
    Case("rmsprop", {"learning_rate": 0.01, "eps_in_sqrt": False, "bias_correction": True, "initial_scale": 0.1}),
    # a variance is a difference of squares
    Cancelling(
        "rmsprop",
        {"learning_rate": 0.01, "centered": True},
        drawn={"decay": st.floats(0.1, 0.99), "eps": EPS},
    ),
    Cancelling("rmsprop", {"learning_rate": 0.01, "centered": True, "bias_correction": True, "eps": 1e-3}),
    Case("rmsprop", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    Case("rmsprop", {}, COSINE),
    Case("lion", {"learning_rate": 0.01}, drawn={"b1": DECAY, "b2": DECAY}, tuned={"learning_rate": ENDING}),
    Case("lion", {"learning_rate": 0.01, "weight_decay": 0.1, "mask": MASK}, tuned={"learning_rate": ENDING}),
    Case("lion", {}, COSINE),
    Case("sign_sgd", {"learning_rate": 0.01}),
    Case("sign_sgd", {}, COSINE),
    Case("signum", {"learning_rate": 0.01, "beta": 0.8}),
    Case("signum", {}, COSINE),
    Keyed("noisy_sgd", {"learning_rate": 0.1, "key": 3}, tuned={"eta": 1e-4}),
    Keyed("noisy_sgd", {"eta": 0.1, "gamma": 0.3, "key": 4}, COSINE, tuned={"eta": 1e-4}),
    Case("novograd", {"learning_rate": 0.1}, drawn={"b1": DECAY, "b2": DECAY}),
    Case("novograd", {"learning_rate": 0.1, "b1": 0.5, "eps_root": 1e-6, "weight_decay": 0.1}),
    Case("novograd", {}, COSINE),
    Case("optimistic_gradient_descent", {"learning_rate": 0.1}),
    Case("optimistic_gradient_descent", {"alpha": 0.8, "beta": 0.5}, COSINE),
    Deprecated("optimistic_adam", {"learning_rate": 0.1}),
    Deprecated("optimistic_adam", {"learning_rate": 0.1, "optimism": 0.02, "nesterov": False}),
    Case("optimistic_adam_v2", {"learning_rate": 0.1}),
    Case("optimistic_adam_v2", {"alpha": 0.5, "beta": 0.3, "b1": 0.8}, COSINE),
    Case("polyak_sgd", extra=("value",), without={"learning rate": "it finds its own"}),
    Case(
        "polyak_sgd",
        {"max_learning_rate": 0.2, "scaling": 0.5, "f_min": 0.1, "eps": 1e-3, "variant": "sps+"},
        extra=("value",),
        tuned={"max_learning_rate": 1.0, "f_min": 0.0},
        without={"learning rate": "it finds its own"},
    ),
    Case("rprop", {"learning_rate": 0.01}, tuned={"learning_rate": 0.1}),
    Case(
        "rprop", {"learning_rate": 0.1, "eta_minus": 0.4, "eta_plus": 1.5, "min_step_size": 0.05, "max_step_size": 0.2}
    ),
    Vectors("sm3", {"learning_rate": 0.1}, tuned={"learning_rate": 0.5}),
    Vectors("sm3", {"learning_rate": 0.1, "momentum": 0.0}, tuned={"learning_rate": 0.5}),
    Case("fromage", {"learning_rate": 0.01}, tuned={"learning_rate": ENDING, "min_norm": 1.0}),
    Case("fromage", {"min_norm": 0.1}, COSINE, tuned={"min_norm": 1.0}),
    Case("lamb", {"learning_rate": 0.05}, drawn={"b1": DECAY, "b2": DECAY, "eps": EPS}, without=STUCK),
    Case("lamb", {"weight_decay": 0.1, "mask": MASK}, COSINE, without=STUCK),
    Case("lars", {"learning_rate": 1.0}, tuned={"learning_rate": 10.0}),
    Case(
        "lars",
        {"weight_decay": 0.1, "weight_decay_mask": MASK, "trust_ratio_mask": MASK, "eps": 1e-3, "nesterov": True},
        COSINE,
        tuned={"learning_rate": 10.0, "weight_decay_mask": True, "trust_ratio_mask": True},
    ),
    # Optax takes the decay in float32.
    Case("adafactor", {"learning_rate": 0.1}, rtol=1e-6),
    Case(
        "adafactor",
        {"learning_rate": 0.1, "min_dim_size_to_factor": 2, "momentum": 0.9},
        rtol=1e-6,
        without=FLOAT32,
    ),
    Case(
        "adafactor",
        {
            "min_dim_size_to_factor": 2,
            "decay_rate": 0.5,
            "multiply_by_parameter_scale": False,
            "clipping_threshold": None,
            "weight_decay_rate": 0.01,
        },
        COSINE,
        rtol=1e-6,
        tuned={"weight_decay_rate": None},
    ),
]

LINKS = [
    Cancelling("ema", {"decay": 0.9}),  # a mean that crosses zero
    Case("ema", {"decay": 0.5, "debias": False, "accumulator_dtype": None}),
    Case("scale_by_belief"),
    Case("scale_by_adadelta", {"rho": 0.5, "eps": 1e-3}),
    Case("scale_by_rss"),
    Case("scale_by_adamax", {"b2": 0.9}),
    Case("scale_by_amsgrad", {"b2": 0.9}),
    Case("scale_by_adan", {"b1": 0.5}),
    Cancelling("scale_by_yogi", {"eps_root": 1e-6, "initial_accumulator_value": 1e-3}),  # means that cross zero
    Cancelling("scale_by_radam", {"b2": 0.95}),  # means that cross zero
    Case("scale_by_rms", {"bias_correction": True}),
    Cancelling("scale_by_stddev", {"eps_in_sqrt": False, "initial_scale": 1.0}),  # as rmsprop, centred
    Case("scale_by_lion", {"mode": "smooth", "smooth_beta": 2.0}),
    Case("scale_by_lion", {"mode": "refined"}),
    Case("scale_by_sign"),
    Keyed("add_noise", {"eta": 0.1, "gamma": 0.55, "key": 5}),
    Case("scale_by_novograd", {"weight_decay": 0.1}),
    Case("scale_by_optimistic_gradient", {"alpha": 0.5, "beta": 2.0}),
    Case("scale_by_polyak", {"eps": 0.1}, extra=("value",)),
    Case("scale_by_rprop", {"learning_rate": 0.1}),
    Vectors("scale_by_sm3", {"b1": 0.5, "b2": 0.9}),
    Case("scale_by_trust_ratio"),
    Case("scale_by_trust_ratio", {"min_norm": 1.0, "trust_coefficient": 0.5, "eps": 0.1}),
    Case("scale_by_factored_rms", {"min_dim_size_to_factor": 2}, rtol=1e-6),
    Case("scale_by_factored_rms", {"factored": False, "step_offset": -2, "epsilon": 1e-3}, rtol=1e-6),
    Case("scale_by_distance_over_gradients", {"reps_rel": 0.1, "global_scale": -1.0}, without=FLOAT32),
    Case("clip", {"max_delta": 0.3}, drawn={"max_delta": st.floats(0.0, 2.0)}),
    Case("clip_by_block_rms", {"threshold": 0.5}, drawn={"threshold": st.floats(0.1, 2.0)}),
    Case("adaptive_grad_clip", {"clipping": 0.1, "eps": 0.5}),
    Case("centralize"),
    Case("normalize_by_update_norm", {"scale_factor": 2.0}),
    Case("scale_by_param_block_norm"),
    Case("scale_by_param_block_norm", {"min_scale": 2.0}),
    Case("scale_by_param_block_rms"),
    Case("zero_nans"),
    Case("keep_params_nonnegative"),
]
