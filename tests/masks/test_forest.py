"""DRFI's forests: they predict as scikit-learn's, and a damaged one is refused."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from harl_bench.core.errors import CheckpointError
from harl_bench.masks import forest


@pytest.fixture(scope="module")
def fitted() -> tuple[RandomForestRegressor, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 7)).astype(np.float32)
    targets = (rows[:, 0] * rows[:, 1] > 0).astype(float)
    return RandomForestRegressor(30, max_features=3, random_state=0).fit(rows, targets), rows


def test_forest_predicts_as_scikit_learn(
    fitted: tuple[RandomForestRegressor, NDArray[np.float32]], tmp_path: Path
) -> None:
    model, rows = fitted
    ours = forest.from_sklearn(model)
    fresh = np.random.default_rng(1).normal(size=(200, 7)).astype(np.float32)
    on_threshold = rows.copy()
    for column in range(7):  # equality goes left
        cuts = ours.threshold[(ours.feature == column) & (ours.threshold != 0)][:300]
        on_threshold[: len(cuts), column] = cuts.astype(np.float32)
    for points in (rows, fresh, on_threshold):
        np.testing.assert_allclose(ours.predict(points), model.predict(points), rtol=0, atol=1e-13)
    forest.save(tmp_path / "f.npz", ours, {"seed": 3})
    again, about = forest.load(tmp_path / "f.npz", 7)
    assert about["seed"] == 3
    np.testing.assert_array_equal(again.predict(fresh), ours.predict(fresh))


def damaged(path: Path, **changes: object) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **(arrays | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "harm",
    [
        lambda p: p.unlink(),
        lambda p: p.write_bytes(p.read_bytes()[:900]),
        lambda p: p.write_bytes(b"text"),
        lambda p: damaged(p, left=np.array([object()])),
        lambda p: damaged(p, feature=np.full(len(np.load(p)["feature"]), 7)),
        lambda p: damaged(p, left=np.zeros(len(np.load(p)["left"]), int)),
        lambda p: damaged(p, value=np.zeros(3)),
        lambda p: damaged(p, about=np.array('{"format": "other"}')),
    ],
    ids=["missing", "cut", "text", "pickled", "column", "cycle", "length", "format"],
)
def test_damaged_forests_are_refused(
    fitted: tuple[RandomForestRegressor, NDArray[np.float32]], tmp_path: Path, harm: object
) -> None:
    path = tmp_path / "f.npz"
    forest.save(path, forest.from_sklearn(fitted[0]), {})
    harm(path)  # type: ignore[operator]
    with pytest.raises(CheckpointError):
        forest.load(path, 7)
