"""The queue of a suite, where another suite in the same folder has one, too."""

from pathlib import Path

from harl_bench.suite import records


def test_two_suites_of_one_folder_end_in_any_order(tmp_path: Path) -> None:
    first, second = records.queued(tmp_path, []), records.queued(tmp_path, [])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not (tmp_path / "queued").exists()
    second.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())
