"""Mask scores against hand-made numbers, and the command on files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.core.results import read_result
from harl_bench.masks import quality


def test_scores_of_a_known_overlap() -> None:
    mask, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    mask[:4, :5] = True  # 20 pixels
    truth[2:6, :5] = True  # 20 pixels, 10 shared
    row = quality.scores(mask, truth)
    assert row["foreground_iou"] == pytest.approx(100 * 10 / 30)
    assert row["mean_iou"] == pytest.approx(100 * (10 / 30 + 70 / 90) / 2)
    assert (row["precision"], row["recall"]) == (50, 50)
    assert row["f_beta"] == pytest.approx(50)
    assert row["mae"] == pytest.approx(20)


@pytest.mark.parametrize(("mask", "truth", "iou"), [(0, 0, 100), (1, 1, 100), (0, 1, 0), (1, 0, 0)])
def test_full_and_empty(mask: int, truth: int, iou: float) -> None:
    row = quality.scores(np.full((3, 4), mask, bool), np.full((3, 4), truth, bool))
    assert row["foreground_iou"] == iou


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Four images in two classes; the masks of class a are perfect, of class b empty."""
    for i, cls in enumerate("aabb"):
        truth = np.zeros((20, 30), np.uint8)
        truth[5:15, 5 + i : 20] = 255
        save(tmp_path / "truth" / cls / f"{i}.png", truth)
        save(tmp_path / "masks" / cls / f"{i}.png", truth if cls == "a" else np.zeros_like(truth))
        save(tmp_path / "images" / cls / f"{i}.jpg", np.stack([truth] * 3, axis=-1))
    return tmp_path / "masks", tmp_path / "truth", tmp_path / "images"


def test_command_prints_per_class_and_overall(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    masks, truth, images = folders
    assert main(["masks", "evaluate", str(masks), str(truth), "--json"]) == 0
    text = capsys.readouterr().out
    summary = json.loads(text[text.index("{") :])
    assert summary["n"] == 4
    assert summary["overall"]["foreground_iou"] == 50
    assert summary["per_class"]["a"]["foreground_iou"] == 100
    assert summary["pictures"]["b/2.png"]["recall"] == 0
    assert summary["per_class"]["a"]["max_f"] == pytest.approx(100)
    assert summary["per_class"]["a"]["s_measure"] == pytest.approx(100)
    assert 0 < summary["overall"]["max_f"] < 100
    assert main(["masks", "evaluate", str(masks), str(truth), "--images", str(images)]) == 0
    assert (masks / "quality.png").stat().st_size > 1000


@pytest.mark.parametrize("which", ["masks", "truth"])
@pytest.mark.parametrize("suffix", [".jpg", ".PNG", "_mask.png"])
def test_masks_of_other_names_are_scored(
    folders: tuple[Path, Path, Path], which: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They passed the check for missing ones, and were then looked for as .png."""
    masks, truth, images = folders
    for path in sorted((masks.parent / which).rglob("*.png")):
        values = np.asarray(Image.open(path))
        path.unlink()
        save(path.with_name(path.stem + suffix), values)
    assert (
        main(["masks", "evaluate", str(masks), str(truth), "--images", str(images), "--json"]) == 0
    )
    text = capsys.readouterr().out
    summary = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    assert (summary["n"], summary["overall"]["foreground_iou"]) == (4, 50)


def test_truth_beside_its_images(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    masks, truth, images = folders
    for path in sorted(truth.rglob("*.png")):
        save(
            images / path.relative_to(truth).with_name(f"{path.stem}_mask.png"),
            np.asarray(Image.open(path)),
        )
    assert main(["masks", "evaluate", str(masks), str(images), "--json"]) == 0
    text = capsys.readouterr().out
    summary = json.loads(text[text.index("{") :])
    assert (summary["n"], summary["overall"]["foreground_iou"]) == (4, 50)
    assert set(summary["pictures"]) == {
        "a/0_mask.png",
        "a/1_mask.png",
        "b/2_mask.png",
        "b/3_mask.png",
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: (m / "a" / "0.png").unlink(), "1 of 4 masks are missing"),
        (lambda m: save(m / "a" / "0.png", np.zeros((5, 5), np.uint8)), "differ in size"),
        (lambda m: (m / "a" / "0.png").write_bytes(b"half"), "unreadable image"),
    ],
)
def test_bad_masks_are_one_line(
    folders: tuple[Path, Path, Path],
    spoil: object,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks, truth, _ = folders
    spoil(masks)  # type: ignore[operator]
    assert main(["masks", "evaluate", str(masks), str(truth)]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_maps_decide_max_f_and_s_measure(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The masks of class b are empty; their maps are right but dim."""
    masks, truth, _ = folders
    maps = masks.with_name("maps")
    for path in truth.rglob("*.png"):
        save(maps / path.relative_to(truth), np.asarray(Image.open(path)) // 4)
    command = ["masks", "evaluate", str(masks), str(truth), "--maps", str(maps), "--json"]
    assert main(command) == 0
    text = capsys.readouterr().out
    row = json.loads(text[text.index("{") :])["per_class"]["b"]
    assert (row["recall"], row["max_f"], row["mae"]) == (0, pytest.approx(100), 0)
    (maps / "a" / "0.png").unlink()
    assert main(command) == 3
    assert "1 of 4 maps are missing" in capsys.readouterr().err
    save(maps / "a" / "0.png", np.zeros((5, 5), np.uint8))
    assert main(command) == 3
    assert "map and truth differ in size" in capsys.readouterr().err


def test_maps_are_kept_and_made_again_when_lost(folders: tuple[Path, Path, Path]) -> None:
    _, truth, images = folders
    out, maps = images.with_name("made"), images.with_name("made-maps")
    command = [
        "masks",
        "make",
        str(images),
        "--out",
        str(out),
        "--save-maps",
        str(maps),
        "--workers",
        "0",
    ]
    assert main(command) == 0
    first = np.asarray(Image.open(maps / "a" / "1.png"))
    assert first.shape == (20, 30)
    assert len(np.unique(first)) > 2
    (maps / "a" / "1.png").unlink()
    assert main(command) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(maps / "a" / "1.png")), first)
    assert main(["masks", "evaluate", str(out), str(truth), "--maps", str(maps)]) == 0
    assert main([*command[:5], "--save-maps", str(out)]) == 2


def test_a_result_is_kept_for_the_report(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    masks, truth, images = folders
    made, runs = images.with_name("drfi-lite-default"), images.with_name("runs")
    assert main(["masks", "make", str(images), "--out", str(made), "--workers", "0"]) == 0
    assert main(["masks", "evaluate", str(truth), str(made)]) == 0
    assert "MASKS comes first, TRUTH second" in capsys.readouterr().out.replace("\n", " ")
    command = [
        "masks",
        "evaluate",
        str(made),
        str(truth),
        "--images",
        str(images),
        "--out",
        str(runs),
    ]
    assert main(command) == 0
    (path,) = runs.rglob("result.json")
    result = read_result(path)
    assert (result.task, result.method, result.checkpoint.name) == (
        "masks",
        "drfi-lite",
        "drfi-lite-default",
    )
    assert (result.n_test, set(result.per_class), result.config["threshold"]) == (
        4,
        {"a", "b"},
        "otsu",
    )
    assert (path.parent / "pictures" / "quality.png").is_file()
    assert main(command) == 0
    assert [*runs.rglob("result.json")] == [path]
    capsys.readouterr()
    assert main(["report", str(runs), "--against", "published"]) == 0
    told = capsys.readouterr().out
    assert "drfi-lite-default" in told
    assert "48.5" in told  # the paper's, percent
    assert main(["masks", "evaluate", str(masks), str(truth), "--out", str(runs)]) == 3
    assert "the masks have no manifest" in capsys.readouterr().err


def test_a_result_is_of_the_masks_that_the_manifest_lists_and_names_its_truth(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It stood for the maker of the manifest, whoever had drawn the masks."""
    _, truth, images = folders
    made, runs = images.with_name("made"), images.with_name("runs")
    assert main(["masks", "make", str(images), "--out", str(made), "--workers", "0"]) == 0
    command = ["masks", "evaluate", str(made), str(truth), "--out", str(runs)]
    drawn = truth / "a" / "0.png"
    drawn.write_bytes(drawn.read_bytes().ljust(400, b"\0"))
    assert main(command) == 0
    (path,) = runs.rglob("result.json")
    before = read_result(path)
    save(drawn, np.full((20, 30), 255, np.uint8))
    drawn.write_bytes(drawn.read_bytes().ljust(400, b"\0"))
    assert main(command) == 0  # scored anew, with the truth of now
    assert read_result(path).contents.keys() == {"truth"}
    assert read_result(path).contents != before.contents
    save(made / "a" / "1.png", np.full((20, 30), 255, np.uint8))
    capsys.readouterr()
    assert main(command) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 4 masks differ from those in the manifest" in line
    assert str(made / "a" / "1.png") in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--workers", "-1"], "workers"),
        (["--tar", "-2"], "tar"),
        (["--preview", "-3"], "preview"),
        (["work_px=0"], "work_px"),
        (["refine_steps=-1"], "refine_steps"),
        (["levels=[]"], "levels"),
        (["levels=[[0, 1, 1]]"], "levels"),
    ],
)
def test_numbers_out_of_range_are_refused(
    option: list[str],
    message: str,
    folders: tuple[Path, Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = folders[2]
    assert (
        main(["masks", "make", str(images), *option, "--out", str(images.with_name("none"))]) == 2
    )
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not images.with_name("none").exists()
