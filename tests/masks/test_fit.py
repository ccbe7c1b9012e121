"""The command `masks fit`: what it accepts, what it refuses, what it leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.core.errors import DataError
from harl_bench.masks import fit, manifests
from tests.masks import mask_scenes as scenes


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return scenes.write(tmp_path, 6)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, harl_bench.masks.fit_run, harl_bench.masks.run; "
        "print({'torch', 'cv2', 'numpy', 'sklearn', 'PIL'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_help_shows_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "fit", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "harl-bench masks fit photos --method deep" in text
    assert "harl-bench masks fit photos --masks photos-truth --method drfi" in text


def test_fits_a_forest_and_makes_masks_with_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    out = tmp_path / "forest.npz"
    command = [
        "masks",
        "fit",
        str(images),
        "--masks",
        str(masks),
        "--method",
        "drfi",
        "--out",
        str(out),
    ]
    assert (
        main(
            [*command, "trees=5", "levels=single", "min_size=700", "--workers", "0", "--seed", "3"]
        )
        == 0
    )
    about = json.loads((tmp_path / "forest.npz.json").read_text())
    assert about["seed"] == 3
    assert about["pictures"] == 6
    assert about["parameters"]["trees"] == 5
    made = tmp_path / "made"
    make = [
        "masks",
        "make",
        str(images),
        "--out",
        str(made),
        "--method",
        "drfi",
        "--model",
        str(out),
    ]
    assert main([*make, "--workers", "0", "--preview", "0"]) == 0
    rows = manifests.read(made)
    assert len(rows) == 6
    assert all(json.loads(row.parameters)["min_size"] == 700 for row in rows.values())
    assert all(str(tmp_path) not in row.parameters for row in rows.values()), "no machine paths"


def test_dry_run_writes_nothing(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    out = str(tmp_path / "head.safetensors")
    assert (
        main(["masks", "fit", str(folders[0]), "--method", "deep", "--out", out, "--dry-run"]) == 0
    )
    assert sorted(tmp_path.rglob("*")) == before
    assert "randomly initialised" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["fit", "--method", "deep", "--checkpoint", "no.pth", "--out", "x.safetensors"],
            4,
            "no.pth",
        ),
        (["fit", "--method", "deep", "--pseudo", "deep", "--out", "x.safetensors"], 2, "need"),
        (["make", "--method", "drfi", "--model", "no.npz", "--out", "x"], 4, "no.npz"),
    ],
)
def test_a_dry_run_gives_the_answer_of_the_run(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """Checkpoint, maker of pseudo-masks and model were looked at by the run alone."""
    monkeypatch.chdir(tmp_path)
    Path("no.pth").write_bytes(b"no checkpoint")
    Path("no.npz").write_bytes(b"no forest")
    lines = []
    for more in ([], ["--dry-run"]):
        assert main(["masks", arguments[0], str(folders[0]), *arguments[1:], *more]) == code
        lines.append(capsys.readouterr().err)
    assert lines[0] == lines[1]
    assert message in lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "drfi", "--out", "f.npz"], 2, "drfi learns from masks"),
        (["--method", "drfi", "--out", "f.pkl", "--masks", "M"], 2, "drfi is stored as .npz"),
        (["--method", "deep", "--out", "f.npz"], 2, "deep is stored as .safetensors"),
        (["--method", "deeep", "--out", "f.npz"], 2, "did you mean 'deep'"),
        (["--method", "deep", "--out", "f.safetensors", "sides_px=3"], 2, "did you mean 'side_px'"),
        (["--method", "deep", "--out", "f.safetensors", "side_px=3"], 2, "side_px"),
        (["--method", "deep", "--out", "f.safetensors", "--limit", "0"], 2, "at least 1"),
        (
            ["--method", "deep", "--out", "f.safetensors", "--masks", "M", "--pseudo", "drfi-lite"],
            2,
            "either masks",
        ),
        (
            ["--method", "deep", "--out", "f.safetensors", "--pseudo", "drfi"],
            2,
            "needs only images",
        ),
        (
            ["--method", "drfi", "--out", "f.npz", "--masks", "M", "--checkpoint", "c.pth"],
            2,
            "drfi has no network",
        ),
        (
            ["--method", "drfi", "--out", "f.npz", "--masks", "nowhere"],
            3,
            "folder not found; in nowhere",
        ),
    ],
)
def test_refusals_are_one_line(
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    words = [
        str(folders[1]) if a == "M" else str(tmp_path / a) if a.startswith("f.") else a
        for a in arguments
    ]
    assert main(["masks", "fit", str(folders[0]), *words, "--workers", "0"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("f.*"))


def test_images_and_masks_that_are_swapped(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = folders
    command = [
        "masks",
        "fit",
        str(masks),
        "--masks",
        str(images),
        "--method",
        "drfi",
        "--out",
        str(tmp_path / "f.npz"),
    ]
    assert main([*command, "--workers", "0"]) == 2
    assert "images and masks are swapped" in capsys.readouterr().err


def test_limit_is_spread_over_class_folders(folders: tuple[Path, Path]) -> None:
    names = fit.image_names(folders[0], 2)
    assert [name.parent.name for name in names] == ["a", "b"]
    assert len(fit.image_names(folders[0], 100)) == len(fit.image_names(folders[0], None)) == 6


def test_rejected_masks_are_left_out(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    names = fit.image_names(images, None)
    row = {
        "height": 64,
        "width": 80,
        "picture_bytes": 1,
        "sha256": "",
        "maker": "x",
        "parameters": "{}",
        "engine": "",
    }
    rows = [
        manifests.Row(path=n.as_posix(), foreground=0.2, valid=int(i > 0), **row)
        for i, n in enumerate(names)
    ]  # type: ignore[arg-type]
    manifests.write(masks / "manifest.csv", rows)
    assert [image.relative_to(images) for image, _ in fit.pairs_of(images, masks, names)] == names[
        1:
    ]
    with pytest.raises(DataError, match="every mask was rejected"):
        fit.pairs_of(images, masks, names[:1])


def test_pseudo_masks_are_made_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, truth = folders
    names, out = fit.image_names(images, None), tmp_path / "pseudo"
    pairs = fit.pseudo_masks(images, out, names, "drfi-lite", 0)
    times = {mask: mask.stat().st_mtime_ns for _, mask in pairs}
    assert fit.pseudo_masks(images, out, names, "drfi-lite", 0) == pairs
    assert {mask: mask.stat().st_mtime_ns for _, mask in pairs} == times
    for image, mask in pairs:
        name = image.relative_to(images).with_suffix(".png")
        found, true = (np.asarray(Image.open(p)) > 0 for p in (mask, truth / name))
        assert (found & true).sum() / (found | true).sum() > 0.6


def test_processes_keep_the_order_and_pass_errors_on() -> None:
    words = [str(i) for i in range(9)]
    assert list(fit.mapped(float, words, "numbers", 2)) == [float(w) for w in words]
    with pytest.raises(ValueError, match="could not convert"):
        list(fit.mapped(float, [*words, "x"], "numbers", 0))


def test_mismatched_mask_names_its_file(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = folders
    Image.new("L", (5, 5)).save(masks / "a" / "00.png")
    out = str(tmp_path / "f.npz")
    command = [
        "masks",
        "fit",
        str(images),
        "--masks",
        str(masks),
        "--method",
        "drfi",
        "--out",
        out,
        "--workers",
        "0",
    ]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert "differ in size" in error
    assert "00.png" in error
    assert not Path(out).exists()
