"""Where in a program an operation is called: the line outside of torch and funcnet, and the submodule."""

import linecache
import os
import sys
from types import FrameType
from typing import NamedTuple

import torch
from torch import nn

import funcnet
from funcnet.model import Model
from funcnet.pure.skeleton import Loan

__all__ = ["Place", "here"]

_OURS = tuple(os.path.join(os.path.dirname(package.__file__ or ""), "") for package in (torch, funcnet))
_FUNCTIONAL = torch.nn.functional.__file__
_CALLS = {Model.apply.__code__, Model._run_inert.__code__}  # which hold the module that is lent


class Place(NamedTuple):
    """The place of a call."""

    file: str
    line: int
    function: str
    """The torch function that was called there, where it is one of `torch.nn.functional`."""
    module: str | None
    """The submodule's path in its model; None where the call is in none."""
    kind: str
    """The submodule's class."""

    def __str__(self) -> str:
        """The submodule, the line, and what stands there."""
        where = f"{_from_here(self.file)}:{self.line}"
        code = linecache.getline(self.file, self.line).strip()
        module = ""
        if self.module is not None:
            module = f"in submodule {self.module!r} ({self.kind}), " if self.module else f"in the model ({self.kind}), "
        return f"{module}at {where}" + (f": {code}" if code else "")


def _from_here(file: str) -> str:
    """The path of a file as one would type it; its name where it is none, such as `<stdin>`."""
    try:
        return os.path.relpath(file) if os.path.exists(file) else file
    except ValueError:  # Windows has no way from one drive to another
        return file


def here() -> Place | None:
    """The place of the operation that is running; None where none of its callers is outside of torch and funcnet."""
    frame: FrameType | None = sys._getframe(1)
    function, modules, owner = "", list[nn.Module](), None
    file, line = "", 0
    while frame is not None and not (file and owner):
        code = frame.f_code
        name = code.co_filename
        if not file:
            if name == _FUNCTIONAL:
                function = code.co_name
            elif not name.startswith(_OURS):
                file, line = name, frame.f_lineno
        if code in _CALLS:
            loan = frame.f_locals.get("loan")
            owner = loan.body if isinstance(loan, Loan) else None
        elif code.co_varnames[:1] == ("self",) and owner is None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, nn.Module):
                modules.append(caller)
        frame = frame.f_back
    found = next((module for module in modules if owner is not None and id(module) in owner.paths), None)
    path = None if found is None or owner is None else owner.paths[id(found)]
    return Place(file, line, function, path, type(found).__name__) if file else None
