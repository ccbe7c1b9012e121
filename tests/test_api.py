"""The functions of `import harl_bench as hb`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import harl_bench as hb
from harl_bench.core.errors import CheckpointError, DataError, UsageError
from harl_bench.core.images import find_images
from harl_bench.nn import resnet
from tests.pretrain.conftest import write_images
from tests.report.report_store import small, write

NOTEBOOK = Path(__file__).parents[1] / "docs" / "python.ipynb"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return resnet.build("resnet18").state_dict()


def test_the_import_is_quick_and_without_torch() -> None:
    code = "import sys; old = set(sys.modules); import harl_bench; print(set(sys.modules) - old)"
    text = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "torch" not in text
    assert "harl_bench.api" not in text
    for name in hb.__all__:
        assert getattr(hb, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'evaluate_imagenet'"):
        _ = hb.evaluate_imagenet  # type: ignore[attr-defined]


def test_a_backbone_is_the_state_dicts(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """From memory and from a file: the same features as torchvision's network has."""
    torch.save(weights, tmp_path / "w.pth")
    reference = resnet.build("resnet18")
    reference.load_state_dict(weights)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference.eval()(x)
        for checkpoint in (weights, tmp_path / "w.pth", str(tmp_path / "w.pth")):
            backbone = hb.load_backbone(checkpoint)
            assert not backbone.training
            torch.testing.assert_close(backbone(x), expected)


def test_what_is_no_backbone_is_refused(weights: dict[str, torch.Tensor]) -> None:
    lacking = {name: value for name, value in weights.items() if "layer4.1.bn2" not in name}
    with pytest.raises(CheckpointError, match="ResNet-18"):
        hb.load_backbone(lacking)
    network: Any = resnet.build("resnet18")
    with pytest.raises(UsageError, match=r"seen: ResNet; next: give the state_dict\(\)"):
        hb.load_backbone(network)


def test_a_state_dict_is_converted(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = resnet.build("resnet50").state_dict()
    out = hb.convert_checkpoint(weights, tmp_path / "w.pkl")
    again = hb.load_backbone(out)
    for name, value in again.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, weights[name]), name


def test_features_of_a_folder_and_of_files(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    images, _ = write_images(tmp_path, 5, side=40)
    files = [images / path for path in find_images(images)]
    options: dict[str, Any] = {"image_size": 32, "device": "cpu"}
    features = hb.extract_features(weights, images, **options)
    assert features.shape == (5, 512)
    assert features.dtype == np.float32
    backwards = hb.extract_features(weights, files[::-1], **options)
    np.testing.assert_allclose(backwards[::-1], features, rtol=1e-5, atol=1e-6)
    paths: Any = np.array([str(file) for file in files])
    np.testing.assert_array_equal(hb.extract_features(weights, paths, **options), features)
    for size, short, message in (
        (0, None, "image_size is not positive"),
        (32, 16, "the crop is larger than the image"),  # its border would be black
    ):
        with pytest.raises(UsageError, match=message):
            hb.extract_features(weights, files, image_size=size, short_side_px=short, device="cpu")
    files[2].write_bytes(b"no image")
    for source in (files, images):
        with pytest.raises(DataError, match=f"cannot be decoded; in {files[2]};"):
            hb.extract_features(weights, source, **options)
    with pytest.raises(DataError, match="no images"):
        hb.extract_features(weights, [], **options)


def test_the_classifiers_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    features = (rng.normal(size=(90, 12)) + np.eye(3, 12)[labels]).astype(np.float32)
    queries = rng.normal(size=(40, 12)).astype(np.float32)
    linear = hb.fit_linear(features, labels, regularization=0.5, device="cpu")
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(features, labels)
    ours = torch.from_numpy(linear.logits(queries)).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(queries), atol=2e-3)
    assert (linear.predict(queries) == theirs.predict(queries)).all()
    near = hb.knn(features, features, labels, k=1, device="cpu")
    assert (near == labels).all()
    with pytest.raises(UsageError, match="more neighbours than images"):
        hb.knn(queries, features, labels, k=91, device="cpu")


FEATURES = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
LABELS = np.arange(12) % 3
NAN = np.where(np.arange(4) == 2, np.nan, FEATURES)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (NAN, LABELS, "not finite.*12 of 12 rows, first 0"),
        (FEATURES[:, 0], LABELS, "not one row an image"),
        (FEATURES, LABELS[:-1], r"not one an image.*\[11\] for 12 rows"),
        (FEATURES, np.r_[LABELS, 0], "not one an image"),
        (FEATURES[:0], LABELS[:0], "not one an image"),
        (FEATURES, np.eye(3)[LABELS], "not one an image"),
        (FEATURES, LABELS - 1, "not integers from 0 on"),
        (FEATURES, LABELS + 0.5, "not integers from 0 on"),
        (FEATURES, np.array(list("abc"))[LABELS], "not integers from 0 on"),
    ],
)
def test_what_is_no_features_or_no_labels_is_refused(
    features: np.ndarray, labels: np.ndarray, message: str
) -> None:
    """A neighbor of NaN was the first of the bank for all, and further labels were ignored."""
    with pytest.raises(DataError, match=message):
        hb.fit_linear(features, labels, device="cpu")
    with pytest.raises(DataError, match=message):
        hb.knn(FEATURES, features, labels, k=1, device="cpu")


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(DataError, match="queries are not finite"):
        hb.knn(NAN, FEATURES, LABELS, k=1, device="cpu")
    with pytest.raises(DataError, match="differ in length; seen: 3 and 4"):
        hb.knn(FEATURES[:, :3], FEATURES, LABELS, k=1, device="cpu")
    infinite = float("inf")
    for k, temperature in ((0, 0.07), (-1, 0.07), (1, 0.0), (1, -1.0), (1, np.nan), (1, infinite)):
        with pytest.raises(UsageError, match="is not positive"):
            hb.knn(FEATURES, FEATURES, LABELS, k=k, temperature=temperature, device="cpu")
    for regularization in (0.0, infinite):  # whose weights would be NaN
        with pytest.raises(UsageError, match="regularization is not positive and finite"):
            hb.fit_linear(FEATURES, LABELS, regularization=regularization, device="cpu")


def test_a_report_takes_the_files_as_text(tmp_path: Path) -> None:
    write(tmp_path / "runs", *small())
    (tmp_path / "a.csv").write_text(
        "method,dataset,protocol,metric,value\nNew,coco,coco-fpn-2fc-1x,AP_box,41.5\n"
    )
    files = {name: str(tmp_path / f"r.{name}") for name in ("html", "md", "tex", "csv", "pack")}
    added = [str(tmp_path / "a.csv")]
    hb.write_report(str(tmp_path / "runs"), **files, add=added, tables=["table*"], columns="one")
    assert all(Path(file).is_file() for file in files.values())
    assert "a.csv" in Path(files["md"]).read_text()
    one = {"add": added[0], "tables": "table3", "md": files["md"], "html": None}
    hb.write_report(tmp_path / "runs", **one)
    text = Path(files["md"]).read_text()
    assert "a.csv" in text
    assert text.count("\n## ") == 1
    pd.testing.assert_frame_equal(
        hb.read_results(files["pack"]), hb.read_results(tmp_path / "runs")
    )


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        assert cell["outputs"] == []
        exec("".join(cell["source"]), names)
    assert set(names["result"].metrics) >= {"mIoU", "mAcc", "aAcc"}
    assert {"mIoU"} <= set(names["frame"]["metric"])
    assert (tmp_path / "report.html").is_file()
