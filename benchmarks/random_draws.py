"""Keyed draws against torch.rand, interleaved: `python benchmarks/random_draws.py`. Medians and quartiles."""

import statistics
import time
from collections.abc import Callable

import torch

from funcnet import jit, random


def paired(calls: dict[str, Callable[[], object]], seconds: float = 1.0) -> dict[str, tuple[float, float, float]]:
    """Quartiles in microseconds of each call, in rounds of one call each, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(), call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e6)
    return {name: tuple(statistics.quantiles(t, n=4)) for name, t in times.items()}


def main() -> None:
    k = random.key(0)
    for _ in range(80):  # after so many elements the eager draws are compiled as well
        random.uniform(k, (10**6,))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; microseconds: median (quartiles), ratio")
    for n in (10**3, 10**4, 10**5, 10**6):
        compiled = jit(lambda k, n=n: random.uniform(k, (n,)))
        rows = paired(
            {
                "torch.rand": lambda n=n: torch.rand(n),
                "uniform": lambda n=n: random.uniform(k, (n,)),
                "uniform, compiled": lambda c=compiled: c(k),
                "normal": lambda n=n: random.normal(k, (n,)),
            }
        )
        for name, (low, mid, high) in rows.items():
            print(f"{n:>8} {name:18s} {mid:9.1f} ({low:.1f} .. {high:.1f})  {mid / rows['torch.rand'][1]:.2f}")
    rows = paired(
        {
            "key": lambda: random.key(0),
            "split": lambda: random.split(k),
            "fold_in": lambda: random.fold_in(k, 3),
        }
    )
    for name, (low, mid, high) in rows.items():
        print(f"{name:27s} {mid:9.1f} ({low:.1f} .. {high:.1f})")


if __name__ == "__main__":
    main()
