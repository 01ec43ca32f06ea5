"""Curves as files."""

import pytest

from funcnet.train import draw_curves, save_figure

pytest.importorskip("matplotlib")


def test_a_figure_is_written_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "curves.png"
    save_figure(draw_curves([{"loss": 2.0}, {"loss": 1.0}]), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    path = tmp_path / "curves.png"
    save_figure(draw_curves([{"loss": 1.0}]), path)
    before = path.read_bytes()
    broken = draw_curves([{"loss": 2.0}])
    broken.axes[0].set_title("$\\nothing$")  # no such command, found where it is drawn
    with pytest.raises(ValueError, match=r"nothing"):
        save_figure(broken, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_metric_of_many_leaves_is_one_panel_without_a_legend():
    rows = [{"loss": 1.0 / n, "test_loss": 2.0} | {f"grad_norm/{i}.weight": n * i for i in range(20)} for n in (1, 2)]
    losses, norms = draw_curves(rows).axes
    assert (losses.get_ylabel(), len(losses.lines), losses.get_legend() is None) == ("loss", 2, False)
    assert (norms.get_ylabel(), len(norms.lines), norms.get_legend() is None) == ("grad_norm", 20, True)
