"""Logs hold what was written, over resumes and cut files."""

import csv
import io
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcnet.train.logs import ConsoleLog, CSVLog, JSONLinesLog, TensorBoardLog

NAMES = st.sampled_from(["loss", "accuracy", "lr", "grad_norm/fc.weight", 'odd, "name"'])
ROWS = st.lists(st.dictionaries(NAMES, st.floats(-1e9, 1e9), min_size=1, max_size=4), min_size=1, max_size=8)


def table(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@given(ROWS, st.data())
def test_a_run_that_goes_on_reads_as_one_that_never_stopped(tmp_path_factory, rows, data):
    folder = tmp_path_factory.mktemp("logs")
    stop = data.draw(st.integers(0, len(rows)))
    back = data.draw(st.integers(0, stop))
    for kind, read in ((CSVLog, table), (JSONLinesLog, lines)):
        path = folder / kind.__name__ / "log"
        first = kind(path)
        for step, row in enumerate(rows[:stop], start=1):
            first.write(step, row)
        first.close()
        second = kind(path)
        second.resume(back, False)
        for step, row in enumerate(rows[back:], start=back + 1):
            second.write(step, row)
        second.close()
        found = [{name: float(value) for name, value in row.items()} for row in read(path)]
        assert found == [{"step": step, **row} for step, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("kind", [CSVLog, JSONLinesLog])
def test_a_row_is_on_disk_when_it_is_written(tmp_path, kind):
    log = kind(tmp_path / "new" / "log")
    log.write(1, {"loss": 0.5})
    assert "0.5" in (tmp_path / "new" / "log").read_text()
    log.close()


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    log = JSONLinesLog(path)
    log.resume(5, False)
    log.write(6, {"loss": 1.0})
    log.close()
    assert [row["step"] for row in lines(path)] == [1, 6]


def test_json_has_no_nan(tmp_path):
    log = JSONLinesLog(tmp_path / "log.jsonl")
    log.write(1, {"loss": math.nan, "norm": math.inf})
    log.close()
    assert lines(tmp_path / "log.jsonl") == [{"step": 1, "loss": "nan", "norm": "inf"}]


def test_the_console_is_the_stream_of_the_moment(monkeypatch):
    log, stream = ConsoleLog(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.write(3, {"loss": 0.123456, "grad_norm/fc.weight": 1.0})
    assert stream.getvalue() == "step 3  loss 0.1235\n"


def test_tensorboard_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("funcnet.train.logs.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install tensorboard\. Without it CSVLog"):
        TensorBoardLog(tmp_path)


@pytest.mark.parametrize("cut", ["2", "2,1.", "2,1.5", '2,"1', "2,1.5\r"])
def test_a_row_cut_short_is_left_out(tmp_path, cut):
    path = tmp_path / "log.csv"
    path.write_bytes(f"step,loss\r\n1,2.0\r\n{cut}".encode())
    log = CSVLog(path)
    log.resume(2, False)
    log.write(3, {"loss": 1.0})
    log.close()
    assert path.read_bytes() == b"step,loss\r\n1,2.0\r\n3,1.0\r\n"


def test_a_table_whose_names_were_cut_short_begins_anew(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,lo")
    log = CSVLog(path)
    log.resume(1, False)
    log.write(1, {"loss": 1.0})
    log.close()
    assert path.read_bytes() == b"step,loss\r\n1,1.0\r\n"


@pytest.mark.parametrize("kind", [CSVLog, JSONLinesLog])
@pytest.mark.parametrize("within", [False, True])
def test_the_end_of_an_epoch_comes_again_only_where_the_epoch_goes_on(tmp_path, kind, within):
    path = tmp_path / "log"
    log = kind(path)
    for step, more in ((4, {"epoch": 7}), (6, {}), (6, {"epoch": 8}), (8, {})):
        log.write(step, {"loss": 0.5, **more})
    log.close()
    log.resume(6, within)
    read = table(path) if kind is CSVLog else lines(path)
    found = [(int(row["step"]), int(row.get("epoch", 0))) for row in read]
    assert found == [(4, 7), (6, 0)] + [(6, 8)] * (not within)
