"""Few labels against a short version: what they are drawn from, and what is chosen with them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from harl_bench.classify import datasets, finetune, protocol, solver
from harl_bench.classify.subset import restricted
from harl_bench.core.errors import DataError
from tests.classify.command import classify, result
from tests.classify.layouts import imagenet


def test_few_labels_are_not_joined_by_the_held_out_ones(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 % of the labels is not 1 % and 10,000 more: no fit of semi-*-logreg sees the images that
    choose.
    """
    fits: list[int] = []
    solve = solver.solve
    monkeypatch.setattr(
        solver, "solve", lambda basis, y, *a, **k: fits.append(len(y)) or solve(basis, y, *a, **k)
    )
    assert classify(data, tmp_path / "with", "--protocol", "linear") == 0
    assert classify(data, tmp_path / "without", "--protocol", "linear", "refit=false") == 0
    whole, alone = (len(sorted((data / "train").rglob("*.png"))), fits[2])
    assert fits == [alone, whole, alone]
    assert alone < whole
    for name in ("semi-1pct-logreg", "semi-10pct-logreg"):
        assert protocol.load(name, [])[1].refit is False


class TestFewLabels:
    def listed(self, root: Path, count: int = 4) -> Path:
        names = [f"{wnid}_{i}.JPEG" for wnid in ("n01440764", "n02129165") for i in range(count)]
        path = root / "1percent.txt"
        path.write_text("\n".join(reversed(names)) + "\n")
        return path

    def test_held_out_images_are_none_of_the_list(self, tmp_path: Path) -> None:
        imagenet(tmp_path)
        path = self.listed(tmp_path)
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), path, sha256="")
        divided = found.divided(0)
        assert len(divided["train"]) == 8
        assert np.bincount(found.labels[divided["val"]]).tolist() == [
            9,
            9,
        ]  # of 10 others a class, one stays
        assert not set(divided["train"]) & set(divided["val"])
        assert {found.paths[row].rpartition("/")[2] for row in divided["train"]} == set(
            path.read_text().split()
        )
        assert any("another list than SimCLR's" in text for text in found.departures)

    def test_a_list_that_leaves_one_image_a_class_leaves_none_to_validate_on(
        self, tmp_path: Path
    ) -> None:
        imagenet(tmp_path)
        each = min(len(list(folder.iterdir())) for folder in (tmp_path / "train").iterdir())
        path = self.listed(tmp_path, each - 1)
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), path, sha256="")
        with pytest.raises(DataError, match=r"no training image is left .* shorten the list"):
            found.divided(0)

    def test_the_published_list_is_known_by_its_hash(self, tmp_path: Path) -> None:
        imagenet(tmp_path)
        path = self.listed(tmp_path)
        text = "".join(f"{line}\n" for line in sorted(path.read_text().split()))
        digest = hashlib.sha256(text.encode()).hexdigest()
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), path, sha256=digest)
        assert not any("list" in text for text in found.departures)
        whole = datasets.DATASETS["imagenet"](tmp_path)
        assert found.identity != whole.identity  # another run ...
        assert found.fingerprint == whole.fingerprint  # ... on the same features

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "n01440764_0.JPEG\nn01440764_99.JPEG\n",
                "not among the training images.*1 of 2, first n01440764_99",
            ),
            ("n01440764_0.JPEG\n", "a class has no image in the list.*n02129165"),
            ("n01440764_0.JPEG\nn01440764_0.JPEG\nn02129165_0.JPEG\n", "1 images are listed twice"),
        ],
    )
    def test_wrong_lists(self, tmp_path: Path, text: str, message: str) -> None:
        imagenet(tmp_path)
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            restricted(datasets.DATASETS["imagenet"](tmp_path), tmp_path / "list.txt", sha256="")

    def test_paths_serve_as_well_as_names(self, tmp_path: Path) -> None:
        imagenet(tmp_path)
        (tmp_path / "a").write_text(
            "train/n01440764/n01440764_3.JPEG\nn02129165/n02129165_5.JPEG\n"
        )
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), tmp_path / "a", sha256="")
        assert [found.paths[row] for row in found.splits["train"]] == [
            "train/n01440764/n01440764_3.JPEG",
            "train/n02129165/n02129165_5.JPEG",
        ]

    def test_semi_as_a_person_runs_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        imagenet(tmp_path / "imagenet")
        more = [
            "--dataset",
            "imagenet",
            "--protocol",
            "semi-1pct",
            "batch_size=4",
            "lr=[0.01]",
            "epochs=[1,2]",
        ]
        assert classify(tmp_path, tmp_path / "runs", *more) == 3
        assert "add list=FILE" in capsys.readouterr().err
        self.listed(tmp_path / "imagenet")
        assert classify(tmp_path, tmp_path / "runs", *more) == 0
        found = result(tmp_path / "runs")
        assert (found.dataset, found.protocol, found.n_test) == ("imagenet", "semi-1pct", 6)
        assert [point["epochs"] for point in found.manifest["selection"]["grid"]] == [1, 2]
        kept = [path.parent.name for path in (tmp_path / "runs").rglob("last.pth")]
        assert kept == [finetune.Point(0.01, 0.0, found.manifest["selection"]["epochs"]).name]

    def test_logistic_regression_on_the_list(self, tmp_path: Path) -> None:
        imagenet(tmp_path / "imagenet")
        path = self.listed(tmp_path)
        more = [
            "--dataset",
            "imagenet",
            "--protocol",
            "semi-1pct-logreg",
            f"list={path}",
            "count=3",
        ]
        assert classify(tmp_path, tmp_path / "runs", *more) == 0
        assert result(tmp_path / "runs").manifest["split"]["train"]["n"] == 8


@pytest.mark.parametrize("name", ["imagenet-linear", "knn", "linear", "linear-sgd", "svm"])
def test_a_list_is_not_mixed_with_other_labels(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Val comes from the images that the list leaves out, and these protocols learn from it."""
    imagenet(tmp_path / "imagenet")
    (tmp_path / "list.txt").write_text("")
    more = ["--dataset", "imagenet", "--protocol", name, f"list={tmp_path / 'list.txt'}"]
    assert classify(tmp_path, tmp_path / "runs", *more) == 2
    assert "linear with refit=false" in capsys.readouterr().err
