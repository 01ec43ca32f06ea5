"""Donation is worth its name only if the memory is really not there twice."""

import sys

import memory
import pytest


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak resident set is read from /proc")
def test_a_donated_step_peaks_as_an_optimizer_in_place():
    peaks = memory.main(["donation", "--width", "2048", "--layers", "6"])
    assert peaks["pure compiled, donated"] < 1.1 * peaks["module, in place"]
    assert peaks["pure compiled"] > 1.3 * peaks["pure compiled, donated"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak resident set is read from /proc")
def test_remat_lowers_the_peak_of_a_deep_transformer():
    peaks = memory.main(["remat", "--layers", "24"])
    assert peaks["eager"] > 2 * peaks["eager, remat"]
    assert peaks["compiled"] > 1.5 * peaks["compiled, remat"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak resident set is read from /proc")
def test_donated_updates_take_no_more_than_torchs_own():
    peaks = memory.main(["optim", "--optimizers", "sgd"])
    assert peaks["sgd: funcnet compiled"] < peaks["sgd: torch compiled"] + 2
    assert peaks["sgd: funcnet donating"] < peaks["sgd: torch fused"] + 2
    assert peaks["sgd: funcnet eager"] > 150  # MiB: new parameters and a new momentum
