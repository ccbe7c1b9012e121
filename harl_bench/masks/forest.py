"""A random forest as plain arrays: fitted by scikit-learn, stored without pickle.

Letters: N nodes of all trees together, T trees, n rows, c features.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import write_bytes

FORMAT = "harl-bench forest/1"
NEXT = "fit it again: harl-bench masks fit IMAGES --masks MASKS --method drfi --out FILE"


@dataclass(frozen=True)
class Forest:
    """The nodes of all trees; children come after their parents.

    feature [N], threshold [N]: go to node `left` when row[feature] <= threshold, else to `right`. A
    leaf is its own child. value [N]: mean target. roots [T]: the first nodes of the trees.
    """

    feature: NDArray[np.int16]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    roots: NDArray[np.int32]

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean over trees for rows [n, c]: [n].

        All rows descend all trees together, one level a step.
        """
        node = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        row = np.arange(len(rows))[:, None]
        while True:
            below = np.where(
                rows[row, self.feature[node]] <= self.threshold[node],
                self.left[node],
                self.right[node],
            )
            if (below == node).all():
                return np.asarray(self.value[node].mean(axis=1))
            node = below


def fit(
    rows: NDArray[np.float32],
    targets: NDArray[np.float64],
    *,
    trees: int,
    features_per_split: int,
    seed: int,
) -> Forest:
    """Grow a forest.

    Nodes of 5 rows or fewer are leaves, as in the program the DRFI authors used.
    """
    from sklearn.ensemble import RandomForestRegressor

    count = min(features_per_split, rows.shape[1])
    model = RandomForestRegressor(
        trees, max_features=count, min_samples_split=6, random_state=seed, n_jobs=-1
    )
    return from_sklearn(model.fit(rows, targets))


def from_sklearn(model: Any) -> Forest:
    """Join the trees of a fitted RandomForestRegressor."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    start = np.repeat(starts[:-1], np.diff(starts))
    itself, leaf = np.arange(starts[-1]), joined("children_left") < 0
    return Forest(
        feature=np.where(leaf, 0, joined("feature")).astype(np.int16),
        threshold=np.where(leaf, 0.0, joined("threshold")),
        left=np.where(leaf, itself, joined("children_left") + start).astype(np.int32),
        right=np.where(leaf, itself, joined("children_right") + start).astype(np.int32),
        value=joined("value")[:, 0, 0],
        roots=starts[:-1].astype(np.int32),
    )


def save(path: Path, forest: Forest, about: dict[str, Any]) -> None:
    """Write an .npz atomically; `about` is plain JSON."""
    buffer = io.BytesIO()
    text = json.dumps({"format": FORMAT, **about})
    np.savez_compressed(buffer, about=np.array(text), **vars(forest))
    write_bytes(path, buffer.getvalue())


def load(path: Path, features: int) -> tuple[Forest, dict[str, Any]]:
    """Read what `save` wrote for rows of `features` numbers; no code in the file is run.

    Raises:
        CheckpointError: missing, damaged, or not such a forest.
    """
    if not path.is_file():
        raise CheckpointError("forest not found", where=path, next="check --model")
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            kinds = {"threshold": np.float64, "value": np.float64, "feature": np.int16}
            forest = Forest(
                **{n: stored[n].astype(kinds.get(n, np.int32)) for n in Forest.__dataclass_fields__}
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            "not a fitted forest", where=path, seen=type(error).__name__, next=NEXT
        ) from None
    known = isinstance(about, dict) and about.get("format") == FORMAT
    if not known or not _sound(forest, features):
        raise CheckpointError(
            f"not a forest of {features} features", where=path, seen="damaged arrays", next=NEXT
        )
    return forest, about


def _sound(forest: Forest, features: int) -> bool:
    """Return whether every number of a node or a feature exists, and children follow parents."""
    nodes = np.arange(len(forest.feature))
    arrays = (forest.threshold, forest.left, forest.right, forest.value)
    if not len(nodes) or not len(forest.roots) or any(len(a) != len(nodes) for a in arrays):
        return False
    descend = all((child >= nodes).all() for child in (forest.left, forest.right))
    indices = (forest.left, forest.right, forest.roots)
    exist = all(((i >= 0) & (i < len(nodes))).all() for i in indices)
    return bool(descend and exist and ((forest.feature >= 0) & (forest.feature < features)).all())
