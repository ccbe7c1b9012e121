"""`harl-bench classify` as a person runs it: features, selection before test, results, faults."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from harl_bench.classify import datasets, features, linear
from harl_bench.classify.pixels import Transform
from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.convert.statements import TOY
from harl_bench.core import contents
from harl_bench.core.results import Result, read_result
from harl_bench.core.toy import MARKER
from harl_bench.nn import checkpoint
from tests.classify.command import COLORS, SIZE, watched_reads


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colors, 6 training and 4 test images each, of odd sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for name, color in COLORS.items():
            for i in range(count):
                path = tmp_path / "set" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(
                    -25, 25, (int(rng.integers(33, 50)), int(rng.integers(33, 50)), 3)
                )
                Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(
                    path
                )
    return tmp_path / "set"


def classify(data: Path, out: Path, *more: str, checkpoint: str = "random") -> int:
    return main(
        [
            "classify",
            checkpoint,
            f"image_size={SIZE}",
            "--data",
            str(data),
            "--out",
            str(out),
            "--device",
            "cpu",
            "--workers",
            "0",
            *more,
        ]
    )


def results(out: Path) -> list[Result]:
    return [read_result(path) for path in sorted(out.rglob("result.json"))]


def test_a_run_is_measured_recorded_and_not_repeated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert classify(data, out) == 0
    (result,) = results(out)
    assert result.metrics["top1"] == 100  # colors alone tell these classes apart
    assert result.metrics.keys() == {"top1", "mean_per_class"}
    assert (result.n_test, result.task, result.toy) == (12, "classify", False)
    assert result.per_class["red"]["top1"] == 100
    assert result.departures == [f"image_size {SIZE} instead of 224"]
    assert result.manifest["selection"]["largest_certificate"] <= 2e-3
    low, high = result.manifest["interval_95"]["top1"]
    assert low <= 100 <= high
    folder = next(out.rglob("result.json")).parent
    stored = np.load(folder / "predictions.npz")
    assert stored["labels"].tolist() == stored["predicted"].tolist()
    assert not (folder / "pictures" / "mistakes.png").exists()  # there are none to show
    capsys.readouterr()
    assert classify(data, out) == 0
    assert "already finished" in capsys.readouterr().out


def test_mistakes_are_counted_and_shown(data: Path, tmp_path: Path) -> None:
    (data / "test" / "red" / "0.png").write_bytes((data / "test" / "blue" / "0.png").read_bytes())
    assert classify(data, tmp_path / "runs") == 0
    (result,) = results(tmp_path / "runs")
    assert result.metrics["top1"] == pytest.approx(100 * 11 / 12)
    assert result.per_class["red"]["top1"] == 75
    assert (
        next((tmp_path / "runs").rglob("result.json")).parent / "pictures" / "mistakes.png"
    ).exists()


def test_seeds_share_nothing_but_the_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--seeds", "0", "1") == 0
    first, second = results(tmp_path / "runs")
    assert (first.seed, second.seed) == (0, 1)
    splits = [r.manifest["split"]["val"]["sha256"] for r in (first, second)]
    assert splits[0] != splits[1]
    assert first.manifest["split"]["test"] == second.manifest["split"]["test"]


def test_a_toy_mark_is_passed_on(data: Path, tmp_path: Path) -> None:
    (data / MARKER).write_text("generated")
    assert classify(data, tmp_path / "runs") == 0
    assert results(tmp_path / "runs")[0].toy


def test_features_are_the_pooled_network_in_evaluation_mode(data: Path, tmp_path: Path) -> None:
    """Against Pillow and torchvision used directly, one image at a time."""
    backbone = read_backbone("random", seed=3)
    found = datasets.folder(data)
    transform = Transform(SIZE, SIZE, "RGB", backbone.input.pixel_mean, backbone.input.pixel_std)
    folder = features.extract(
        found, backbone, tmp_path / "cache", transform=transform, device=torch.device("cpu")
    )
    values = np.load(folder / "features.npy")
    model = torchvision.models.resnet50()
    model.load_state_dict(backbone.tensors, strict=False)
    model.fc = torch.nn.Identity()
    model.eval()
    for row in (0, 7, 29):
        image = Image.open(data / found.paths[row]).convert("RGB")
        short = min(image.size)
        size = [SIZE if side == short else int(SIZE * side / short) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
        left, top = (round((side - SIZE) / 2) for side in size)
        pixels = (
            np.asarray(image.crop((left, top, left + SIZE, top + SIZE))).astype(np.float32) / 255
        )
        x = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            expected = model(torch.from_numpy(x).float().permute(2, 0, 1)[None])[0].numpy()
        np.testing.assert_allclose(
            values[row], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )


def test_mean_and_std_are_in_the_order_of_the_input_format(data: Path, tmp_path: Path) -> None:
    """A BGR network is an RGB one with its first filters, mean and std turned round: the features
    are the same.
    """
    backbone, found = read_backbone("random"), datasets.folder(data)
    turned = {**backbone.tensors, "conv1.weight": backbone.tensors["conv1.weight"].flip(1)}
    about, device = backbone.input, torch.device("cpu")
    rgb = Transform(SIZE, SIZE, "RGB", about.pixel_mean, about.pixel_std)
    bgr = Transform(SIZE, SIZE, "BGR", about.pixel_mean[::-1], about.pixel_std[::-1])
    one = features.extract(found, backbone, tmp_path, transform=rgb, device=device)
    two = features.extract(
        found, replace(backbone, tensors=turned), tmp_path, transform=bgr, device=device
    )
    first, second = (np.load(folder / "features.npy") for folder in (one, two))
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4 * first.max())


def test_an_interrupted_extraction_resumes_to_the_same_features(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, found = read_backbone("random"), datasets.folder(data)
    transform = Transform(SIZE, SIZE, "RGB", backbone.input.pixel_mean, backbone.input.pixel_std)

    def extract(cache: Path) -> Path:
        return features.extract(
            found,
            backbone,
            cache,
            transform=transform,
            batch_size=8,
            device=torch.device("cpu"),
            workers=0,
        )

    whole = np.load(extract(tmp_path / "a") / "features.npy")
    forward, calls = features.forward, 0

    def dying(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError("the machine vanished")
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(features, "forward", dying)
    with pytest.raises(OSError, match="vanished"):
        extract(tmp_path / "b")
    (partial,) = (tmp_path / "b").glob("*.partial")
    assert 0 < (np.load(partial / "done.npy") == features.DONE).sum() < len(found.paths)
    again = np.load(extract(tmp_path / "b") / "features.npy")
    assert calls == 3 + -(-(len(found.paths) - 16) // 8)  # only what was missing
    np.testing.assert_array_equal(again, whole)


def test_another_checkpoint_transform_or_image_is_another_key(data: Path) -> None:
    found, backbone = datasets.folder(data), read_backbone("random")
    plain = Transform(SIZE, SIZE, "RGB", backbone.input.pixel_mean, backbone.input.pixel_std)
    swapped = Transform(SIZE, SIZE, "BGR", backbone.input.pixel_mean, backbone.input.pixel_std)
    filtered = replace(backbone, input=replace(backbone.input, high_pass=True))
    keys = [
        features.key(found, backbone, plain, "float32"),
        features.key(found, filtered, plain, "float32"),
        features.key(found, backbone, swapped, "float32"),
        features.key(found, backbone, plain, "bfloat16"),
        features.key(found, read_backbone("random", seed=1), plain, "float32"),
    ]
    (data / "test" / "red" / "0.png").unlink()
    keys.append(features.key(datasets.folder(data), backbone, plain, "float32"))
    assert len(set(keys)) == 6
    assert features.key(found, read_backbone("random"), plain, "float32") == keys[0]


def test_the_test_split_is_read_once_and_after_the_choice_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched_reads(monkeypatch, tmp_path / "runs")
    assert classify(data, tmp_path / "runs") == 0
    assert seen == [("train", False), ("val", False), ("test", True)]


def test_ties_go_to_the_stronger_regularization(data: Path, tmp_path: Path) -> None:
    """Separable classes: every small lambda has a perfect validation score; the largest such one
    is taken.
    """
    assert classify(data, tmp_path / "runs") == 0
    folder = next((tmp_path / "runs").rglob("result.json")).parent
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(row["val_top1"] for row in rows)
    chosen = json.loads((folder / "selection.json").read_text())["strength"]
    assert chosen == max(row["strength"] for row in rows if row["val_top1"] == best)
    assert sum(row["val_top1"] == best for row in rows) > 1
    assert len(rows) == len(linear.grid(1e-6, 1e5, 45)) == 45


def test_unreadable_images_stop_unless_allowed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train" / "red" / "0.png").write_bytes(b"not an image")
    assert classify(data, tmp_path / "runs") == 3
    error = capsys.readouterr().err
    assert "1 of 30 images are unreadable" in error
    assert error.count("\n") == 1
    assert classify(data, tmp_path / "runs", "--allow-unreadable") == 0
    warning = "1 of 30 images are unreadable and left out: train/red/0.png"
    assert capsys.readouterr().out.count(warning) == 1
    (result,) = results(tmp_path / "runs")
    assert result.manifest["unreadable"] == ["train/red/0.png"]
    assert "1 unreadable image left out" in result.departures


def test_images_that_were_mended_are_tried_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed copy full of zeros is as long as its file, and few files' bytes are in the key."""
    monkeypatch.setattr(contents, "SAMPLED", 1)
    path = data / "train" / "red" / "0.png"
    whole = path.read_bytes()

    def unreadable(*more: str, code: int = 0) -> list[str]:
        assert (
            classify(data, tmp_path / "runs", "count=3", *more, checkpoint="random-resnet18")
            == code
        )
        return [
            name for result in results(tmp_path / "runs") for name in result.manifest["unreadable"]
        ]

    path.write_bytes(bytes(len(whole)))
    assert unreadable(code=3) == []
    assert unreadable("--allow-unreadable") == ["train/red/0.png"]
    path.write_bytes(whole)
    assert unreadable("--fresh") == []
    (values,) = (tmp_path / "runs").glob("features/*/features.npy")
    assert np.load(values).any(axis=1).all()


def test_a_stopped_extraction_goes_on_with_mended_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SAMPLED", 1)
    path = data / "train" / "red" / "0.png"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    assert classify(data, tmp_path / "runs", "count=3", checkpoint="random-resnet18") == 3
    path.write_bytes(whole)
    assert classify(data, tmp_path / "runs", "count=3", checkpoint="random-resnet18") == 0
    (found,) = results(tmp_path / "runs")
    assert found.manifest["unreadable"] == []


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "I;16", "1px"])
def test_every_kind_of_image(data: Path, tmp_path: Path, mode: str) -> None:
    path = data / "train" / "red" / ("0.jpg" if mode == "CMYK" else "0.png")
    levels = np.random.default_rng(0).integers(
        0, 255, (1, 1) if mode == "1px" else (40, 41), dtype=np.uint8
    )
    image = (
        Image.fromarray(levels.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(levels)
    )
    (image if mode in ("I;16", "1px") else image.convert(mode)).save(path)
    assert classify(data, tmp_path / "runs") == 0


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda d: (d / "test").rename(d / "tset"), 3, "no test/ folder"),
        (lambda d: (d / "test" / "red").rename(d / "test" / "rde"), 3, "different classes"),
        (
            lambda d: [p.unlink() for p in (d / "train" / "red").iterdir() if p.name != "0.png"],
            3,
            "too few training",
        ),
        (lambda d: [p.unlink() for p in d.rglob("*.png")], 3, "no images"),
    ],
)
def test_a_wrong_layout_is_one_line(
    data: Path,
    tmp_path: Path,
    spoil: object,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(data)  # type: ignore[operator]
    assert classify(data, tmp_path / "runs") == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["image_szie=3"], 2, "did you mean 'image_size'"),
        (["--protocol", "liner"], 2, "did you mean 'linear'"),
        (["--dataset", "floder"], 2, "did you mean 'folder'"),
        (["low=1e9"], 2, "above high"),
    ],
)
def test_wrong_words_are_one_line(
    data: Path,
    tmp_path: Path,
    more: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert classify(data, tmp_path / "runs", *more) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_dry_run_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--dry-run") == 0
    text = capsys.readouterr().out
    (words,) = [line.split() for line in text.splitlines() if line.startswith("new ")]
    assert words[1].endswith("seed0")
    assert "to do       1 of 1, each " in text
    assert not (tmp_path / "runs").exists()


def test_what_the_file_states_and_the_label_reach_result_and_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half, out = tmp_path / "half.pth", tmp_path / "runs"
    about = {
        "format": "harl-bench",
        "method": "byol",
        "net": "online",
        "toy": True,
        "high_pass": True,
    }
    about |= {
        "input_format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    backbone = read_backbone("random").tensors
    checkpoint.save(half, backbone=backbone, method={}, step=33, steps=60, harl_bench=about)
    command = [
        "classify",
        str(half),
        f"image_size={SIZE}",
        "--data",
        str(data),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    assert main(command) == 0
    statement = "pretraining unfinished: step 33 of 60"
    assert f"warning: half.pth: {statement}" in " ".join(capsys.readouterr().out.split())
    (first,) = results(out)
    assert {
        statement,
        TOY,
        "the network sees high-pass filtered images, as in its pretraining",
    } <= set(first.departures)
    assert (first.method, first.label, first.toy) == ("byol", "", True)
    monkeypatch.setattr(
        "harl_bench.classify.measure.measure", lambda *_, **__: pytest.fail("measured again")
    )
    for label in ("mine", "ours"):
        assert main([*command, "--label", label]) == 0
    (again,) = results(out)
    assert (again.label, again.run_id, again.metrics) == ("ours", first.run_id, first.metrics)
    assert main(["report", str(out), "--md", str(tmp_path / "r.md")]) == 0
    text = (tmp_path / "r.md").read_text()
    assert "ours (half)" in text
    assert statement in text
