"""Where a missing file lies instead, on real folders."""

import pytest

from harl_bench.core.nearby import nearby


@pytest.mark.parametrize(
    ("there", "missing", "found"),
    [
        ("train2017/train2017/x.jpg", "train2017/x.jpg", "train2017/train2017/x.jpg"),
        ("images/val2017/x.jpg", "val2017", "images/val2017"),
        ("a/x.JPG", "a/x.jpg", "a/x.JPG"),
        ("a/X.png", "a/x.jpg", "a/X.png"),
        ("a/y.jpg", "a/x.jpg", None),
        ("a/x.jpg", "b/x.jpg", None),
    ],
)
def test_nearby(tmp_path, there, missing, found):
    path = tmp_path / there
    path.parent.mkdir(parents=True)
    path.touch()
    assert nearby(tmp_path / missing) == (tmp_path / found if found else None)
