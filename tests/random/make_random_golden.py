"""Write golden/jax.npz: what jax draws, for tests that run without it. `python tests/random/make_random_golden.py`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

PATH = Path(__file__).parent / "golden" / "jax.npz"


def main() -> None:
    key = jax.random.PRNGKey(42)
    r, out = jax.random, {}
    for bits in (8, 16, 32):
        out[f"bits/{bits}"] = r.bits(key, (5, 7), f"uint{bits}")
    out["split"], out["split/shape"] = r.split(key, 5), r.split(key, (2, 3))
    out["fold_in"] = jnp.stack([r.fold_in(key, i) for i in (0, 1, 2**31 - 1, 2**32 - 1)])
    for name in ("float16", "bfloat16", "float32"):
        out[f"uniform/{name}"] = r.uniform(key, (40,), name).astype("float32")
        out[f"normal/{name}"] = r.normal(key, (40,), name).astype("float32")
    out["uniform/bounds"] = r.uniform(key, (200,), minval=-0.37, maxval=11.3)
    for name in ("exponential", "gumbel", "laplace", "cauchy", "logistic", "maxwell"):
        out[name] = getattr(r, name)(key, (40,))
    out["bernoulli"] = r.bernoulli(key, 0.3, (40,))
    out["rademacher"] = r.rademacher(key, (40,))
    for name in ("int8", "int16", "int32", "uint8"):
        out[f"randint/{name}"] = r.randint(key, (40,), 3, 120, name)
    out["randint/wide"] = r.randint(key, (40,), -(2**31), 2**31 - 1)
    out["permutation"] = r.permutation(key, 100)
    out["permutation/rows"] = r.permutation(key, jnp.arange(30).reshape(10, 3))
    out["permutation/independent"] = r.permutation(key, jnp.arange(30).reshape(10, 3), 1, independent=True)
    p = jnp.array([0.1, 0.2, 0.3, 0.4])
    out["choice"] = r.choice(key, 7, (40,))
    out["choice/p"] = r.choice(key, 4, (40,), p=p)
    out["choice/without"] = r.choice(key, 9, (4,), replace=False)
    out["choice/p without"] = r.choice(key, 4, (3,), replace=False, p=p)
    out["categorical"] = r.categorical(key, jnp.log(p), shape=(40,))
    out["truncated_normal"] = r.truncated_normal(key, -0.5, 2.0, (40,))
    out["orthogonal"] = r.orthogonal(key, 4)
    with jax.enable_x64(True):
        out["bits/64"] = r.bits(key, (9,), "uint64")
        out["uniform/float64"] = r.uniform(key, (40,), "float64")
        out["randint/int64"] = r.randint(key, (40,), -5, 10**15, "int64")
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, jax_version=jax.__version__, **{k: np.asarray(v) for k, v in out.items()})


if __name__ == "__main__":
    main()
