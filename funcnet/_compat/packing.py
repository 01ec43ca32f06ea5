"""The functions under torch's packed sequences, and a way to compute with real numbers in the midst of tracing."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils import _python_dispatch

# What `torch.nn.utils.rnn.pack_padded_sequence` and `pad_packed_sequence` call. Checked on 2.15.0.
pack_padded: Any = torch._C._VariableFunctions._pack_padded_sequence
pad_packed: Any = torch._C._VariableFunctions._pad_packed_sequence


def untraced() -> AbstractContextManager[Any]:
    """A context in which tensors are made and read as they are, not traced or faked. Checked on 2.15.0."""
    return _python_dispatch._disable_current_modes()
