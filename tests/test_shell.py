"""What the commands have in common: help with examples, and JSON for machines."""

import json
import re
import shlex

import pytest

from funcnet import shell
from funcnet.cli import main

COMMANDS = ("demo", "summary", "check", "bench", "train", "resume", "evaluate", "predict", "find-lr")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_the_parser_takes(command, capsys, monkeypatch):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    examples = re.findall(rf"^  funcnet ({command}\b.*)$", text[text.index("examples:") :], re.M)
    assert examples
    from funcnet.cli import _parser

    for example in examples:
        assert callable(_parser().parse_args(shlex.split(example)).run)


def found(capsys, *arguments, status=0):
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_summary_for_machines(capsys):
    plain = found(capsys, "summary", "torch.nn:Linear(4, 2)", "--input", "3,4", "--train")
    assert (plain["count"], plain["forward"], plain["rows"][0]["formula"]) == (10, 2 * 3 * 4 * 2, "(4 + 1)*2")
    assert plain["rows"][0]["shapes"] == [[3, 2]]


def test_check_for_machines(capsys):
    plain = found(capsys, "check", "torch.nn:Linear(4, 2)", "--input", "3,4", "--only", "pure")
    assert (plain["ok"], [result["status"] for result in plain["results"]]) == (True, ["passed"])


def test_bench_for_machines(capsys):
    assert "mlp" in found(capsys, "bench", "--list")
    plain = found(capsys, "bench", "overhead", "--smoke", "--ways", "module")
    assert set(plain["results"][0]["cells"]) == {"module"}


def test_numbers_that_json_lacks_are_null(capsys):
    shell.show({"a": [float("nan"), 1.5], "b": (float("inf"),)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": [None]}


def test_messages_are_one_line(capsys):
    assert shell.stop("two\nlines", 3) == 3
    assert capsys.readouterr().err == "funcnet: two lines\n"
