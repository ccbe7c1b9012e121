"""Linear heads trained by SGD: the loop, its states and its resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from harl_bench.classify import datasets, heads, network, pixels, training
from harl_bench.convert.read import read_backbone
from tests.classify.command import CPU, SIZE, classify, result, selection


class TestHeads:
    def run(self, data: Path, folder: Path, **changes: object):
        found, backbone = datasets.folder(data), read_backbone("random")
        about = backbone.input
        settings: dict[str, object] = {
            "lr": [8.0, 2.0],
            "epochs": 2,
            "batch_size": 4,
            "momentum": 0.9,
            "weight_decay": 1e-3,
            "norm": False,
            "schedule": "cosine",
            "milestones": (),
            "crop_area": (0.5, 1.0),
            "precision": "float32",
            "seed": 0,
            "transform": pixels.Transform(SIZE, SIZE, "RGB", about.pixel_mean, about.pixel_std),
            "folder": folder,
            "device": CPU,
            "workers": 0,
            "allow_unreadable": False,
        }
        return (
            heads.run(found, found.divided(0), backbone, **(settings | changes)),
            found,
            backbone,
            settings,
        )

    def test_against_heads_trained_one_by_one(self, data: Path, tmp_path: Path) -> None:
        """Each head of the one pass equals its own plain SGD; the first kind never sees a held-out
        row.
        """
        _, found, backbone, settings = self.run(data, tmp_path)
        saved = torch.load(tmp_path / "checkpoints/last.pth", weights_only=True)["module"]
        splits = found.divided(0)
        rows = np.sort(np.concatenate([splits["train"], splits["val"]]))
        trunk, steps = network.network(backbone, CPU), round(2 * len(rows) / 4)
        crops = pixels.Crops(found, settings["transform"], (0.5, 1.0), seed=0)  # type: ignore[arg-type]
        for who in ("train", "all"):
            for i, rate in enumerate((8.0, 2.0)):
                W, b = torch.zeros(3, 2048, requires_grad=True), torch.zeros(3, requires_grad=True)
                lr = rate * 4 / 256
                optimizer = torch.optim.SGD(
                    [W, b], lr, momentum=0.9, nesterov=True, weight_decay=1e-3
                )
                for step, batch in enumerate(
                    training.Stream(rows, batch_size=4, seed=0, first=0, last=steps)
                ):
                    batch = [item for item in batch if who == "all" or item[1] not in splits["val"]]
                    if not batch:
                        continue
                    optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
                    x = torch.stack([crops[item][1] for item in batch])
                    with torch.no_grad():
                        x = trunk(pixels.normalised(x, settings["transform"], CPU))  # type: ignore[arg-type]
                    loss = cross_entropy(
                        x @ W.T + b, torch.tensor([found.labels[row] for _, row in batch])
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                seen = saved[f"members.{who}-{i}.weight"]
                torch.testing.assert_close(
                    seen, W.detach(), rtol=1e-3, atol=1e-4 * float(W.detach().abs().max())
                )

    def test_the_backbone_stays_as_it_was(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = []
        network = heads.network
        monkeypatch.setattr(heads, "network", lambda *a: made.append(network(*a)) or made[-1])
        _, _, backbone, _ = self.run(data, tmp_path, norm=True, lr=[0.1])
        (trunk,) = made
        assert not trunk.training
        state = trunk.state_dict()
        assert all(torch.equal(state[name], value) for name, value in backbone.tensors.items())

    def test_imagenet_linear_on_a_folder(self, data: Path, tmp_path: Path) -> None:
        more = ["--protocol", "imagenet-linear", "epochs=2", "batch_size=4"]
        assert classify(data, tmp_path / "runs", *more, workers=1) == 0
        chosen = selection(tmp_path / "runs")
        assert len(chosen["grid"]) == 5  # type: ignore[arg-type]
        assert result(tmp_path / "runs").manifest["selection"] == chosen

    def test_linear_sgd_needs_no_validation(self, data: Path, tmp_path: Path) -> None:
        more = ["--protocol", "linear-sgd", "epochs=2", "batch_size=4", "milestones=[1]"]
        assert classify(data, tmp_path / "runs", *more) == 0
        assert selection(tmp_path / "runs") == {"lr": 0.01, "at_edge": False}
        saved = torch.load(next((tmp_path / "runs").rglob("last.pth")), weights_only=True)["module"]
        assert {name.split(".")[1] for name in saved} == {"all-0"}
