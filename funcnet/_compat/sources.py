"""Fewer files for the C++ compiler.

Inductor writes each CPU kernel into a file of its own, and starting the compiler, reading its headers and linking cost
more than most kernels do. Here the kernels of one graph share as many files as there are compilers at work.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Kernel = tuple[tuple[str, ...], str]  # the types of its arguments, and its source


class _Thread(threading.local):
    sharing = False


_thread = _Thread()
_installing = threading.Lock()

_UNKNOWN = "Inductor binds its kernels in another way than on the versions this was checked on"
_SOURCE = re.compile(r'\s*#include <[^>]+>\s*extern "C"\s+void\s+kernel\(')


@contextmanager
def shared_files() -> Iterator[None]:
    """Have the kernels of graphs that this thread compiles or loads in the block share files."""
    with _installing:
        _install()
    before, _thread.sharing = _thread.sharing, True
    try:
        yield
    finally:
        _thread.sharing = before


class _Template:
    """The parts of Inductor's Python binding of one kernel, of which one for several is put together."""

    def __init__(self, text: str, call: str) -> None:
        """Take it apart. Raises `ValueError` where it is not as on the versions that this was checked on."""
        self.head, function, rest = _split(text, "static PyObject* {entry_func}_py")
        body, table, rest = _split(rest, "static PyMethodDef py_methods[]")
        entry = re.search(r'\{\{\s*"\{entry_func\}".*?""\s*\}\},', rest, re.DOTALL)
        if entry is None or call.count("kernel(") != 1 or "{arg_len}" not in body or "{call_entry_func}" not in body:
            raise ValueError(_UNKNOWN)
        self.function, self.entry, self.call = function + body, entry[0], call
        self.table, self.tail = table + rest[: entry.start()], rest[entry.end() :]

    def file(self, kernels: Sequence[Kernel]) -> str:
        """The source of a module that has kernel `n` as `kernel_n`."""
        names = [f"kernel_{n}" for n in range(len(kernels))]
        sources = [source.replace("kernel(", f"{name}(", 1) for name, (_, source) in zip(names, kernels, strict=True)]
        functions = [
            self.function.format(entry_func=name, arg_len=len(types), call_entry_func=self._call(name, types))
            for name, (types, _) in zip(names, kernels, strict=True)
        ]
        entries = [self.entry.format(entry_func=name) for name in names]
        head, table, tail = (
            part.format(entry_func="kernel", extra_parse_arg="") for part in (self.head, self.table, self.tail)
        )
        return "\n".join([*sources, head, *functions, table, *entries, tail])

    def _call(self, name: str, types: Sequence[str]) -> str:
        parsed = [f"parse_arg<{kind.replace('const ', '')}>(args, {n})" for n, kind in enumerate(types)]
        return self.call.replace("kernel(", f"{name}(").format(", ".join(parsed))


def _split(text: str, at: str) -> tuple[str, str, str]:
    if text.count(at) != 1:
        raise ValueError(_UNKNOWN)
    return text.partition(at)


class _Group:
    """The kernels of one graph, compiled when the first of them is asked for."""

    def __init__(self, template: _Template, submit: Callable[..., Any]) -> None:
        self._template, self._submit = template, submit
        self._kernels: dict[Kernel, int] = {}
        self._functions: list[Any] = []

    def add(self, kernel: Kernel) -> Callable[[], Any]:
        """How to get the compiled kernel, once all are added."""
        n = self._kernels.setdefault(kernel, len(self._kernels))
        return lambda: self._load()[n]

    def _load(self) -> list[Any]:
        if not self._functions:
            from torch._inductor.async_compile import get_compile_threads
            from torch._inductor.codecache import CppPythonBindingsCodeCache

            kernels = list(self._kernels)
            files = shares([len(source) for _, source in kernels], get_compile_threads())
            loads = [
                CppPythonBindingsCodeCache.load_async(
                    self._template.file([kernels[n] for n in file]), submit_fn=self._submit
                )
                for file in files
            ]
            places = {n: (load, i) for file, load in zip(files, loads, strict=True) for i, n in enumerate(file)}
            self._functions = [getattr(load(), f"kernel_{i}") for load, i in (places[n] for n in range(len(kernels)))]
        return self._functions


def shares(sizes: Sequence[int], workers: int) -> list[list[int]]:
    """Positions in files of about the same size: as many as workers, but no more than half as many as kernels."""
    files: list[list[int]] = [[] for _ in range(max(1, min(workers, len(sizes) // 2)))]
    filled = [0] * len(files)
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        least = filled.index(min(filled))
        files[least].append(n)
        filled[least] += sizes[n]
    return [sorted(file) for file in files]


def _install() -> None:
    """Let Inductor's kernels meet `_Group`, once. Where it has changed, they stay as they are. Checked on 2.15.0."""
    try:
        from torch._inductor.async_compile import AsyncCompile, get_compile_threads
        from torch._inductor.codecache import CppPythonBindingsCodeCache, LambdaFuture

        alone: Any = AsyncCompile.cpp_pybinding
        if getattr(alone, "_funcnet", False):
            return
        template = _Template(CppPythonBindingsCodeCache.suffix_template, CppPythonBindingsCodeCache.call_entry_function)
    except (ImportError, AttributeError, ValueError):
        return

    def cpp_pybinding(self: Any, argtypes: list[str], source_code: str) -> Any:
        # With one worker Inductor compiles at once, and looks at no future.
        plain = _SOURCE.match(source_code) and source_code.count("kernel(") == source_code.count("#include") == 1
        if not _thread.sharing or not plain or get_compile_threads() <= 1:
            return alone(self, argtypes, source_code)
        group = self.__dict__.setdefault("_funcnet_group", _Group(template, self.submit))
        return LambdaFuture(group.add((tuple(argtypes), source_code)))

    cpp_pybinding._funcnet = True  # type: ignore[attr-defined]  # a function takes any attribute
    AsyncCompile.cpp_pybinding = cpp_pybinding  # type: ignore[method-assign]  # the purpose of this room
