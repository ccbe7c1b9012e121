"""The classifiers of `linear` and `knn` on arrays of features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harl_bench.classify import arrays, eigenbasis, solver
from harl_bench.classify import knn as neighbors
from harl_bench.core.errors import DataError, UsageError
from harl_bench.nn import runtime


@dataclass(frozen=True)
class LinearClassifier:
    """A fitted multinomial logistic regression.

    Attributes:
        weights: [D, C] float32.
        bias: [C] float32.
        certificate: norm of the gradient relative to that of the regularization's part, 0 at the
            optimum.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    certificate: float

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [N, C] of features [N, D]."""
        return features @ self.weights + self.bias

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the most probable class [N] of each row of features [N, D]."""
        classes: NDArray[np.int64] = self.logits(features).argmax(1)
        return classes


def fit_linear(
    features: NDArray[np.float32],
    labels: NDArray[np.integer],
    *,
    regularization: float = 1.0,
    device: str = "auto",
) -> LinearClassifier:
    """Fit logistic regression to its optimum, as the protocol `linear` does at each lambda.

    The loss is the sum over images plus regularization / 2 times the squared weights; the bias is
    free (classify/solver.py).

    Args:
        features: [N, D].
        labels: [N] integers from 0 to C - 1.

    Raises:
        DataError: features are not finite, or labels do not fit them.
        UsageError: the regularization is not positive.
    """
    arrays.require_positive("regularization", regularization)
    x = arrays.features(features, "features", runtime.device(device))
    truth = arrays.labels(labels, x)
    basis, classes = eigenbasis.prepare(x), int(truth.max()) + 1
    (optimum,) = solver.solve(basis, truth, [regularization], classes=classes)
    weights, bias = (part.cpu().numpy() for part in basis.out(optimum.coefficients))
    return LinearClassifier(weights, bias, optimum.certificate)


def knn(
    queries: NDArray[np.float32],
    bank: NDArray[np.float32],
    labels: NDArray[np.integer],
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: str = "auto",
) -> NDArray[np.int64]:
    """Return the class [N] that the k nearest of a bank vote for, as in the protocol `knn`.

    Args:
        queries: features [N, D].
        bank, labels: features [M, D] and classes [M] of labelled images.
        temperature: a neighbor's vote weighs exp(cosine similarity / temperature).

    Raises:
        DataError: features are not finite, or labels do not fit the bank.
        UsageError: k is below 1 or larger than the bank, or the temperature is not positive.
    """
    arrays.require_positive("k", k)
    arrays.require_positive("temperature", temperature)
    where = runtime.device(device)
    x = arrays.features(queries, "queries", where)
    known = arrays.features(bank, "features of the bank", where)
    truth = arrays.labels(labels, known)
    if k > len(known):
        what, seen = "more neighbours than images in the bank", f"{k} > {len(known)}"
        raise UsageError(what, seen=seen, next=f"k={len(known)}")
    if x.shape[1] != known.shape[1]:
        what, seen = "queries and bank differ in length", f"{x.shape[1]} and {known.shape[1]}"
        raise DataError(what, seen=seen, next="take both from one network")
    classes = int(truth.max()) + 1
    votes = neighbors.votes(x, known, truth, classes, neighbours=[k], temperature=temperature)
    nearest: NDArray[np.int64] = votes[k].argmax(1)
    return nearest
