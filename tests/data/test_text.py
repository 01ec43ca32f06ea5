"""Text: back from its codes, and windows that are pieces of it."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import funcnet
from funcnet import data, random
from funcnet.data import DataError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(texts, texts)
def test_text_comes_back(text, more):
    vocabulary = data.vocabulary(text + more)
    assert list(vocabulary) == sorted(set(text + more))
    tokens = data.encode(text, vocabulary)
    assert tokens.tolist() == [vocabulary.index(character) for character in text]
    assert data.decode(tokens, vocabulary) == text
    assert data.encode(text).tolist() == list(text.encode())
    assert data.decode(data.encode(text)) == text
    shuffled = vocabulary[::-1]
    assert data.decode(data.encode(text, shuffled), shuffled) == text


@given(n=st.integers(2, 40), length=st.integers(1, 39), batch=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_windows_and_chunks_are_pieces(n, length, batch, seed):
    length = min(length, n - 1)
    keys = random.split(random.key(seed))
    tokens = random.randint(keys[0], (n,), 0, 5)
    pieces = {tuple(tokens[i : i + length + 1].tolist()) for i in range(n - length)}
    drawn = data.windows(keys[1], tokens, length, batch)
    assert drawn["x"].shape == drawn["label"].shape == (batch, length)
    for x, label in zip(drawn["x"].tolist(), drawn["label"].tolist(), strict=True):
        assert (*x, label[-1]) in pieces
        assert x[1:] == label[:-1]
    cut = data.chunks(tokens, length)
    count = (n - 1) // length
    assert cut["x"].shape == (count, length)
    assert cut["x"].flatten().tolist() == tokens[: count * length].tolist()
    assert cut["label"].flatten().tolist() == tokens[1 : count * length + 1].tolist()


def test_every_window_can_be_drawn_and_the_draw_compiles():
    tokens = torch.arange(5)
    drawn = data.windows(random.key(0), tokens, 2, 300)
    assert drawn["x"][:, 0].bincount(minlength=3).min() > 60
    jitted = funcnet.jit(lambda key: data.windows(key, tokens, 2, 300), backend="aot_eager")
    assert torch.equal(jitted(random.key(0))["label"], drawn["label"])


def test_what_is_no_text_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"'c' at place 2 is not in the vocabulary of 2 characters"):
        data.encode("abc", "ab")
    with pytest.raises(DataError, match=r"'a' at place 0 is not in the vocabulary of 0"):
        data.encode("a", ())
    with pytest.raises(ValueError, match=r"no single character"):
        data.encode("a", ("ab",))
    with pytest.raises(DataError, match=r"token 2 at place 1 is outside 0 to 1"):
        data.decode(torch.tensor([0, 2]), "ab")
    with pytest.raises(DataError, match=r"token 256 at place 0 is outside 0 to 255"):
        data.decode(torch.tensor([256]))
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=r"a\.txt, line 2: byte 6 is no UTF-8"):
        data.read_text(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.txt is empty"):
        data.read_text(path)
    with pytest.raises(DataError, match=r"b\.txt cannot be read: No such file"):
        data.read_text(tmp_path / "b.txt")
    path.write_bytes(b"one\r\ntwo")
    assert data.read_text(path) == "one\r\ntwo"


@pytest.mark.parametrize("cut", [lambda t, n: data.chunks(t, n), lambda t, n: data.windows(random.key(0), t, n, 2)])
def test_windows_longer_than_the_text_are_explained(cut):
    with pytest.raises(ValueError, match=r"length is 5 and the text has 5 tokens; a window needs one more"):
        cut(torch.arange(5), 5)
    with pytest.raises(ValueError, match=r"length is 0; .* must be positive"):
        cut(torch.arange(5), 0)
    with pytest.raises(ValueError, match=r"it is one text, integers \(n,\)"):
        cut(torch.arange(6).reshape(2, 3), 1)
    with pytest.raises(ValueError, match=r"batch is 0; it counts windows"):
        data.windows(random.key(0), torch.arange(5), 2, 0)


def test_a_byte_order_mark_is_no_character(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfto be\r\n")
    assert data.read_text(path) == "to be\r\n"
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match=r"text\.txt is empty"):
        data.read_text(path)
