"""Pretraining that is stopped, killed, or started twice: the command ends with the same bits."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.errors import UsageError
from harl_bench.core.progress import read_metrics
from harl_bench.core.runs import Run
from harl_bench.nn import checkpoint
from pretrain import loop, recipe
from pretrain.claim import claimed
from pretrain.job import prepared
from tests import warm
from tests.pretrain.conftest import write_images
from tests.pretrain.test_pretrain import RESNET18, command, same, state


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_images(tmp_path_factory.mktemp("data"), 12)


@pytest.fixture(scope="module")
def whole(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(folders, out)) == 0
    return out


def test_two_processes_do_not_share_a_folder(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with Run(out, run_id="", state="new").locked():
        assert main(command(folders, out)) == 2
    assert "another process" in capsys.readouterr().err
    assert not (out / "last.pth").exists()


# Keys are shuffled over groups of a batch: the order, too, goes on where it stopped.
GROUPS = [
    *(override for override in RESNET18 if not override.startswith("predictor")),
    *("base=mocov2", "queue_size=8", "sync_bn=false", "bn_groups=2", "lr_tick=epoch"),
]


@pytest.mark.parametrize(
    ("stop_at", "overrides"), [(1, RESNET18), (4, RESNET18), (6, RESNET18), (5, GROUPS)]
)
def test_an_interrupted_run_ends_with_the_same_bits(
    folders: tuple[Path, Path],
    whole: Path,
    tmp_path: Path,
    stop_at: int,
    overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / "broken"
    if overrides != RESNET18:
        whole = tmp_path / "whole"
        assert main(command(folders, whole, overrides=overrides)) == 0
    steps = 0
    update = loop.build_optimizer

    def dying(*arguments: object) -> object:
        optimizer = update(*arguments)  # type: ignore[arg-type]
        step = optimizer.step

        def counted(*a: object, **k: object) -> object:
            nonlocal steps
            steps += 1
            if steps == stop_at + 1:
                raise OSError("the machine vanished")
            return step(*a, **k)  # type: ignore[arg-type]

        optimizer.step = counted  # type: ignore[method-assign]
        return optimizer

    monkeypatch.setattr(loop, "build_optimizer", dying)
    assert main(command(folders, broken, overrides=overrides)) != 0
    monkeypatch.setattr(loop, "build_optimizer", update)
    assert main(command(folders, broken, overrides=overrides)) == 0
    assert same(state(whole), state(broken))
    losses = [
        [(row["step"], row["loss"]) for row in read_metrics(out / "metrics.jsonl")]
        for out in (whole, broken)
    ]
    assert losses[0] == losses[1]
    if overrides == GROUPS:
        rates = [row["lr"] / 0.03125 for row in read_metrics(broken / "metrics.jsonl")]
        assert rates == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("known", [False, True])
def test_a_state_of_another_run_is_refused(
    folders: tuple[Path, Path],
    whole: Path,
    tmp_path: Path,
    known: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was resumed: run.json said seed 7, the steps went on from seed 0."""
    second = tmp_path / "second"
    second.mkdir()
    if known:
        shutil.copytree(whole, second, dirs_exist_ok=True)
        (second / "done.json").unlink()
        identity = json.loads((second / "run.json").read_text())
        identity["config"]["seed"] = 7
        (second / "run.json").write_text(json.dumps(identity))
    else:
        shutil.copy(whole / "last.pth", second)
    capsys.readouterr()
    assert main(command(folders, second, "--seed", "7")) == 2
    assert "last.pth is of another run" in (error := capsys.readouterr().err)
    assert "seed was 0, now 7" in error
    assert (second / "run.json").exists() == known, "a folder that is refused is not claimed"
    assert same(state(whole), state(second)), "and nothing is lost"
    assert main(command(folders, second, "--seed", "7", "--fresh")) == 0
    assert not same(state(whole), state(second))


def test_a_state_of_other_data_is_refused(
    folders: tuple[Path, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    shutil.copy(whole / "last.pth", second)
    other = write_images(tmp_path / "other", 12, seed=1)
    assert main(command(other, second)) == 2
    assert "data was " in capsys.readouterr().err
    assert main(command(folders, second)) == 0, (
        "its own run may have it, with what is only written more often"
    )


# Of other methods: earlier versions had them in every configuration.
OLD_KEYS: dict[str, object] = {
    "temperature": 0.1,
    "queue_size": 65536,
    "label_smoothing": 0.0,
    "classes": None,
    "local_crops": 4,
    "saliency_map": "cosine",
    "mask_fill": "high_pass",
    "mask_ratio": (0.05, 0.25),
    "hard_negative_weight": None,
    "localiser": "masks",
    "loss": "byol+fg+bg",
}
NEW_KEYS = ("lars_momentum", "lr_tick")  # which they lacked


@pytest.mark.parametrize("kept", ["run", "state"])
def test_runs_and_states_of_earlier_versions_are_still_known(
    folders: tuple[Path, Path],
    whole: Path,
    tmp_path: Path,
    kept: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With every method's keys, `byol+fg+bg`, and a wrapper's networks without prefix `base.`."""
    old = tmp_path / "old"
    follow = loop.build_optimizer

    def dying(*arguments: object) -> object:
        optimizer = follow(*arguments)  # type: ignore[arg-type]
        step, steps = optimizer.step, iter(range(4))
        optimizer.step = lambda *a, **k: step(*a, **k) if next(steps, None) is not None else 1 / 0  # type: ignore
        return optimizer

    monkeypatch.setattr(loop, "build_optimizer", dying)
    with pytest.raises(ZeroDivisionError):
        main([*command(folders, old), "--debug"])
    monkeypatch.setattr(loop, "build_optimizer", follow)
    payload = checkpoint.load_own(old / "last.pth")
    assert payload["step"] == 4
    payload["config"] |= OLD_KEYS
    for key in NEW_KEYS:
        del payload["config"][key]
    payload["method"] = {
        name.removeprefix("base."): tensor for name, tensor in payload["method"].items()
    }
    checkpoint.save(
        old / "last.pth", **{name: value for name, value in payload.items() if name != "format"}
    )
    if kept == "run":
        identity = json.loads((old / "run.json").read_text())
        identity["config"] |= OLD_KEYS
        (old / "run.json").write_text(json.dumps(identity))
    else:
        (old / "run.json").unlink()
    assert main([*command(folders, old), "alpha_base=0.5"]) == 2
    assert "alpha_base was 0.7, now 0.5" in (error := capsys.readouterr().err)
    assert "loss was" not in error
    assert main(command(folders, old)) == 0
    assert "going on at step 4" in capsys.readouterr().out
    assert same(state(whole), state(old))
    identity = json.loads((old / "run.json").read_text())
    identity["config"] |= OLD_KEYS
    for key in NEW_KEYS:
        del identity["config"][key]
    (old / "run.json").write_text(json.dumps(identity))
    assert main(command(folders, old)) == 0
    assert "already finished" in capsys.readouterr().out


def test_processes_are_of_the_run_where_batch_norm_is_their_own(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def claim(out: Path, count: int, *overrides: str) -> bool:
        settings = recipe.load("harl-toy", "harl", [*RESNET18, *overrides])
        return claimed(out, prepared(settings, *folders, None), count, fresh=False, preview=False)

    alone = tmp_path / "alone"
    assert claim(alone, 1, "sync_bn=false")
    assert claim(alone, 1, "sync_bn=false")
    with pytest.raises(UsageError, match="1 processes, now 2"):
        claim(alone, 2, "sync_bn=false")
    together = tmp_path / "together"
    assert claim(together, 1)
    assert claim(together, 2), "synchronised batch norm sees the whole batch either way"
    assert "processes" not in json.loads((together / "run.json").read_text()), (
        "such runs stay as they were"
    )
    earlier = json.loads((alone / "run.json").read_text())
    earlier.pop("processes")
    (alone / "run.json").write_text(json.dumps(earlier))
    assert claim(alone, 2, "sync_bn=false"), (
        "a run of an earlier version does not say: it is resumed"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)]
)
def test_signals_save_and_the_same_command_goes_on(
    folders: tuple[Path, Path], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    long = [*RESNET18, "epochs=60", "checkpoint_every_steps=1000"]
    arguments = command(folders, out, overrides=long)
    arguments[arguments.index("--workers") + 1] = "1"
    errors = tmp_path / "errors.txt"
    with open(errors, "wb") as file, open(os.devnull, "wb") as nowhere:
        process = warm.Process(["harl_bench.cli", *arguments], stdout=nowhere, stderr=file)
    deadline = time.monotonic() + 120
    while (
        len(read_metrics(out / "metrics.jsonl")) < 3
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as schedulers and terminals do: its workers get the signal too
    returned, error = process.wait(timeout=60), errors.read_text()
    assert returned == code, error
    assert error.count("\n") == 1
    assert "same command again" in error
    stopped = checkpoint.load_own(out / "last.pth")["step"]
    assert 3 <= stopped < 180
    shorter = json.loads((out / "run.json").read_text())["config"]
    assert shorter["epochs"] == 60


@pytest.mark.parametrize("base", ["byol", "mocov2"])
def test_kill_at_any_step_and_the_same_command_end_with_the_same_bits(
    folders: tuple[Path, Path], tmp_path: Path, base: str, request: pytest.FixtureRequest
) -> None:
    """SIGKILL between two checkpoints; with a probe, with a queue and its pointer.

    Bits depend on the threads: one.
    """
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)
    images, masks = folders
    # Of another base: refused.
    other = "predictor_hidden=16" if base == "mocov2" else "queue_size=8"
    overrides = [*RESNET18, "loss=byol+fg", f"base={base}", "queue_size=8", "accumulate=2"]
    overrides.remove(other)
    whole, broken = (
        command((images, masks), tmp_path / name, "--val", str(images), overrides=overrides)
        for name in ("whole", "broken")
    )
    assert main(whole) == 0
    killed = warm.run(["tests.pretrain.dying", *broken])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.load_own(tmp_path / "broken" / "last.pth")["step"] == 4
    assert main(broken) == 0
    assert same(state(tmp_path / "whole"), state(tmp_path / "broken"))
    payloads = [
        checkpoint.load_own(tmp_path / name / "last.pth")["probe"]["linear"]
        for name in ("whole", "broken")
    ]
    assert same(*payloads)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "broken")]
    told = [
        [{k: v for k, v in row.items() if k not in ("pictures_per_s", "data_wait")} for row in r]
        for r in rows
    ]
    assert told[0] == told[1]
    # The last step of each epoch.
    assert [row["step"] for row in rows[0] if "val_knn_top1" in row] == [2, 5, 8]
