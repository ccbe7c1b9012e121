"""The wheel: what is in it, and that it works from another folder without the checkout."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_no_code_in_the_data_folders() -> None:
    """One .py there and hatchling refuses editable installs (design: packaging)."""
    assert not [p for name in ("transfer_configs", "reports") for p in (ROOT / name).rglob("*.py")]


@pytest.mark.slow
def test_wheel_holds_the_tree_and_runs_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    metadata = archive.read(next(name for name in names if name.endswith("METADATA")))
    assert b"License-Expression: Apache-2.0" in metadata
    assert b"# harl-bench" in metadata
    relative = re.search(rb"\]\((?!https?://)", metadata)
    assert not relative, "the package index has no other file of the tree"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    inside = {name for name in names if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True
    ).stdout.split()
    expected = {name for name in tracked if name.startswith(("harl_bench/", "pretrain/"))}
    expected |= {
        f"harl_bench/_data/{name}"
        for name in tracked
        if name.startswith(("transfer_configs/", "reports/"))
    }
    assert expected <= inside
    assert all(name.startswith(("harl_bench/", "pretrain/")) for name in inside)

    site = tmp_path / "site"
    archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import harl_bench;"
        f"assert harl_bench.__file__.startswith({str(site)!r});"
        "from harl_bench.core.resources import data_dir;"
        "assert (data_dir('transfer_configs') / 'voc' / 'voc-c4-24k.yaml').is_file();"
        "assert list((data_dir('reports') / 'published').glob('*.csv'));"
        "from harl_bench.cli import main; sys.exit(main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
