"""The error of a checkpoint that cannot be used."""

from os import PathLike

__all__ = ["CheckpointError", "StrPath"]

StrPath = str | PathLike[str]


class CheckpointError(ValueError):
    """A checkpoint, or a file of weights, is absent, incomplete, changed, or of a format that this version lacks."""

    __module__ = "funcnet.checkpoint"
