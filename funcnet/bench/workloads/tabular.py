"""Networks over plain features: a multilayer perceptron, and a recommender with embedding tables."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from funcnet import random
from funcnet.bench.workloads.workload import Workload, bce_with_logits, classified, cross_entropy, pick

__all__ = ["Recommender", "clicks", "dlrm", "mlp", "perceptron"]


def perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths, with ReLU in between."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Recommender(nn.Module):
    """Dense features and categories to one logit, through the dot products of their vectors (as DLRM has them).

    Args:
        tables: how many categorical features there are.
        rows: how many values each has.
        width: of an embedding, and of what the bottom perceptron makes of the dense features.
        bottom: widths of the bottom perceptron before its last, the number of dense features first.
        top: widths of the top perceptron's hidden layers.
    """

    pairs: Tensor

    def __init__(self, tables: int, rows: int, width: int, bottom: tuple[int, ...], top: tuple[int, ...]) -> None:
        """Build the tables and both perceptrons."""
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(rows, width) for _ in range(tables)])
        self.bottom = nn.Sequential(perceptron((*bottom, width)), nn.ReLU())
        vectors = tables + 1
        below = torch.tril_indices(vectors, vectors, -1)
        self.register_buffer("pairs", below[0] * vectors + below[1], persistent=False)
        self.top = perceptron((width + len(self.pairs), *top, 1))

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        """Logits `(batch,)` for dense features `(batch, bottom[0])` and categories `(batch, tables)`."""
        low = self.bottom(dense)
        looked_up = [table(categories[:, i]) for i, table in enumerate(self.embeddings)]
        vectors = torch.stack([low, *looked_up], 1)
        dots = (vectors @ vectors.mT).flatten(1).index_select(1, self.pairs)
        logits: Tensor = self.top(torch.cat([low, dots], 1)).squeeze(1)
        return logits


def clicks(key: Tensor, *, batch: int, features: int, tables: int, rows: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Dense features, categories, and whether each example was clicked."""
    one, two, three = random.split(key, 3)
    dense, categories = random.normal(one, (batch, features)), random.randint(two, (batch, tables), 0, rows).long()
    return (dense, categories), random.bernoulli(three, 0.5, (batch,)).float()


def mlp(machine: str) -> Workload:
    """784-512-256-10, batch 64, on either machine: what is measured is overhead."""
    sizes = {"widths": (784, 512, 256, 10), "batch": 64}
    tiny = {"widths": (12, 16, 5), "batch": 8}
    settings = pick(machine, "mlp", {"cpu": sizes, "gpu": sizes, "smoke": tiny})
    widths, size = settings["widths"], settings["batch"]
    return Workload(
        "mlp",
        partial(perceptron, widths),
        partial(classified, shape=(size, widths[0]), classes=widths[-1]),
        cross_entropy,
        size,
        "image",
        "funcnet.bench.workloads.in_jax.tabular:mlp",
        settings=settings,
    )


def dlrm(machine: str) -> Workload:
    """Eight tables, thirteen dense features."""
    shape = {"tables": 8, "rows": 10_000, "width": 16, "bottom": (13, 64), "top": (64, 32), "batch": 256}
    large = {"tables": 8, "rows": 200_000, "width": 64, "bottom": (13, 512, 256), "top": (512, 256), "batch": 8192}
    tiny = {"tables": 3, "rows": 50, "width": 8, "bottom": (5, 12), "top": (16,), "batch": 16}
    settings = pick(machine, "dlrm", {"cpu": shape, "gpu": large, "smoke": tiny})
    sizes = {name: value for name, value in settings.items() if name != "batch"}
    tables, rows, size = settings["tables"], settings["rows"], settings["batch"]
    return Workload(
        "dlrm",
        partial(Recommender, **sizes),
        partial(clicks, batch=size, features=settings["bottom"][0], tables=tables, rows=rows),
        bce_with_logits,
        size,
        "example",
        "funcnet.bench.workloads.in_jax.tabular:dlrm",
        "bce_with_logits",
        settings,
    )
