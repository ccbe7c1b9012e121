"""The manifest of masks: rows are appended, a cut last line is mended."""

from pathlib import Path

import pytest

from harl_bench.masks import manifests


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes by Linux's /proc")
def test_a_row_costs_the_same_however_long_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    row = manifests.Row("a/0.jpg", 3, 4, 5, 0.5, 1, "0" * 64, "external", "{}", "none")
    manifests.write(path, [row] * 100_000)
    read = _bytes_read()
    for _ in range(10):
        manifests.append(path, [row])
    assert _bytes_read() - read < 1_000_000 < path.stat().st_size, (
        "the manifest is not read again for each row"
    )


@pytest.mark.parametrize("kept", [0, 5, -1, -30])
def test_appending_mends_a_cut_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "manifest.csv"
    rows = [
        manifests.Row(f"{i}.jpg", 3, 4, 5, 0.5, 1, "0" * 64, "external", "{}", "none")
        for i in range(3)
    ]
    manifests.write(path, rows[:2])
    path.write_bytes(path.read_bytes()[:kept])
    manifests.append(path, [rows[2]])
    expected = [rows[0], rows[2]] if kept < 0 else [rows[2]]
    assert list(manifests.read(tmp_path).values()) == expected


def _bytes_read() -> int:
    """By this process so far, as the kernel counts them."""
    return int(
        dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"]
    )
