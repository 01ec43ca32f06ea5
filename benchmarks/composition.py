"""The composition matrix: layers by transforms, funcnet and raw `torch.func`, each cell against a slow reference.

    python benchmarks/composition.py [--jobs 2] [--layers "LSTM*,Linear"] [--transforms "jit*"] [--verbose] [--json OUT]

The reference is the module itself under plain `torch.autograd` and Python loops (`matrix/kits.py` says how, and
`matrix/judge.py` when a cell is right). Raw torch has no keys: its cells and their references draw from the global
generator after the same seed, and where they drew other numbers nothing is shown.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from matrix import report
from matrix.cells import CELLS
from matrix.judge import Verdict, judge
from matrix.layers import LAYERS


def main(arguments: list[str] | None = None) -> int:
    """Run the matrix and print it; 0 where every cell of funcnet is right, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes, one row each")
    parser.add_argument("--layers", default="*", help="names of rows, as globs with commas")
    parser.add_argument("--transforms", default="*", help="names of columns, likewise")
    parser.add_argument("--draws", type=int, default=6, help="random nestings a row")
    parser.add_argument("--inductor", action="store_true", help="compile with Inductor instead of aot_eager")
    parser.add_argument("--no-raw", action="store_true", help="leave raw torch.func out")
    parser.add_argument("--verbose", action="store_true", help="say why a cell is wrong, as soon as it is known")
    parser.add_argument("--json", type=Path, help="write every cell there, and the tables beside it as .md")
    args = parser.parse_args(arguments)
    rows, columns = _chosen(args.layers, list(LAYERS), "layer"), _chosen(args.transforms, list(CELLS), "transform")
    ways = ("funcnet",) if args.no_raw else ("funcnet", "raw")
    backend = "inductor" if args.inductor else "aot_eager"
    results: report.Results = {}
    tasks = [(row, columns, ways, backend, args.draws) for row in rows]
    for row, cells in zip(rows, _run(tasks, args.jobs), strict=True):
        results[row] = cells
        print(f"{row}: " + ", ".join(report.tally(results, way, row) for way in ways), flush=True)
        if args.verbose:
            print("\n".join(report.reasons_of(row, cells, "wrong", "draws", "error")), flush=True)
    tables = report.markdown(results, ways, backend)
    print("\n" + tables)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report.plain(results, backend), indent=1) + "\n")
        args.json.with_suffix(".md").write_text(tables)
    return 0 if report.all_right(results, "funcnet") else 1


def _chosen(globs: str, names: list[str], what: str) -> list[str]:
    # A name may have a comma: what is a name as a whole is taken so.
    patterns = [globs] if globs in names else globs.split(",")
    chosen = [name for name in names if any(fnmatchcase(name, pattern.strip()) for pattern in patterns)]
    if not chosen:
        raise SystemExit(f"no {what} is called {globs!r}; there are {', '.join(names)}")
    return chosen


Task = tuple[str, list[str], tuple[str, ...], str, int]


def _row(task: Task) -> dict[str, dict[str, Verdict]]:
    name, columns, ways, backend, draws = task
    torch.set_num_threads(1)
    return {
        way: {column: judge(LAYERS[name], column, way == "raw", backend, draws) for column in columns} for way in ways
    }


def _run(tasks: list[Task], jobs: int) -> Iterator[dict[str, dict[str, Verdict]]]:
    # A process for each row: an error inside torch.compile may leave a level of forward mode behind, which spoils what
    # comes after. They fork from one that has imported everything.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["matrix.judge"])
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        yield from pool.map(_row, tasks)


if __name__ == "__main__":
    sys.exit(main())
