"""The grid against the strided ResNet, the head against scikit-learn, batches against images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from harl_bench.cli import main
from harl_bench.convert.read import random_backbone, read_backbone
from harl_bench.core.errors import CheckpointError, DataError, UsageError
from harl_bench.masks import deep, makers, manifests, quality
from harl_bench.masks.deep import DeepMaker, Fit
from harl_bench.nn import resnet
from harl_bench.nn.blur import high_pass
from tests.masks import mask_scenes as scenes

SIDE = "side_px=64"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(images, masks, file) of a head on random features, trained on discs by the command."""
    root = tmp_path_factory.mktemp("deep")
    images, masks = scenes.write(root, 10)
    out = root / "head.safetensors"
    command = [
        "masks",
        "fit",
        str(images),
        "--masks",
        str(masks),
        "--method",
        "deep",
        "--out",
        str(out),
        SIDE,
    ]
    assert main([*command, "--workers", "0", "--device", "cpu"]) == 0
    return images, masks, out


def test_dilation_refines_the_grid_of_the_strided_network() -> None:
    tensors = random_backbone(0).tensors
    strided = resnet.resnet50().eval()
    resnet.load_backbone(strided, tensors)
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        fine, coarse = (
            resnet.dense_features(deep.build(tensors, torch.device("cpu")), x),
            resnet.dense_features(strided, x),
        )
    assert fine.shape == (2, 2048, 8, 12)
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse, rtol=1e-3, atol=3e-4)


def test_msra_networks_keep_their_strides() -> None:
    tensors = random_backbone(0).tensors
    strided = resnet.resnet50().eval()
    for layer in (strided.layer2, strided.layer3, strided.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    resnet.load_backbone(strided, tensors)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = resnet_to(strided, x)
        fine = resnet_to(deep.build(tensors, torch.device("cpu"), stride_in_1x1=True), x)
    torch.testing.assert_close(fine, y, rtol=1e-3, atol=3e-4)


def resnet_to(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The map of layer2, whose stride is the same at stride 8 and 32."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    y: torch.Tensor = model.layer2(model.layer1(x))
    return y


def test_a_head_sees_what_its_backbone_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """High-pass filtered images, and MSRA's strides; both were passed over."""
    images, masks = scenes.write(tmp_path, 2, height=64, width=64)
    pairs = [
        (p, masks / p.relative_to(images).with_suffix(".png"))
        for p in sorted(images.rglob("*.jpg"))
    ]
    plain = random_backbone(0)
    source = replace(plain, input=replace(plain.input, high_pass=True), stride_in_1x1=True)
    monkeypatch.setattr(deep, "read_backbone", lambda *_, **__: source)
    seen: list[torch.Tensor] = []
    features = resnet.dense_features
    monkeypatch.setattr(
        deep.resnet, "dense_features", lambda net, x: (seen.append(x), features(net, x))[1]
    )
    how = Fit(side_px=64, iterations=1)
    out = tmp_path / "head.safetensors"
    deep.fit(pairs, how, out, {}, checkpoint="x", seed=0, device="cpu")
    maker = deep.load(out, torch.device("cpu"))
    assert maker.backbone.layer2[0].conv1.stride == (2, 2)
    square = maker.prepare(np.asarray(Image.open(pairs[0][0])))
    maker.features([square])
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (plain.input.pixel_mean, plain.input.pixel_std)
    )
    x = (torch.from_numpy(square).permute(2, 0, 1)[None].float() - mean) / std
    for filtered in (seen[0][:1], seen[-1]):  # in fitting and in making
        torch.testing.assert_close(filtered, high_pass(x))
    about = deep.read_about(out)
    del about["stride_in_1x1"]
    deep.save(out, load_file(out), about)
    with pytest.raises(CheckpointError, match=r"without its backbone's high-pass filter.*fit it"):
        deep.read_about(out)


def test_head_equals_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, [1, 5, 0.1, 1], (400, 4)).astype(np.float32)
    y = (x @ [1, 0.3, 4, 0] + rng.normal(0, 1, 400) > 12.5).astype(np.float32)
    assert 0.05 < y.mean() < 0.45, "unbalanced, both classes there"
    weight, bias, loss = deep.train(
        torch.from_numpy(x), torch.from_numpy(y), Fit(weight_decay=1e-2)
    )
    balance = np.where(y > 0, 1 - y.mean(), y.mean())
    mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    rival = LogisticRegression(C=1 / (1e-2 * balance.sum()), tol=1e-8, max_iter=1000)
    rival.fit((x - mean) / std, y, sample_weight=balance)
    np.testing.assert_allclose(
        x @ weight.numpy() + bias.item(), rival.decision_function((x - mean) / std), atol=2e-3
    )
    assert loss < np.log(2)


def test_cells_carry_their_share_of_foreground(tmp_path: Path) -> None:
    images, masks = scenes.write(tmp_path, 2, height=64, width=64)
    pairs = [
        (p, masks / p.relative_to(images).with_suffix(".png"))
        for p in sorted(images.rglob("*.jpg"))
    ]
    cpu, head = torch.device("cpu"), (torch.zeros(2048), torch.zeros(()))
    backbone = deep.build(random_backbone(0).tensors, cpu)
    maker = DeepMaker(backbone, *head, 64, deep.InputConvention(), cpu)
    rng = np.random.default_rng(0)
    features, shares = deep.sample(maker, pairs, Fit(side_px=64, cells=64), rng)
    assert features.shape == (128, 2048)
    for i, seed in enumerate((0, 1)):
        truth = scenes.disc(seed, 64, 64)[1].reshape(8, 8, 8, 8).mean(axis=(1, 3))
        np.testing.assert_allclose(
            np.sort(shares[64 * i : 64 * i + 64]), np.sort(truth.ravel()), atol=1e-5
        )
    few, _ = deep.sample(maker, pairs, Fit(side_px=64, cells=5), rng)
    assert few.shape == (10, 2048)


def test_one_class_is_an_error() -> None:
    with pytest.raises(DataError, match="one class"):
        deep.train(torch.zeros(4, 3), torch.zeros(4), Fit())


def test_learns_to_find_the_disc(fitted: tuple[Path, Path, Path]) -> None:
    """Even random features tell these discs from their ground; chance is an IoU of about 20."""
    maker = makers.method_of("deep", model=fitted[2], device="cpu").maker()
    found = []
    for seed in range(30, 36):
        image, truth = scenes.disc(seed, 64, 64)
        found.append(quality.scores(maker(image, Path("x")) > 0.5, truth)["foreground_iou"])
    assert np.mean(found) > 45


def test_the_file_is_whole_and_told(fitted: tuple[Path, Path, Path]) -> None:
    out = fitted[2]
    backbone = read_backbone(out)
    expected = random_backbone(0).tensors
    assert all(torch.equal(backbone.tensors[name], value) for name, value in expected.items())
    about = deep.read_about(out)
    assert about["checkpoint"]["name"] == "random"
    assert about["pseudo"] is None
    assert about["pictures"] == 10
    assert out.with_name("head.safetensors.json").is_file()


def test_masks_do_not_depend_on_the_batch(fitted: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, _, model = fitted
    rows = []
    for batch in (1, 4):
        out = tmp_path / f"masks{batch}"
        command = [
            "masks",
            "make",
            str(images),
            "--out",
            str(out),
            "--method",
            "deep",
            "--model",
            str(model),
        ]
        assert (
            main([*command, "--workers", "2", "--preview", "0", "device=cpu", f"batch={batch}"])
            == 0
        )
        rows.append(manifests.read(out))
    assert list(rows[0]) == list(rows[1])
    assert {row.parameters for found in rows for row in found.values()} == {
        rows[0]["a/00.jpg"].parameters
    }
    for name in rows[0]:  # sums in another order may move a pixel over the threshold
        assert abs(rows[0][name].foreground - rows[1][name].foreground) < 0.002


def test_bad_images_are_skipped_and_the_rest_resumed(
    fitted: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    images, _ = scenes.write(tmp_path, 9)
    (images / "a" / "00.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    command = [
        "masks",
        "make",
        str(images),
        "--out",
        str(out),
        "--method",
        "deep",
        "--model",
        str(fitted[2]),
    ]
    command += ["--workers", "1", "--preview", "0", "device=cpu", "batch=4"]
    assert main(command) == 3
    assert len(manifests.read(out)) == 8
    scenes.write(tmp_path, 1)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert main(command) == 0
    assert len(manifests.read(out)) == 9
    assert all(p.stat().st_mtime_ns == t for p, t in times.items()), (
        "finished masks are not made again"
    )


@pytest.mark.parametrize(
    "harm", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:5000])]
)
def test_damaged_files_are_refused(
    fitted: tuple[Path, Path, Path], tmp_path: Path, harm: object
) -> None:
    copy = tmp_path / "head.safetensors"
    copy.write_bytes(fitted[2].read_bytes())
    harm(copy)  # type: ignore[operator]
    with pytest.raises(CheckpointError):
        makers.method_of("deep", model=copy).describe_engine()


def test_a_plain_checkpoint_is_not_a_saliency_network(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="masks fit"):
        makers.method_of("deep", model=tmp_path / "plain.safetensors").describe_engine()
    deep.save(
        tmp_path / "headless.safetensors", {"x": torch.zeros(1)}, {"input": {}, "side_px": 64}
    )
    with pytest.raises(CheckpointError, match="head is missing"):
        deep.load(tmp_path / "headless.safetensors", torch.device("cpu"))


def test_needs_a_model() -> None:
    with pytest.raises(UsageError, match="masks fit"):
        makers.method_of("deep")


def test_refuses_what_is_no_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = scenes.write(tmp_path, 2)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    out = tmp_path / "x.safetensors"
    command = [
        "masks",
        "fit",
        str(images),
        "--masks",
        str(masks),
        "--method",
        "deep",
        "--out",
        str(out),
    ]
    assert (
        main([*command, "--checkpoint", str(tmp_path / "other.pth")]) == CheckpointError.exit_code
    )
    assert capsys.readouterr().err.startswith("error[checkpoint]: no ResNet-50 backbone")
    assert not out.exists()
