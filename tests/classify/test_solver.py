"""The solver against scikit-learn at tight tolerance, and against a gradient written out in
NumPy.
"""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from harl_bench.classify import eigenbasis, solver

REGULARIZATIONS = [1e3, 1.0, 1e-2, 1e-4, 1e-6]


def problem(
    rows: int, width: int, classes: int, *, seed: int = 0, noise: float = 1.0, wrong: float = 0.0
):
    """Rectified features with class centres, like pooled ReLU features; `wrong` is the fraction of
    random labels.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    features = rng.normal(size=(classes, width))[labels] + noise * rng.normal(size=(rows, width))
    features = np.maximum(features * np.arange(1, width + 1) ** -0.5 + 0.2, 0)
    labels = np.where(rng.random(rows) < wrong, rng.integers(classes, size=rows), labels)
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


def gradient(X, y, W, b, regularization):
    """J and its gradient, ten lines."""
    logits = X @ W + b
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    objective = -np.log(p[np.arange(len(y)), y]).sum() + regularization / 2 * (W**2).sum()
    p[np.arange(len(y)), y] -= 1
    return objective, X.T @ p + regularization * W, p.sum(0)


def plain(basis, optimum):
    W, b = (t.double().numpy() for t in basis.out(optimum.coefficients))
    return W, b


CASES = {
    "separable, wide": {"rows": 60, "width": 90, "classes": 5},
    "separable, tall": {"rows": 200, "width": 40, "classes": 4},
    "two classes": {"rows": 90, "width": 20, "classes": 2, "noise": 3.0},
    "not separable": {"rows": 400, "width": 12, "classes": 3, "noise": 3.0, "wrong": 0.3},
}


@pytest.mark.parametrize("case", CASES)
def test_certificate_is_the_gradient_in_plain_coordinates(case: str) -> None:
    X, y = problem(**CASES[case])
    basis = eigenbasis.prepare(X)
    for optimum in solver.solve(basis, y, REGULARIZATIONS, classes=CASES[case]["classes"]):
        W = basis.axes @ optimum.coefficients[:-1].double()  # float64: `out` rounds to float32
        b = optimum.coefficients[-1].double() - basis.mean @ W
        objective, gW, gb = gradient(
            X.double().numpy(), y.numpy(), W.numpy(), b.numpy(), optimum.regularization
        )
        seen = math.sqrt((gW**2).sum() + (gb**2).sum()) / (optimum.regularization * float(W.norm()))
        assert optimum.certificate <= solver.EPS
        assert seen <= 2 * solver.EPS
        assert optimum.objective == pytest.approx(objective, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn_at_tight_tolerance(case: str) -> None:
    X, y = problem(**CASES[case])
    basis = eigenbasis.prepare(X)
    found = solver.solve(basis, y, REGULARIZATIONS[:4], classes=CASES[case]["classes"], eps=1e-4)
    for optimum in found:
        W, b = plain(basis, optimum)
        rival = LogisticRegression(C=1 / optimum.regularization, tol=1e-12, max_iter=100_000).fit(
            X.double(), y
        )
        theirs, intercept = rival.coef_.T, rival.intercept_
        if (
            theirs.shape[1] == 1
        ):  # two classes: scikit-learn keeps the difference of two symmetric columns, J differs
            rival = LogisticRegression(
                C=2 / optimum.regularization, tol=1e-12, max_iter=100_000
            ).fit(X.double(), y)
            theirs = np.concatenate([-rival.coef_, rival.coef_]).T / 2
            intercept = np.concatenate([-rival.intercept_, rival.intercept_]) / 2
        assert np.abs(W - theirs).max() <= 1e-3 * np.abs(theirs).max()
        assert np.allclose(
            (b - b.mean()),
            intercept - intercept.mean(),
            atol=2e-3 * max(1, np.abs(intercept).max()),
        )
        args = X.double().numpy(), y.numpy()
        ours = gradient(*args, W, b, optimum.regularization)[0]
        assert ours <= gradient(*args, theirs, intercept, optimum.regularization)[0] * (1 + 1e-6)


def test_order_of_regularizations_and_duplicates_are_kept() -> None:
    X, y = problem(60, 30, 3)
    basis = eigenbasis.prepare(X)
    found = solver.solve(basis, y, [0.1, 10.0, 0.1], classes=3)
    assert [o.regularization for o in found] == [0.1, 10.0, 0.1]
    assert found[0] is found[2]


def test_start_from_an_earlier_fit_saves_iterations_and_ends_at_the_same_place() -> None:
    X, y = problem(300, 40, 4, noise=3.0)
    first = eigenbasis.prepare(X[:240])
    (near,) = solver.solve(first, y[:240], [0.1], classes=4)
    basis = eigenbasis.prepare(X)
    (cold,) = solver.solve(basis, y, [0.1], classes=4, eps=1e-4)
    (warm,) = solver.solve(
        basis, y, [0.1], classes=4, eps=1e-4, start=basis.into(*first.out(near.coefficients))
    )
    assert warm.iterations < cold.iterations
    assert torch.allclose(
        warm.coefficients, cold.coefficients, atol=1e-3 * float(cold.coefficients.abs().max())
    )


def test_into_and_out_keep_the_logits() -> None:
    X, _ = problem(50, 20, 3)
    basis = eigenbasis.prepare(X)
    W, b = (
        torch.randn(20, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([1.0, -2.0, 0.5]),
    )
    coefficients = basis.into(W, b)
    assert torch.allclose(basis.rows @ coefficients, X @ W + b, atol=1e-4)
    back = basis.out(coefficients)
    assert torch.allclose(back[0], W, atol=1e-4)
    assert torch.allclose(back[1], b, atol=1e-4)


def test_identical_rows_and_a_constant_feature_do_no_harm() -> None:
    X, y = problem(40, 60, 4)
    X = torch.cat([X, X])  # rank 40 of 80 rows
    X[:, 7] = 3.0
    found = solver.solve(eigenbasis.prepare(X), torch.cat([y, y]), REGULARIZATIONS, classes=4)
    assert max(o.certificate for o in found) <= solver.EPS


def test_a_class_without_rows_gets_a_low_bias_not_a_failure() -> None:
    X, y = problem(60, 20, 3)
    (found,) = solver.solve(eigenbasis.prepare(X), y, [1.0], classes=4)
    assert found.coefficients.isfinite().all()
