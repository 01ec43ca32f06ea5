"""The Hessian's diagonal by random signs: exact where the Hessian is diagonal, right on average elsewhere."""

import pytest
import torch

from funcnet import hessian, optim, random, vmap

X = random.normal(random.key(0), (3,), torch.float64)
A = random.normal(random.key(1), (3, 3), torch.float64)


def estimate(loss, key):
    rule = optim.contrib.hutchinson_estimator_diag_hessian(key)
    return rule.update(X, rule.init(X), X, obj_fn=loss)


def test_exact_where_the_hessian_is_diagonal():
    for seed in range(3):
        got, state = estimate(lambda x: (x**4).sum(), random.key(seed))
        torch.testing.assert_close(got, 12 * X**2)
        assert not torch.equal(state.key, random.key(seed))


def test_right_on_average():
    def loss(x):
        return torch.sin(A @ x).sum()

    many = vmap(lambda key: estimate(loss, key)[0])(random.split(random.key(5), 4000))
    want = torch.diagonal(hessian(loss)(X))
    error = many.std(0) / 4000**0.5
    assert ((many.mean(0) - want).abs() < 4 * error).all()


def test_the_loss_and_the_parameters_are_needed():
    rule = optim.contrib.hutchinson_estimator_diag_hessian()
    with pytest.raises(ValueError, match="needs obj_fn"):
        rule.update(X, rule.init(X), X)
    with pytest.raises(ValueError, match="needs the parameters"):
        rule.update(X, rule.init(X), obj_fn=torch.sum)
