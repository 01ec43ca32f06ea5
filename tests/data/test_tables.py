"""CSV files: Python's csv module as a reference, and only the documented error for anything else."""

import csv
import io
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from funcnet import data
from funcnet.data import DataError


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


cells = st.floats(allow_nan=False, allow_infinity=False, width=64)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda word: word.strip().lower() not in {"", "na", "n/a", "nan", "null", "none", "?"}
)


def no_number(word):
    try:
        float(word)
    except ValueError:
        return True
    return "_" in word


@given(
    rows=st.lists(st.tuples(cells, words.filter(no_number), cells), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_csv_wrote_is_read(tmp_path_factory, rows, delimiter, ends):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends)
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    path = written(tmp_path_factory.getbasetemp(), text.getvalue())
    table = data.read_table(path)
    first, kinds, last = zip(*rows, strict=True)
    assert torch.equal(table.columns["a"], torch.tensor(first, dtype=torch.float64))
    assert torch.equal(table.columns["c"], torch.tensor(last, dtype=torch.float64))
    vocabulary = table.vocabularies["b"]
    assert list(vocabulary) == sorted({kind.strip() for kind in kinds})
    assert [vocabulary[code] for code in table.columns["b"]] == [kind.strip() for kind in kinds]


def test_a_file_without_names_numbers_its_columns(tmp_path):
    path = written(tmp_path, "M,1.5,2\nF,2.5,3\n\n")
    table = data.read_table(path)
    assert list(table.columns) == ["0", "1", "2"]
    assert table.vocabularies == {"0": ("F", "M")}
    assert table.columns["1"].tolist() == [1.5, 2.5]


def test_header_and_categories_can_be_told(tmp_path):
    path = written(tmp_path, "1990,1991\n1,7\n2,7\n")
    assert data.read_table(path).columns["0"].tolist() == [1990, 1, 2]
    table = data.read_table(path, header=True, categorical=["1991"])
    assert table.columns["1990"].tolist() == [1, 2]
    assert table.vocabularies == {"1991": ("7",)}
    words_only = written(tmp_path, "red,small\nblue,large\n")
    assert len(data.read_table(words_only).columns["red"]) == 1
    assert len(data.read_table(words_only, header=False).columns["0"]) == 2


def test_categories_can_be_told_by_place(tmp_path):
    path = written(tmp_path, "code,size\n1,5\n2,7\n")
    table = data.read_table(path, categorical=["0"])
    assert table.vocabularies == {"code": ("1", "2")}
    assert data.read_table(path, categorical=["-1"]).vocabularies == {"size": ("5", "7")}


def test_only_the_columns_that_are_asked_for_are_looked_at(tmp_path):
    path = written(tmp_path, "a,b,c,d\n1,,x,7\n2,?,3,8\n4,1,5,8\n")
    with pytest.raises(DataError, match=r"line 2: column 'b' has no value"):
        data.read_table(path)
    table = data.read_table(path, columns=["-1", "a"], categorical=["d"])
    assert {name: column.tolist() for name, column in table.columns.items()} == {"-1": [0, 1, 1], "a": [1, 2, 4]}
    assert table.vocabularies == {"-1": ("7", "8")}
    with pytest.raises(DataError, match=r"line 2: column 'b' has no value"):
        data.read_table(path, columns=["b"])
    assert data.read_table(path, columns=["b"], skip_bad=True).dropped == (2, 3)
    with pytest.raises(DataError, match=r"no column 'e'"):
        data.read_table(path, columns=["a", "e"])


def test_a_byte_order_mark_and_quotes_are_no_part_of_a_name(tmp_path):
    path = written(tmp_path, '\ufeff"size, cm",name\n3,"a\nb"\n')
    table = data.read_table(path)
    assert list(table.columns) == ["size, cm", "name"]
    assert table.vocabularies["name"] == ("a\nb",)


@pytest.mark.parametrize("gap", ["", "NA", "n/a", "NaN", " null ", "None", "?"])
def test_missing_values_are_named_or_left_out(tmp_path, gap):
    path = written(tmp_path, f"a,b\n1,2\n3,{gap}\n5,6\n")
    with pytest.raises(DataError, match=r"table\.csv, line 3: column 'b' has no value.*skip_bad=True"):
        data.read_table(path)
    table = data.read_table(path, skip_bad=True)
    assert table.columns["a"].tolist() == [1, 5]
    assert table.dropped == (3,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv is empty"),
        ("\n \n", r"table\.csv is empty"),
        ("a,b\n", r"has no rows of data"),
        ("a,b\n1,2\n3\n", r"line 3: 1 cells, and the first row has 2, split at ','"),
        ("a,a\n1,2\n", r"line 1: the columns are named \['a', 'a'\].*header=False"),
        ("a,\n1,2\n", r"every column needs a name of its own"),
        ("a\n1\n2\n3x\n", r"line 4: column 'a' has '3x', which is no finite number.*categorical=\['a'\]"),
        ("a\n1\n2\ninf\n", r"line 4: column 'a' has 'inf', which is no finite number"),
        ("a\n1\n2\n1e999\n", r"line 4: column 'a' has '1e999'"),
        ("a\n1\n2\n1_0\n", r"line 4: column 'a' has '1_0'"),
        ('a\n"1\n', r"line 2: unexpected end of data"),
        (b"a\n1\n\xff\n", r"line 3: byte 4 is no UTF-8"),
        ("a,b\n1,?\n", r"line 2: column 'b' has no value"),
    ],
)
def test_broken_tables_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        data.read_table(written(tmp_path, text))


def test_columns_and_files_that_are_not_there(tmp_path):
    path = written(tmp_path, "colour,size\nred,1\n")
    with pytest.raises(DataError, match=r"no column 'color'; near names: colour"):
        data.read_table(path, categorical=["color"])
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read: No such file"):
        data.read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"has no rows of data but 1 with missing values"):
        data.read_table(written(tmp_path, "a\nNA\n"), skip_bad=True)


def fuzz(folder, content, skip_bad):
    path = written(folder, content)
    try:
        table = data.read_table(path, skip_bad=skip_bad)
    except DataError:
        return
    assert len({len(column) for column in table.columns.values()}) == 1
    for name, column in table.columns.items():
        assert all(math.isfinite(number) for number in column.tolist())
        assert name not in table.vocabularies or column.max() < len(table.vocabularies[name])


PIECES = st.sampled_from(
    [b",", b"\n", b'"', b"1", b"2.5", b"a", b"b c", b"?", b"NA", b"\r", b";", b"\t", b"\0", b"\xff"]
)
CASES = {"content": st.binary(max_size=30) | st.lists(PIECES, max_size=30).map(b"".join), "skip_bad": st.booleans()}


@settings(max_examples=300)
@given(**CASES)
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, skip_bad):
    fuzz(tmp_path_factory.getbasetemp(), content, skip_bad)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(**CASES)
def test_ten_thousand_files_are_read_or_refused(tmp_path_factory, content, skip_bad):
    fuzz(tmp_path_factory.getbasetemp(), content, skip_bad)
