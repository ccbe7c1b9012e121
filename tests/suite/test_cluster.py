"""The cluster file: what each line of it asks of sbatch, and what is said of a wrong one."""

import sys
from pathlib import Path

import pytest

from harl_bench import cli
from harl_bench.core.errors import UsageError
from harl_bench.suite import cluster, config, plan, slurm
from tests.suite.conftest import CLUSTER


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "partition",
            "partitoin",
            "unknown key 'partitoin'; in cluster.yaml:2; next: did you mean 'partition'?",
        ),
        ("1-12:00:00", "12 hours", "in cluster.yaml:6"),
        ("max_parallel: 2", "max_parallel: 0", "max_parallel"),
        ("200GB", "lots", "mem"),
        (
            "mem: 200GB",
            "extra: {gpus-per-node: 4}",
            "gpus-per-node: a key of its own, or set by harl-bench",
        ),
        ("mem: 200GB", "extra: {dependency: x}", "dependency: a key of its own"),
    ],
)
def test_a_wrong_cluster_file(place: Path, old: str, new: str, message: str) -> None:
    (place / "cluster.yaml").write_text(CLUSTER.replace(old, new))
    with pytest.raises(UsageError) as caught:
        cluster.load(Path("cluster.yaml"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("12:00:00", 720),
        ("1:30:00", 90),
        ("30:00", 30),
        ("00:30:00", 30),
        ("90", 90),
        ("43200", 43200),
        ("2-12", 3600),
        ("1-00:30", 1470),
        ("1-12:00:00", 2160),
        ('"12:00:00"', 720),
        ("0:00:01", 1),
    ],
)
def test_time_means_what_sbatch_means(place: Path, time: str, minutes: int) -> None:
    """By sbatch(1): minutes, minutes:seconds, days-hours, ...; YAML 1.1 has 12:00:00 as 43200."""
    Path("cluster.yaml").write_text(f"time: {time}\n")
    assert cluster.load(Path("cluster.yaml")).minutes == minutes


def test_numbers_are_words_to_sbatch(place: Path) -> None:
    Path("cluster.yaml").write_text("account: 1234\nmem: 64000\npartition: 7\n")
    told = cluster.load(Path("cluster.yaml"))
    assert (told.account, told.mem, told.partition) == ("1234", "64000", "7")


@pytest.mark.parametrize(
    ("extra", "expected", "absent"),
    [
        ("{}", "#SBATCH --requeue\n", "no-requeue"),
        ("{requeue: false}", "#SBATCH --no-requeue\n", "--requeue"),
        ("{exclusive: true, hold: false}", "#SBATCH --exclusive\n", "hold"),
        ('{gres: "gpu:a100:8"}', "#SBATCH --gres=gpu:a100:8\n", "gpus-per-node"),
    ],
)
def test_further_options(place: Path, extra: str, expected: str, absent: str) -> None:
    pytest.importorskip("submitit")
    Path("cluster.yaml").write_text(f"extra: {extra}\n")
    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    for text in slurm.texts(commands, cluster.load(Path("cluster.yaml")), Path("runs")):
        assert expected in text
        assert absent not in text


def test_each_job_asks_for_what_it_uses(place: Path) -> None:
    Path("suite.yaml").write_text("""
data: {photos: photos, wildflowers: wildflowers, voc: photos}
fit:
  - {name: head, method: deep, data: photos}
masks:
  - {name: lite, data: photos, truth: wildflowers}
  - {name: by-head, method: deep, model: head, data: photos}
pretrain:
  - {name: harl, recipe: harl-toy, data: photos, masks: lite}
checkpoints: [harl, random]
tasks:
  - {task: classify, protocol: linear, data: wildflowers}
  - {task: classify, protocol: knn, data: wildflowers}
  - {task: classify, protocol: finetune-small, data: wildflowers}
  - {task: voc, recipe: voc-c4-24k, data: voc}
seeds: [0, 1]
""")
    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    asked = {}
    for array in slurm.arrays(commands, cluster.Cluster(gpus_per_node=4)):
        for job in array.jobs:
            for command in job:
                asked.setdefault((command.task, command.setting), set()).add(
                    (array.gpus, array.cpus, len(job))
                )
    assert asked == {
        ("masks fit", "deep"): {(1, 8, 1)},
        ("masks make", "drfi-lite"): {(0, 8, 1)},
        ("masks make", "deep"): {(1, 8, 1)},
        ("masks", "mask-quality"): {(0, 8, 1)},
        ("pretrain", "harl-toy"): {(4, 32, 1)},
        ("classify", "linear"): {
            (1, 8, 4),
            (1, 8, 1),
        },  # harl's seeds with kNN's, on one feature store; random ones
        ("classify", "knn"): {(1, 8, 4), (1, 8, 1)},
        ("classify", "finetune-small"): {(1, 8, 1)},
        ("voc", "voc-c4-24k"): {(4, 20, 1)},  # 4 readers and the process that trains, on each GPU
    }


def test_without_slurm_or_submitit(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "suite.yaml", "--slurm", "cluster.yaml"]
    assert cli.main([*command, "--gpus", "4"]) == 2
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert cli.main(command) == 5
    assert "next: pip install 'harl-bench[slurm]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "submitit")
    pytest.importorskip("submitit")
    (place / "bin" / "sbatch").unlink()
    assert cli.main(command) == 5
    assert "no SLURM here" in capsys.readouterr().err
