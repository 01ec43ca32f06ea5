"""A recurrent network over sequences of tokens."""

from functools import partial

from torch import Tensor, nn

from funcnet.bench.workloads.language import passages
from funcnet.bench.workloads.workload import Workload, cross_entropy, pick

__all__ = ["Recurrent", "lstm"]


class Recurrent(nn.Module):
    """Tokens to logits of the next one, through an LSTM.

    Args:
        layers: of the LSTM.
        width: of a token's vector and of the LSTM's state.
        vocabulary: how many tokens there are.
    """

    def __init__(self, layers: int, width: int, vocabulary: int) -> None:
        """Build the layers."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(batch, length, vocabulary)` for int64 tokens `(batch, length)`."""
        logits: Tensor = self.head(self.lstm(self.tokens(tokens))[0])
        return logits


def lstm(machine: str) -> Workload:
    """Two layers of 128, on either machine: what is measured is overhead."""
    sizes = {"layers": 2, "width": 128, "vocabulary": 512, "batch": 16, "length": 64}
    tiny = {"layers": 2, "width": 12, "vocabulary": 32, "batch": 3, "length": 6}
    settings = pick(machine, "lstm", {"cpu": sizes, "gpu": sizes, "smoke": tiny})
    size, length, vocabulary = settings["batch"], settings["length"], settings["vocabulary"]
    return Workload(
        "lstm",
        partial(Recurrent, settings["layers"], settings["width"], vocabulary),
        partial(passages, batch=size, length=length, vocabulary=vocabulary),
        cross_entropy,
        size,
        "sequence",
        "funcnet.bench.workloads.in_jax.recurrent:lstm",
        settings=settings,
    )
