"""Checkpoints: a tree of tensors as a folder with a safetensors file and a JSON manifest, complete or not there.

The rooms: `files` writes whole or not at all, `tensorfile` is the safetensors format and `text` its JSON, `structure`
says what a tree is made of, `manifest` what a checkpoint says of itself, `saving` and `loading` do both ways,
and `matching` says what of a file fits a tree. `foreign` reads what others wrote. `manager` keeps the checkpoints of a
run, with a `lock` and a `writer`.
"""

from .errors import CheckpointError
from .foreign import adopt, load_state_dict
from .loading import load
from .manager import Checkpoints, best, latest
from .manifest import Manifest, TensorInfo, read_manifest
from .matching import Report
from .saving import save

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Manifest",
    "Report",
    "TensorInfo",
    "adopt",
    "best",
    "latest",
    "load",
    "load_state_dict",
    "read_manifest",
    "save",
]
