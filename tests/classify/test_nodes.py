"""`classify` as torchrun starts it: several processes share the images, the first does the rest."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from harl_bench.classify import datasets, features
from harl_bench.classify.pixels import Transform
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import MachineError
from tests import warm
from tests.classify.command import CPU, SIZE, classify, result


def started(rank: int, port: int, arguments: list[str], log: Path) -> warm.Process:
    """One process with the environment that torchrun gives it on the second of two machines."""
    launched = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in launched.items()}
    command = ["harl_bench.cli", "classify", "random-resnet18", *arguments]
    with open(log, "wb") as file:
        return warm.Process(command, stdout=file, stderr=file, env=environment)


def together(data: Path, out: Path, *more: str) -> list[str]:
    """Run two processes to their ends and return what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--data", str(data), "--out", str(out), "--device", "cpu", "--workers", "0"]
    arguments += [f"image_size={SIZE}", f"short_side_px={SIZE}", *more]
    logs = [out.with_name(f"{out.name}-{rank}.log") for rank in (0, 1)]
    processes = [started(rank, port, arguments, log) for rank, log in enumerate(logs)]
    codes = [process.wait(timeout=300) for process in processes]
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], said
    return said


@pytest.mark.slow
def test_two_machines_give_what_one_gives(data: Path, tmp_path: Path) -> None:
    assert classify(data, tmp_path / "one", checkpoint="random-resnet18") == 0
    first, second = together(data, tmp_path / "two", "--seeds", "0", "1")
    assert "wrote" in first
    assert "wrote" not in second
    keys = {path.name for path in (tmp_path / "one" / "features").glob("*[0-9a-f]")}
    for key in keys & {path.name for path in (tmp_path / "two" / "features").iterdir()}:
        one, two = (np.load(tmp_path / out / "features" / key / "features.npy")
                    for out in ("one", "two"))  # fmt: off
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    (path,) = (p for p in (tmp_path / "two").rglob("result.json") if p.parent.name == "seed0")
    assert path.exists()
    assert result(tmp_path / "one").metrics["top1"] == 100
    assert len(list((tmp_path / "two").rglob("result.json"))) == 2
    (again, _) = together(data, tmp_path / "two", "--seeds", "0", "1")
    assert again.count("already finished") == 2


def test_parts_of_two_leave_no_row_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two, then the first, then one process for all: each takes what is missing."""
    found, taken = datasets.folder(data), []
    backbone = read_backbone("random-resnet18", archs=("resnet50", "resnet18"))
    transform = Transform(SIZE, SIZE, "RGB", (0, 0, 0), (255, 255, 255))
    forward = features.forward
    monkeypatch.setattr(
        features, "forward", lambda m, x, p: taken.append(len(x)) or forward(m, x, p)
    )

    def extract(cache: str) -> np.ndarray:
        folder = features.extract(
            found, backbone, tmp_path / cache, transform=transform, device=CPU, batch_size=8
        )
        return np.load(folder / "features.npy")

    whole = extract("whole")
    monkeypatch.setattr(features.distributed, "world_size", lambda: 2)
    monkeypatch.setattr(features.distributed, "rank", lambda: 1)
    monkeypatch.setattr(features.distributed, "gather", lambda value: [value])
    monkeypatch.setattr(features.launching, "lead", lambda f, n, *a: f(*a))
    taken.clear()
    with pytest.raises(MachineError, match="12 images have no features yet"):
        extract("parts")
    assert sum(taken) == len(found.paths) // 2
    monkeypatch.undo()
    done = np.load(next((tmp_path / "parts").glob("*.partial")) / "done.npy")
    assert (done == features.DONE).sum() == len(found.paths) // 2
    np.testing.assert_array_equal(extract("parts"), whole)
