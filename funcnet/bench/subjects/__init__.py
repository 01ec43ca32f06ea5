"""Everything that `funcnet bench` knows by name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from funcnet import specs
from funcnet.bench import ways
from funcnet.bench.own import own_step
from funcnet.bench.subject import Setting, Subject
from funcnet.bench.subjects import ensembles, functions, overhead
from funcnet.bench.workloads import WORKLOADS, Workload

__all__ = ["SUBJECTS", "maker", "subject"]

Maker = Callable[[Setting], Subject]


def _workload(way: Callable[[Workload, Setting], Subject], name: str, setting: Setting) -> Subject:
    machine = "smoke" if setting.smoke else "gpu" if setting.device.type == "cuda" else "cpu"
    return way(WORKLOADS[name](machine), setting)


SUBJECTS: Mapping[str, Maker] = {
    **{name: partial(_workload, ways.training, name) for name in WORKLOADS},
    **{f"{name}-inference": partial(_workload, ways.inference, name) for name in WORKLOADS},
    **overhead.SUBJECTS,
    **ensembles.SUBJECTS,
    **functions.SUBJECTS,
}
"""By name: from where and how to the subject."""


def subject(text: str, setting: Setting) -> Subject:
    """The subject of a name, or of a user's own `package.module:make_step`.

    Raises:
        SpecError: there is none, or the user's own cannot be made.
    """
    made = maker(text)(setting)
    if setting.autocast is None or "autocast" in made.settings:
        return made
    return replace(made, settings={**made.settings, "autocast": "not used"})


def maker(text: str) -> Maker:
    """What makes the subject of a name, of which nothing but the name is looked at.

    Raises:
        SpecError: there is none.
    """
    if text in SUBJECTS:
        return SUBJECTS[text]
    if ":" in text:
        specs.function(text)
        return lambda setting: own_step(text, setting.device)
    near = get_close_matches(text, SUBJECTS, 3, 0.5)
    more = f" Near names: {', '.join(near)}." if near else ""
    raise specs.SpecError(f"there is no workload {text!r}.{more} `funcnet bench --list` names all of them.")
