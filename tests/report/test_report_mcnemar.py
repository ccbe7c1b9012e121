"""One seed each: significance by the stored answers to the same test images."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harl_bench.core.results import Result
from harl_bench.report.assembly import tables_of
from harl_bench.report.collect import entries_of
from harl_bench.report.mcnemar import mcnemar
from tests.report.report_store import result
from tests.report.test_report_tables import row


def answered(
    folder: Path, method: str, right: NDArray[np.bool_], seed: int = 0
) -> tuple[Path, Result]:
    path = folder / method / str(seed) / "result.json"
    path.parent.mkdir(parents=True)
    names = np.array([f"{i}.jpg" for i in range(len(right))])
    np.savez(path.parent / "predictions.npz", paths=names, place=np.where(right, 0, 3))
    score = 100 * float(right.mean())
    return path, result("classify", method, seed, score=score, dataset="dtd", protocol="linear")


@pytest.mark.parametrize(
    ("won", "lost", "stars"), [(30, 4, "**"), (16, 5, "*"), (14, 8, ""), (0, 0, "")]
)
def test_one_seed_is_compared_image_by_image(
    tmp_path: Path, won: int, lost: int, stars: str
) -> None:
    """Of 200 images; p by the binomial tail, summed here: 4e-6, 0.027, 0.29."""
    base = np.arange(200) < 100
    ours = base.copy()
    ours[100 : 100 + won] = True
    ours[:lost] = False
    both = entries_of([answered(tmp_path, "byol", base), answered(tmp_path, "harl", ours)])
    found = mcnemar(*(next(e for e in both if e.method == method) for method in ("harl", "byol")))
    if won + lost:
        tail = (
            2 * sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
        )
        assert found is not None
        assert (found.p, found.difference) == (pytest.approx(tail), pytest.approx((won - lost) / 2))
    table = next(
        t for t in tables_of(both, baseline="byol") if any("DTD" in c.heading for c in t.columns)
    )
    cells = row(table, "HARL", ours=True).cells
    assert [cell.stars for cell in cells if cell.estimate] == [stars]
    assert any("McNemar" in text for _, text in table.notes) == bool(won + lost)


@pytest.mark.parametrize(("varied", "stars"), [(False, "**"), (True, "")])
def test_seeds_of_equal_scores_are_compared_as_one(
    tmp_path: Path, varied: bool, stars: str
) -> None:
    """DTD's validation split is official: three seeds give the same numbers three times."""
    runs = []
    for method, hits in (("byol", 100), ("harl", 130)):
        for seed in range(2 + (not varied)):  # two that vary are not tested
            path, r = answered(tmp_path, method, np.arange(200) < hits, seed)
            equal = r.model_copy(update={"metrics": {"top1": hits / 2 + seed * varied}})
            runs.append((path, equal))
    table = tables_of(entries_of(runs), baseline="byol")[0]
    cells = row(table, "HARL", ours=True).cells
    assert [cell.stars for cell in cells if cell.estimate] == [stars]


def test_answers_for_other_images_or_none_are_not_compared(tmp_path: Path) -> None:
    right = np.arange(50) < 25
    pair = [answered(tmp_path, "byol", right), answered(tmp_path, "harl", right[:40])]
    harl, byol = sorted(entries_of(pair), key=lambda e: e.method, reverse=True)
    assert mcnemar(harl, byol) is None
    (pair[1][0].parent / "predictions.npz").write_bytes(b"PK damaged")
    assert mcnemar(harl, byol) is None
