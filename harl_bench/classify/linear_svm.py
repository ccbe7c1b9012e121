"""The SVM of one class and what its processes compute: no torch, which takes seconds to import.

It is scikit-learn's LinearSVC with the published settings. Letters: N images, D features, A costs.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.average_precision import Integers, average_precisions

POSITIVE_WEIGHT = 2  # of an image with the class, 1 without

Array = NDArray[np.float64]
Signs = NDArray[np.int32]


def rotated(rows: Array) -> tuple[Array, Array]:
    """Return rows [N, D] in an orthonormal basis of their span, and the basis [D, min(N, D)].

    Row i has i + 1 values that are not 0, and LinearSVC skips the zeros.
    """
    axes, upper = np.linalg.qr(rows.T)
    return np.ascontiguousarray(upper.T), axes


def cross_validated(
    rows: Array, signs: Signs, cost: float, folds: int, machine: dict[str, int]
) -> dict[str, float]:
    """Return the mean average precision over the folds, and how many fits reached max_iter."""
    from sklearn.model_selection import cross_val_score

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = cross_val_score(
            _machine(cost, machine), rows, signs, cv=folds, scoring="average_precision"
        )
    return {"ap": float(values.mean()), "capped": _capped(caught)}


def fitted(rows: Array, signs: Signs, cost: float, machine: dict[str, int]) -> tuple[Array, float]:
    """Return weights [D] and bias of one class."""
    with warnings.catch_warnings(record=True):
        svm = _machine(cost, machine).fit(rows, signs)
    return svm.coef_[0], float(svm.intercept_[0])


def few_shots(
    rows: Array,
    present: Integers,
    drawn: Integers,
    test: Array,
    truth: Integers,
    costs: tuple[float, ...],
    machine: dict[str, int],
) -> dict[str, Any]:
    """Return the AP [A] on test, percent, of a class's SVMs on the drawn rows, one a cost."""
    few, axes = rotated(rows[drawn])
    fits = [fitted(few, signs_of(present[drawn]), cost, machine) for cost in costs]
    weights, biases = zip(*fits, strict=True)
    answers = test @ (axes @ np.stack(weights, axis=1)) + np.array(biases)
    each = average_precisions(answers, np.repeat(truth[:, None], len(costs), axis=1), "area")
    return {"ap": each.tolist()}


def _machine(cost: float, machine: dict[str, int]) -> Any:
    """Return scikit-learn's linear SVM with the published settings."""
    from sklearn.svm import LinearSVC

    return LinearSVC(
        C=cost,
        class_weight={1: POSITIVE_WEIGHT, -1: 1},
        intercept_scaling=1.0,
        penalty="l2",
        loss="squared_hinge",
        tol=1e-4,
        dual=True,
        max_iter=machine["max_iter"],
        random_state=machine["seed"],
    )


def _capped(caught: list[warnings.WarningMessage]) -> int:
    from sklearn.exceptions import ConvergenceWarning

    return sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def signs_of(present: Integers) -> Signs:
    """Return 1 for present and -1 for absent and difficult, as the published labels of training."""
    return np.where(present == 1, 1, -1).astype(np.int32)
