"""Data by name: what each source gives, and what an unknown or broken one says."""

import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from PIL import Image
from sklearn.datasets import load_digits

from funcnet import data, random
from funcnet.data import DataError, synthetic


def rows_of(found):
    return torch.cat([found.train["x"], found.test["x"]]), torch.cat([found.train["label"], found.test["label"]])


def whole(found):
    """What holds for every data set."""
    assert json.loads(json.dumps(found.info))["source"]
    assert found.train.keys() == found.test.keys() == {"x", "label"}
    assert len(found.train["x"]) == len(found.train["label"]) > 0
    assert found.train["x"].shape[1:] == found.test["x"].shape[1:]
    if found.kind == "classification":
        for part in (found.train, found.test):
            data.check_labels(part["label"], len(found.classes))
    else:
        assert found.train["label"].dtype == torch.float32
    assert found.statistics.mean.shape == found.train["x"].shape[1:2]
    return found


def test_digits_are_those_of_scikit_learn_with_classes_in_proportion():
    found = whole(data.load("digits", key=random.key(1)))
    x, label = rows_of(found)
    bunch = load_digits()
    assert sorted(map(tuple, x.flatten(1).mul(16).int().tolist())) == sorted(
        map(tuple, bunch.data.astype(int).tolist())
    )
    counts = torch.bincount(torch.from_numpy(bunch.target))
    assert torch.equal(label.bincount(), counts)
    assert ((found.test["label"].bincount() - 0.2 * counts).abs() <= 1).all()
    again = data.load("digits", key=random.key(1))
    assert torch.equal(again.test["x"], found.test["x"])
    assert not torch.equal(data.load("digits", key=random.key(2)).test["label"], found.test["label"])
    assert len(data.load("digits", test=0.5).test["label"]) == round(0.5 * 1797)


@given(
    kind=st.sampled_from(["classification", "regression", "images"]), n=st.integers(20, 60), seed=st.integers(0, 2**31)
)
def test_synthetic_data_follows_its_options_and_its_key(kind, n, seed):
    more = {
        "classification": "&features=3&classes=2",
        "regression": "&noise=0",
        "images": "&size=8&channels=2&classes=3",
    }
    name = f"synthetic:{kind}?n={n}{more[kind]}"
    found = whole(data.load(name, key=random.key(seed)))
    x, label = rows_of(found)
    assert x.shape == (n, *{"classification": (3,), "regression": (8,), "images": (2, 8, 8)}[kind])
    if kind != "regression":
        assert label.bincount().max() - label.bincount().min() <= 1
    again = data.load(name, key=random.key(seed))
    assert torch.equal(again.train["x"], found.train["x"])
    assert not torch.equal(data.load(name, key=random.key(seed + 1)).train["x"], found.train["x"])


def test_classes_are_no_size_of_a_row():
    rows, classes = synthetic.draw(random.key(0), "classification", {"n": "50000", "features": "2", "classes": "25000"})
    assert rows["x"].shape == (50_000, 2)
    assert classes == 25_000


def test_synthetic_classes_can_be_told_apart():
    for name in ("synthetic:classification", "synthetic:images"):
        found = data.load(name)
        scaled = [part["x"].flatten(1).float() for part in (found.train, found.test)]
        means = torch.stack([scaled[0][found.train["label"] == i].mean(0) for i in range(len(found.classes))])
        guessed = torch.cdist(scaled[1], means).argmin(1)
        assert (guessed == found.test["label"]).float().mean() > 0.9


@pytest.fixture
def pictures(tmp_path):
    for part, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.randint(random.key(10 * label + i), (8, 6, 3), 0, 256).to(torch.uint8)
                Image.fromarray(pixels.numpy()).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_a_folder_has_its_own_test_set_or_part_of_itself(pictures):
    found = whole(data.load(f"folder:{pictures}"))
    assert found.classes == ("cat", "dog")
    assert (len(found.train["x"]), len(found.test["x"])) == (10, 4)
    assert found.train["x"].shape[1:] == (3, 8, 6)
    divided = whole(data.load(f"folder:{pictures}/train", size=4))
    assert (len(divided.train["x"]), len(divided.test["x"])) == (8, 2)
    assert divided.test["label"].bincount().tolist() == [1, 1]
    assert divided.train["x"].shape[1:] == (3, 4, 4)


def test_a_broken_picture_is_named_or_skipped(pictures):
    broken = pictures / "val" / "dog" / "1.png"
    broken.write_text("nothing")
    with pytest.raises(DataError, match=r"val/dog/1\.png cannot be used"):
        data.load(f"folder:{pictures}")
    found = whole(data.load(f"folder:{pictures}", skip_bad=True))
    assert list(found.info["skipped"]) == [str(broken)]
    assert len(found.test["x"]) == 3
    (pictures / "val" / "cow").mkdir()
    with pytest.raises(DataError, match=r"other classes than cat, dog: cow is new"):
        data.load(f"folder:{pictures}", skip_bad=True)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{i},{'red' if i % 3 else 'blue'},{i % 2},{0.5 * i}" for i in range(20)]
    path.write_text("\n".join(["size,colour,odd,weight", *lines]))
    return path


def test_a_table_predicts_a_column_from_the_others(table):
    found = whole(data.load(f"csv:{table}#weight"))
    assert found.kind == "regression"
    assert found.info["features"] == ["size", "colour=blue", "colour=red", "odd"]
    assert found.info["columns"] == [("size", None), ("colour", "blue"), ("colour", "red"), ("odd", None)]
    assert found.info["header"] is None
    x, label = rows_of(found)
    assert len(found.test["x"]) == 4
    assert torch.equal(label, 0.5 * x[:, 0])
    assert torch.equal(x[:, 1], (x[:, 0] % 3 == 0).float())
    assert torch.equal(x[:, 2], 1 - x[:, 1])
    torch.testing.assert_close(found.statistics.mean, found.train["x"].mean(0))
    colours = whole(data.load(f"csv:{table}#colour"))
    assert (colours.kind, colours.classes) == ("classification", ("blue", "red"))
    odd = whole(data.load(f"csv:{table}#odd?kind=classification"))
    assert odd.classes == ("0", "1")
    x, label = rows_of(odd)
    assert torch.equal(label, x[:, 0].long() % 2)
    table.write_text("y,x\n" + "\n".join(f"{y},{i}" for i in range(10) for y in (-3, 20190101, 20190102, 0.123456789)))
    dates = whole(data.load(f"csv:{table}#y?kind=classification"))
    assert dates.classes == ("-3", "0.123456789", "20190101", "20190102")


def test_a_target_by_its_place(table):
    found = data.load(f"csv:{table}#weight")
    last = data.load(f"csv:{table}#-1?header=yes")
    assert last.info["header"] is True
    assert torch.equal(last.train["x"], found.train["x"])


def test_a_table_with_gaps_lists_the_lines_it_leaves_out(table):
    table.write_text(table.read_text() + "\n?,red,0,1\n")
    with pytest.raises(DataError, match=r"line 22: column 'size' has no value"):
        data.load(f"csv:{table}#weight")
    found = whole(data.load(f"csv:{table}#weight", skip_bad=True))
    assert found.info["skipped"] == [f"{table}, line 22"]


def test_text_is_cut_in_two_in_its_order(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be, or not to bé " * 10)
    found = data.load(f"text:{path}")
    assert found.kind == "language"
    assert found.classes == data.vocabulary(path.read_text())
    tokens = torch.cat([found.train["token"], found.test["token"]])
    assert data.decode(tokens, found.classes) == path.read_text()
    assert len(found.test["token"]) == 20
    by_bytes = data.load(f"text:{path}?by=bytes", test=0.5)
    assert len(by_bytes.train["token"]) == len(by_bytes.test["token"]) == 105
    assert data.decode(by_bytes.train["token"]).startswith("to be, or not to bé to")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst", r"'minst' names no data: near names: mnist\. The sources are digits"),
        ("xyzzy", r"'xyzzy' names no data: there are digits, mnist"),
        ("mnist:here", r"write mnist alone"),
        ("folder", r"write folder:PATH"),
        ("csv", r"write csv:PATH#target"),
        ("synthetic:imges", r"synthetic:imges is no kind of synthetic data; near names: images"),
        ("synthetic:images?sise=3", r"synthetic:images has no option 'sise'; near names: size"),
        ("synthetic:images?n=-3", r"n is '-3'; it is a whole number from 1 on"),
        ("synthetic:images?n=2.5", r"n is '2\.5'; it is a whole number"),
        ("synthetic:images?noise=nan", r"noise is 'nan'; it is a number from 0 on"),
        ("synthetic:images?n=9999999&size=9999", r"would have .* numbers; the most is 2,147,483,648"),
        ("synthetic:images?n=1&size=20000&channels=6", r"would have 26,400,000,000 numbers"),
        ("synthetic:images?n=1&size=100&classes=999999", r"would have 10,000,000,000 numbers"),
        ("synthetic:classification?n=1&features=99999&classes=99999", r"would have 9,999,900,000 numbers"),
        ("synthetic:regression?n=1", r"has 1 rows, of which test=0\.2 leaves none for the test set"),
        ("text:/nowhere?in=bytes", r"text has no option 'in'; there are by"),
        ("text:/nowhere?by=words", r"by characters or by bytes, and not by 'words'"),
        ("text:/nowhere", r"/nowhere cannot be read: No such file"),
        ("folder:/nowhere", r"/nowhere cannot be read: No such file"),
        ("csv:/nowhere#x?kind=clusters", r"kind is classification or regression"),
        ("csv:/nowhere#x", r"/nowhere cannot be read: No such file"),
    ],
)
def test_names_of_nothing_are_explained(name, message):
    with pytest.raises(DataError, match=message):
        data.load(name)


def test_files_without_a_source_and_targets_that_are_not_there(table):
    with pytest.raises(DataError, match=r"write text:.*table\.csv or csv:.*table\.csv#target for this file"):
        data.load(str(table))
    with pytest.raises(DataError, match=r"write folder:"):
        data.load(str(table.parent))
    with pytest.raises(DataError, match=r"does not say what to predict\. Write csv:.*#weight, or another of .*colour"):
        data.load(f"csv:{table}")
    with pytest.raises(DataError, match=r"no column 'color'; near names: colour"):
        data.load(f"csv:{table}#color")
    with pytest.raises(DataError, match=r"'colour' has categories, such as 'blue'"):
        data.load(f"csv:{table}#colour?kind=regression")
    with pytest.raises(ValueError, match=r"test is 1\.0; it is the share"):
        data.load("digits", test=1.0)
    with pytest.raises(ValueError, match=r"size is 3, and 'digits' has pictures of a size of its own"):
        data.load("digits", size=3)
    table.write_text("weight\n1\n2\n")
    with pytest.raises(DataError, match=r"has no column but 'weight'"):
        data.load(f"csv:{table}#weight")
    table.write_text("short")
    with pytest.raises(DataError, match=r"has 5 tokens, too few to hold some out"):
        data.load(f"text:{table}", test=0.05)


def test_statistics_of_pixels_and_features():
    pixels = random.randint(random.key(0), (7, 3, 4, 5), 0, 256).to(torch.uint8)
    scaled = pixels.double() / 255
    for x in (pixels, scaled.float()):
        found = data.statistics(x)
        torch.testing.assert_close(found.mean, scaled.mean((0, 2, 3)).float())
        torch.testing.assert_close(found.std, scaled.std((0, 2, 3), correction=0).float())
    with pytest.raises(ValueError, match=r"x has shape \(7,\); statistics takes pictures"):
        data.statistics(torch.arange(7.0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, -1]), r"labels: row 2 has the label -1, and there are 3 classes, 0 to 2"),
        (torch.tensor([3, 4]), r"row 0 has the label 3"),
        (torch.tensor([0.0]), r"torch.float32 of shape \(1,\); classes are integers"),
        (torch.tensor([[0]]), r"of shape \(1, 1\)"),
    ],
)
def test_labels_out_of_range_are_named(labels, message):
    with pytest.raises(DataError, match=message):
        data.check_labels(labels, 3)
    data.check_labels(torch.tensor([2, 0], dtype=torch.uint8), 3)


@pytest.mark.parametrize(("train", "test"), [("train", "valid"), ("Train", "Test"), ("TRAIN", None)])
def test_a_training_set_is_known_in_any_case_and_may_be_alone(pictures, train, test):
    (pictures / "val").rename(pictures / (test or ".val"))
    (pictures / "train").rename(pictures / train)
    found = whole(data.load(f"folder:{pictures}"))
    assert found.classes == ("cat", "dog")
    assert (len(found.train["x"]), len(found.test["x"])) == ((10, 4) if test else (8, 2))


def test_a_training_set_beside_folders_of_no_known_name_is_explained(pictures):
    (pictures / "val").rename(pictures / "holdout")
    with pytest.raises(
        DataError, match=r"training set in train, and beside it holdout: call the one .*folder:.*/train"
    ):
        data.load(f"folder:{pictures}")


def test_a_class_may_be_called_train(pictures):
    for folder in (pictures / "train", pictures / "val"):
        for path in folder.glob("*/*.png"):
            path.rename(folder / f"{path.parent.name}{path.name}")
    (pictures / "val").rename(pictures / "tram")
    assert data.load(f"folder:{pictures}").classes == ("train", "tram")


def test_columns_may_be_left_out_whatever_they_hold(table):
    lines = table.read_text().splitlines()
    notes = ["id,note", *(f"x{i},{'' if i % 2 else i}" for i in range(20))]
    table.write_text("\n".join(f"{note},{line}" for note, line in zip(notes, lines, strict=True)))
    for target in ("weight", "-1", "5"):  # places are those in the file
        found = whole(data.load(f"csv:{table}#{target}?without=id,note,3"))
        assert found.info["target"] == "weight"
        assert found.info["features"] == ["size", "odd"]
    with pytest.raises(DataError, match=r"no column 'note2'; near names: note"):
        data.load(f"csv:{table}#weight?without=id,note2")
    with pytest.raises(DataError, match=r"predict column 'weight', and to leave it out: name it once"):
        data.load(f"csv:{table}#weight?without=note,weight")


def test_a_column_of_too_many_categories_is_named(table, monkeypatch):
    monkeypatch.setattr("funcnet.data.sources._MOST", 39)
    with pytest.raises(DataError, match=r"'colour' has 2 categories in 20 rows, too many .*#weight\?without=colour\."):
        data.load(f"csv:{table}#weight")
    monkeypatch.setattr("funcnet.data.sources._MOST", 40)
    assert data.load(f"csv:{table}#weight").train["x"].dtype == torch.float32
