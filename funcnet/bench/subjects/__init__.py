"""Everything that `funcnet bench` knows by name."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial

import torch

from funcnet import specs
from funcnet.bench import ways
from funcnet.bench.own import own_step
from funcnet.bench.subject import Subject
from funcnet.bench.subjects import ensembles, functions, overhead
from funcnet.bench.workloads import WORKLOADS, Workload

__all__ = ["SUBJECTS", "subject"]

Maker = Callable[[torch.device, torch.dtype | None], Subject]


def _workload(
    way: Callable[[Workload, torch.device, torch.dtype | None], Subject],
    name: str,
    device: torch.device,
    autocast: torch.dtype | None,
) -> Subject:
    return way(WORKLOADS[name]("gpu" if device.type == "cuda" else "cpu"), device, autocast)


SUBJECTS: Mapping[str, Maker] = {
    **{name: partial(_workload, ways.training, name) for name in WORKLOADS},
    **{f"{name}-inference": partial(_workload, ways.inference, name) for name in WORKLOADS},
    **overhead.SUBJECTS,
    **ensembles.SUBJECTS,
    **functions.SUBJECTS,
}
"""By name: from a device and the dtype of autocast to the subject."""


def subject(text: str, device: torch.device, autocast: torch.dtype | None = None) -> Subject:
    """The subject of a name, or of a user's own `package.module:make_step`.

    Raises:
        SpecError: there is none.
    """
    if text in SUBJECTS:
        return SUBJECTS[text](device, autocast)
    if ":" in text:
        return own_step(text, device)
    near = get_close_matches(text, SUBJECTS, 3, 0.5)
    more = f" Near names: {', '.join(near)}." if near else ""
    raise specs.SpecError(f"there is no workload {text!r}.{more} `funcnet bench --list` names all of them.")
