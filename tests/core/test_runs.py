"""Run folders: equal commands find the same one, others never overwrite it, nothing is half."""

import contextlib
import errno
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from harl_bench.core import contents, results, runs
from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.results import CheckpointRef, Result, read_result, scan, slug
from harl_bench.core.runs import Run, open_run

CHECKPOINT = CheckpointRef(path="x/last.pth", name="last", sha256="0123456789abcdef", format="harl")
CONFIG = {"lr": 0.1, "steps": [1, 2], "deep": {"a": 1, "b": 2}}


def opened(out: Path, **changes: Any) -> Run:
    about: dict[str, Any] = {
        "task": "classify",
        "dataset": "flowers",
        "protocol": "linear",
        "checkpoint": CHECKPOINT,
        "seed": 1,
        "config": CONFIG,
        "data_fingerprint": "f",
    }
    return open_run(out, **about | changes)


def finish(run: Run) -> Path:
    result = Result(
        run_id=run.run_id,
        task="classify",
        dataset="flowers",
        protocol="linear",
        engine="torch",
        method="harl",
        checkpoint=CHECKPOINT,
        seed=1,
        metrics={"top1": 50.0, "top5": None},
        n_test=2,
        config=CONFIG,
        manifest={},
        started="now",
        wall_s=1.0,
        peak_memory_mb=1.0,
    )
    return runs.write_result(run, result)


def identity(**changes: Any) -> str:
    about: dict[str, Any] = {
        "task": "t",
        "dataset": "d",
        "protocol": "p",
        "checkpoint_sha256": "c",
        "seed": 0,
        "config": CONFIG,
        "data_fingerprint": "f",
    }
    return runs.run_id(**about | changes)


def test_run_id_depends_on_everything_but_the_order_of_keys() -> None:
    assert identity(config={"deep": {"b": 2, "a": 1}, "steps": [1, 2], "lr": 0.1}) == identity()
    others: list[dict[str, Any]] = [
        {"task": "u"},
        {"dataset": "e"},
        {"protocol": "q"},
        {"checkpoint_sha256": "d"},
        {"seed": 1},
        {"config": CONFIG | {"lr": 0.2}},
        {"config": CONFIG | {"steps": [2, 1]}},
        {"data_fingerprint": "g"},
    ]
    ids = [identity(), *(identity(**change) for change in others)]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)


def test_the_same_command_finds_its_run(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.state == "new"
    assert first.folder == tmp_path / "classify/flowers/linear/last-01234567/seed1"
    assert opened(tmp_path).state == "unfinished"
    finish(first)
    again = opened(tmp_path)
    assert (again.state, again.folder, again.run_id) == ("finished", first.folder, first.run_id)


def test_another_command_goes_beside_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    finish(first)
    other = opened(tmp_path, config=CONFIG | {"lr": 0.2})
    assert other.state == "new"
    assert other.folder == first.folder.with_name(f"seed1-{other.run_id[:8]}")
    assert opened(tmp_path, config=CONFIG | {"lr": 0.2}).folder == other.folder
    assert opened(tmp_path, data_fingerprint="g").folder not in (first.folder, other.folder)
    assert opened(tmp_path).state == "finished"


def test_fresh_throws_only_its_own_run_away(tmp_path: Path) -> None:
    first, other = opened(tmp_path), opened(tmp_path, seed=2)
    finish(first)
    finish(other)
    assert opened(tmp_path, fresh=True, dry_run=True).state == "finished"
    assert opened(tmp_path, fresh=True).state == "new"
    assert not (first.folder / results.RESULT).exists()
    assert (other.folder / results.RESULT).exists()


def test_the_time_of_a_run_is_that_of_all_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])
    with contextlib.suppress(KeyboardInterrupt), opened(tmp_path).timed() as wall_s:
        clock[0] += 7
        assert wall_s() == 7
        raise KeyboardInterrupt
    clock[0] += 1000
    with opened(tmp_path).timed() as wall_s:
        clock[0] += 2
        assert wall_s() == 9
        finish(opened(tmp_path))
    assert not (opened(tmp_path).folder / "wall.json").exists()
    with opened(tmp_path, fresh=True).timed() as wall_s:
        assert wall_s() == 0
    (opened(tmp_path).folder / "wall.json").write_text("[]")
    with opened(tmp_path).timed() as wall_s:
        assert wall_s() == 0


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path / "out", dry_run=True).state == "new"
    assert list(tmp_path.iterdir()) == []


def test_a_broken_identity_is_taken_over(tmp_path: Path) -> None:
    run = opened(tmp_path)
    (run.folder / results.IDENTITY).write_text("{")
    assert opened(tmp_path).folder == run.folder


def test_a_lost_identity_is_read_from_the_result(tmp_path: Path) -> None:
    """It was taken for the run of any settings, whose command then said "finished"."""
    first = opened(tmp_path)
    finish(first)
    (first.folder / results.IDENTITY).unlink()
    other = opened(tmp_path, config=CONFIG | {"lr": 0.2})
    assert (other.state, other.folder == first.folder) == ("new", False)
    again = opened(tmp_path)
    assert (again.state, again.folder) == ("finished", first.folder)


def test_other_contents_are_refused_until_fresh(tmp_path: Path) -> None:
    noted = {"labels": "a" * 64, "images": "b" * 64}
    run = opened(tmp_path, contents=noted)
    assert run.contents == noted
    for state in ("unfinished", "finished"):
        for name in noted:
            for dry_run in (False, True):
                with pytest.raises(DataError, match=f"the {name} have changed since"):
                    opened(tmp_path, contents=noted | {name: "c" * 64}, dry_run=dry_run)
        assert opened(tmp_path, contents=noted | {"more": "d"}).state == state
        assert opened(tmp_path).contents == noted
        finish(run)
    fresh = opened(tmp_path, contents={"labels": "c"}, fresh=True)
    assert (fresh.state, fresh.contents) == ("new", {"labels": "c"})


def test_a_trained_detector_is_scored_anew_with_the_labels_that_are(tmp_path: Path) -> None:
    trained = CheckpointRef(path="a.pth", name="a", sha256="e" * 64, format="detector")
    finish(opened(tmp_path, checkpoint=trained, contents={"labels": "a"}))
    again = opened(tmp_path, checkpoint=trained, contents={"labels": "b"})
    assert (again.state, again.contents) == ("finished", {"labels": "b"})


@pytest.mark.parametrize(("fault", "passes"), [(errno.ESTALE, True), (errno.ENOENT, False)])
def test_a_fault_that_passes_leaves_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, passes: bool
) -> None:
    """A missing image is its reader's business; a digest without it is as good as any."""

    def open_plain(path: object) -> None:
        raise OSError(fault, "as the machine says")

    monkeypatch.setattr(contents, "open_plain", open_plain)
    with pytest.raises(DataError, match="cannot be read now") if passes else nullcontext():
        assert contents.of_files([tmp_path / "1.jpg"]) == contents.joined([""])


def test_an_earlier_run_noted_nothing_and_stays_so(tmp_path: Path) -> None:
    opened(tmp_path)
    again = opened(tmp_path, contents={"labels": "a"})
    assert (again.state, again.contents) == ("unfinished", {})


def test_random_weights_have_no_hash(tmp_path: Path) -> None:
    random = CheckpointRef(path="random", name="random", sha256="", format="random")
    assert opened(tmp_path, checkpoint=random).folder.parent.name == "random-none"


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    run = opened(tmp_path)
    with (
        run.locked(),
        pytest.raises(UsageError, match="another process is working on this run"),
        run.locked(),
    ):
        pass
    with run.locked():
        pass


def test_results_come_back_as_written(tmp_path: Path) -> None:
    run = opened(tmp_path)
    result = read_result(finish(run))
    assert result.metrics == {"top1": 50.0, "top5": None}
    assert result.checkpoint == CHECKPOINT
    assert (run.images, run.checkpoints) == (run.folder / "pictures", run.folder / "checkpoints")


def test_scan_reports_what_it_cannot_read(tmp_path: Path) -> None:
    good = finish(opened(tmp_path))
    opened(tmp_path, seed=7)  # unfinished: neither found nor a fault
    for name, text in {
        "cut": good.read_text()[:50],
        "future": good.read_text().replace('"schema_version": 1', '"schema_version": 2'),
        "list": "[]",
        "empty": "",
        "binary": "\x00",
    }.items():
        (tmp_path / "more" / name).mkdir(parents=True)
        (tmp_path / "more" / name / "result.json").write_text(text)
    (tmp_path / "more" / "folder" / "result.json").mkdir(parents=True)
    found, faults = scan(tmp_path)
    assert [path for path, _ in found] == [good]
    assert len(faults) == 5
    assert all("not a result of this version" in str(fault) and fault.where for fault in faults)
    with pytest.raises(DataError, match="run folder not found"):
        scan(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot read result"):
        read_result(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("voc07+12", "voc07+12"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("a\nb\x00c", "a-b-c"),
        ("-rf", "rf"),
        ("modèle 1", "mod-le-1"),
        (".hidden", "hidden"),
    ],
)
def test_slug(name: str, safe: str) -> None:
    assert slug(name) == safe


def test_long_names_stay_apart() -> None:
    one, other = slug("x" * 300), slug("x" * 299 + "y")
    assert one != other
    assert len(one) == len(other) == 80
    assert slug("x" * 200 + "\udcff")  # a file name that is not UTF-8
