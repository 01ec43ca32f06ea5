"""Permutations, choices and vectors at their edges."""

import torch

from funcnet import grad, random


def test_singular_covariances_by_eigenvalues() -> None:
    for seed in range(20):
        a = random.normal(random.key(seed), (6, 2))
        cov = (a @ a.T).requires_grad_()
        x = random.multivariate_normal(random.key(seed), torch.zeros(6), cov, (50,), method="eigh")
        assert x.isfinite().all()
        # What is drawn lies in the two columns of `a`.
        rest = x.detach() - x.detach() @ torch.linalg.pinv(a).T @ a.T
        assert rest.abs().max() < 2e-3 * x.abs().max()
    flat = torch.diag(torch.tensor([4.0, 1.0, -1e-7]))
    slope = grad(lambda cov: random.multivariate_normal(random.key(0), torch.zeros(3), cov, method="eigh").sum())
    assert slope(flat).isfinite().all()


def test_choice_of_more_than_words_hold() -> None:
    n = 10 * 2**31
    drawn = random.choice(random.key(0), n, (1000,))
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 0
    assert abs(drawn.double().mean() / n - 0.5) < 4 / 12000**0.5
    for below in (2**31 - 1, 2**31):
        want = random.randint(random.key(0), (9,), 0, below).long()
        assert torch.equal(random.choice(random.key(0), below, (9,)), want)


def test_no_draw_shares_memory_with_its_argument() -> None:
    key = random.key(0)
    for x in (torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 4), torch.zeros(3), torch.zeros(3, 2)):
        for drawn in (
            random.permutation(key, x),
            random.permutation(key, x, independent=True),
            random.choice(key, x, (1,), replace=False),
            random.choice(key, x, (), replace=False),
        ):
            drawn += 1
            assert not x.any()
    few = random.choice(key, torch.arange(1000.0), (2,), replace=False)
    assert few.untyped_storage().nbytes() == 8
