"""Features: those of the pooled network, found again, and never another image's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from harl_bench.classify import datasets, features
from harl_bench.classify.pixels import Transform
from harl_bench.convert.read import read_backbone
from harl_bench.core import contents
from tests.classify.command import SIZE
from tests.classify.test_classify import classify, results


@pytest.fixture
def data(data_of_odd_sizes: Path) -> Path:
    return data_of_odd_sizes


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
