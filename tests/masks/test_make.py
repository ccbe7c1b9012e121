"""`masks make`: resume, atomic files, bad images, shards, manifest.

The saliency comes from maps or drfi-lite.
"""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.core import results
from harl_bench.core.images import find_images
from harl_bench.core.manifest import fingerprint
from harl_bench.core.masks import manifests_in
from harl_bench.masks import manifests
from tests.masks import mask_scenes as scenes


def make(images: Path, out: Path, *more: str) -> int:
    return main(
        ["masks", "make", str(images), "--out", str(out), "--workers", "0", "--preview", "0", *more]
    )


def from_maps(root: Path, out: Path, *more: str) -> int:
    return make(root / "images", out, "--method", "external", "--maps", str(root / "masks"), *more)


def masks_of(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("[!.]*.png"))}


def test_masks_and_manifest(root: Path) -> None:
    out = root / "out"
    assert from_maps(root, out) == 0
    with open(out / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(
        p.relative_to(root / "images").as_posix() for p in root.rglob("*.jpg")
    )
    digest = fingerprint(root / "masks", find_images(root / "masks"))
    for row in rows:
        path = out / Path(row["path"]).with_suffix(".png")
        mask = Image.open(path)
        assert mask.mode == "L"
        assert mask.size == (int(row["width"]), int(row["height"])) == (80, 64)
        assert set(np.unique(mask)) == {0, 255}
        assert float(row["foreground"]) == pytest.approx(
            float((np.asarray(mask) > 0).mean()), abs=1e-6
        )
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (row["valid"], row["maker"], row["engine"]) == ("1", "external", "given maps")
        assert json.loads(row["parameters"]) == {"maps": f"masks#{digest[:16]}", "threshold": 0.5}
    assert not list(out.rglob(".writing-*"))


def test_repeating_makes_only_what_is_missing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / "out"
    from_maps(root, out)
    (out / "a" / "02.png").unlink()
    os.utime(out / "a" / "00.png", ns=(1, 1))
    capsys.readouterr()
    assert from_maps(root, out) == 0
    assert "6 masks in" in (text := capsys.readouterr().out)
    assert "(1 new)" in text
    assert (out / "a" / "02.png").is_file()
    assert (out / "a" / "00.png").stat().st_mtime_ns == 1
    assert from_maps(root, out, "--fresh") == 0
    assert (out / "a" / "00.png").stat().st_mtime_ns != 1


def test_other_parameters_need_another_folder(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / "out"
    from_maps(root, out)
    before = masks_of(out)
    assert from_maps(root, out, "--threshold", "0.7") == 2
    assert "made otherwise" in capsys.readouterr().err
    assert masks_of(out) == before
    assert from_maps(root, out, "--threshold", "0.7", "--fresh") == 0


def test_foreign_masks_are_not_touched(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = masks_of(root / "masks")
    assert make(root / "images", root / "masks") == 2
    error = capsys.readouterr().err
    assert "did not make" in error
    assert "--fresh" not in error, "no advice to write over the user's own masks"
    assert masks_of(root / "masks") == before
    assert make(root / "images", root / "masks", "--fresh") == 2
    assert masks_of(root / "masks") == before, "--fresh is for masks of ours"
    assert make(root / "images", root / "images" / "masks") == 2
    assert "among the images" in capsys.readouterr().err


def test_foreign_maps_are_not_touched(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--save-maps wrote over the truth."""
    before = masks_of(root / "masks")
    for fresh in ((), ("--fresh",)):
        assert make(root / "images", root / "out", "--save-maps", str(root / "masks"), *fresh) == 2
        assert "choose another --save-maps" in capsys.readouterr().err
    assert masks_of(root / "masks") == before


def test_images_and_out_that_are_swapped(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks of the masks were written among the photos."""
    before = sorted((root / "images").rglob("*"))
    assert make(root / "masks", root / "images") == 2
    assert "IMAGES comes first" in capsys.readouterr().err
    assert sorted((root / "images").rglob("*")) == before


def test_a_failing_write_leaves_no_half_mask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = root / "out"
    real, calls = os.replace, []

    def full_disk(source: object, target: object) -> None:
        calls.append(target)
        if str(target).endswith("02.png"):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(results.os, "replace", full_disk)
    assert from_maps(root, out) == 5
    assert calls
    assert not (out / "a" / "02.png").exists()
    assert not list(out.rglob(".writing-*"))
    monkeypatch.undo()
    assert from_maps(root, out) == 0
    assert len(masks_of(out)) == 6


@pytest.mark.slow
def test_a_killed_command_is_continued(tmp_path: Path) -> None:
    images, _ = scenes.write(tmp_path, 40, height=240, width=320)
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = ["masks", "make", str(images), "--workers", "0", "--preview", "0"]
    process = subprocess.Popen([sys.executable, "-m", "harl_bench.cli", *words, "--out", str(out)])
    deadline = time.monotonic() + 120
    while len(masks_of(out)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still working"
    for content in masks_of(out).values():
        Image.open(io.BytesIO(content)).verify()
    assert main([*words, "--out", str(out)]) == 0
    assert main([*words, "--out", str(whole)]) == 0
    assert masks_of(out) == masks_of(whole)
    assert (out / "manifest.csv").read_text() == (whole / "manifest.csv").read_text()


def test_a_cut_last_line_is_made_again(root: Path) -> None:
    out = root / "out"
    from_maps(root, out)
    whole = (out / "manifest.csv").read_text()
    (out / "manifest.csv").write_text(whole[:-30])
    assert from_maps(root, out) == 0
    assert (out / "manifest.csv").read_text() == whole


def test_shards_make_the_whole(root: Path) -> None:
    whole, parts = root / "whole", root / "parts"
    assert from_maps(root, whole) == 0
    for i in range(4):
        assert from_maps(root, parts, "--shard", f"{i}/4") == 0
    assert masks_of(parts) == masks_of(whole)
    assert manifests.read(parts) == manifests.read(whole)
    assert [path.name for path in manifests_in(parts)] == [f"manifest-{i}of4.csv" for i in range(4)]
    assert from_maps(root, parts) == 0, "and the whole command finds them finished"


@pytest.mark.parametrize("shard", ["4/4", "-1/4", "1", "a/b", "1/0"])
def test_bad_shards(root: Path, shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert from_maps(root, root / "out", f"--shard={shard}") == 2
    assert "i/n" in capsys.readouterr().err


def test_a_fresh_shard_leaves_the_others_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = root / "parts"
    assert from_maps(root, parts, "--shard", "1/2") == 0
    before = masks_of(parts)
    assert from_maps(root, parts, "--shard", "0/2", "--fresh") == 2
    assert "other shards" in capsys.readouterr().err
    assert masks_of(parts) == before


def test_dry_run_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(root / "images", root / "out", "--dry-run") == 0
    assert not (root / "out").exists()
    text = capsys.readouterr().out
    assert "6 images, 0 finished" in text
    assert "work_px" in text


def test_rejected_masks_are_empty_and_flagged(root: Path) -> None:
    for name, value in (("a/00", 0), ("b/01", 255)):
        Image.new("L", (80, 64), value).save(root / "masks" / f"{name}.png")
    out = root / "out"
    assert from_maps(root, out) == 0
    rows = manifests.read(out)
    assert {name for name, row in rows.items() if not row.valid} == {"a/00.jpg", "b/01.jpg"}
    assert not np.asarray(Image.open(out / "a/00.png")).any()
    assert not np.asarray(Image.open(out / "b/01.png")).any()


def test_tar_files_hold_the_same_masks(root: Path) -> None:
    single, packed = root / "single", root / "packed"
    from_maps(root, single)
    assert from_maps(root, packed, "--tar", "4") == 0
    members = {}
    for path in sorted(packed.glob("*.tar")):
        with tarfile.open(path) as archive:
            members |= {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert members == masks_of(single)
    assert len(list(packed.glob("*.tar"))) == 2
    times = {p: p.stat().st_mtime_ns for p in packed.glob("*.tar")}
    assert from_maps(root, packed, "--tar", "4") == 0
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())


@pytest.mark.parametrize("other", [["--tar", "2"], []])
def test_masks_are_packed_once(
    root: Path, other: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    packed = root / "packed"
    assert from_maps(root, packed, "--tar", "4") == 0
    before = sorted(packed.rglob("*"))
    assert from_maps(root, packed, *other) == 2
    assert "add --tar 4" in capsys.readouterr().err
    assert sorted(packed.rglob("*")) == before
    assert from_maps(root, packed, *other, "--fresh") == 0
    assert len(list(packed.glob("*.tar"))) == (3 if other else 0)


def test_two_images_of_one_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "images/a/00.png").write_bytes((root / "images/a/00.jpg").read_bytes())
    assert from_maps(root, root / "out") == 3
    assert "share one mask" in capsys.readouterr().err


def test_processes_make_the_same_masks(tmp_path: Path) -> None:
    images, _ = scenes.write(tmp_path, 9)
    one, two = tmp_path / "one", tmp_path / "two"
    assert make(images, one) == 0
    command = ["masks", "make", str(images), "--out", str(two), "--workers", "2", "--preview", "4"]
    assert main(command) == 0
    assert masks_of(one) == {
        name: data for name, data in masks_of(two).items() if name != "preview.png"
    }
    assert manifests.read(one) == manifests.read(two)
    assert Image.open(two / "preview.png").width > 500
