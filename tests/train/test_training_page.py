"""docs/training.md: what it shows runs as it stands, block after block."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, "docs/training.md", "exec"), names)
    history = names["history"]
    assert len(history) == names["epochs"] + 2  # with those of the run before, and those that it stopped short of
    assert names["manifest"].position["history"] == history[: names["manifest"].position["epoch"]]
    tested = [entry["test_accuracy"] for entry in history if "test_accuracy" in entry]
    assert max(tested) > 0.95
    assert len(tested) == 1 + 8 + tested.index(max(tested))  # the patience
    assert (tmp_path / "run" / "log.csv").read_text().startswith("step,epoch,loss,accuracy,grad_norm,test_loss")
    assert int(names["best"].name.removeprefix("step-")) % names["length"] == 0
