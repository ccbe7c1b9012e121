"""The loss and the learning rate beside NumPy and closed forms."""

import numpy as np
import pytest
import torch

from harl_bench.nn import distributed, launching
from harl_bench.segmentation import recipe, schedule
from harl_bench.segmentation.losses import cross_entropy, enlarged


def naive(logits: np.ndarray, labels: np.ndarray, mean: str) -> float:
    """Log-softmax pixel by pixel, at the logits' own size."""
    total = labelled = 0.0
    for b, y, x in np.ndindex(labels.shape):
        label = labels[b, y, x]
        if label != 255:
            z = logits[b, :, y, x]
            total += np.log(np.exp(z - z.max()).sum()) + z.max() - z[label]
            labelled += 1
    return total / (labels.size if mean == "all" else max(labelled, 1))


@pytest.mark.parametrize("mean", ["all", "labelled"])
@pytest.mark.parametrize("ignored", [0.0, 0.4, 1.0])
def test_the_two_denominators(mean: str, ignored: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 5, 7, 6)).astype(np.float32)
    labels = random.integers(0, 5, (2, 7, 6))
    labels[random.random(labels.shape) < ignored] = 255
    loss = cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), align_corners=True, mean=mean
    )
    assert float(loss) == pytest.approx(naive(logits, labels, mean), rel=1e-5, abs=1e-7)


def bilinear(values: np.ndarray, n: int, align: bool) -> np.ndarray:
    """One axis of a bilinear enlargement, the last one."""
    old = values.shape[-1]
    at = np.arange(n) * (old - 1) / (n - 1) if align else (np.arange(n) + 0.5) * old / n - 0.5
    at = at.clip(0, old - 1)
    low = np.minimum(np.floor(at).astype(int), old - 2)
    share = at - low
    return values[..., low] * (1 - share) + values[..., low + 1] * share


@pytest.mark.parametrize("align", [True, False])
def test_logits_are_enlarged_as_the_key_says(align: bool) -> None:
    x = np.random.default_rng(1).normal(size=(1, 2, 5, 4))
    rows = bilinear(x.swapaxes(2, 3), 17, align).swapaxes(2, 3)
    expected = bilinear(rows, 13, align)
    seen = enlarged(torch.from_numpy(x), (17, 13), align_corners=align).numpy()
    np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_the_loss_enlarges_first() -> None:
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 9, 9))
    large = enlarged(logits, (9, 9), align_corners=False)
    seen = cross_entropy(logits, labels, align_corners=False, mean="labelled")
    assert float(seen) == pytest.approx(float(torch.nn.functional.cross_entropy(large, labels)))


def both_halves(path: str) -> None:
    """Rank r holds image r; averaged gradients are those of both images in one process."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6))
    labels[1, :5] = 255  # the second has far fewer labelled pixels
    together = logits.clone().requires_grad_()
    rank = distributed.rank()
    mine = logits[rank : rank + 1].clone().requires_grad_()
    loss = cross_entropy(mine, labels[rank : rank + 1], align_corners=True, mean="labelled")
    loss.backward()
    torch.nn.functional.cross_entropy(together, labels, ignore_index=255).backward()
    assert mine.grad is not None
    assert together.grad is not None
    torch.testing.assert_close(mine.grad / 2, together.grad[rank : rank + 1])


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_processes_share_the_denominator() -> None:
    launching.launch(both_halves, 2, "")


def test_steps() -> None:
    solver = recipe.load("voc12aug-fcn16s-30k")[1].solver
    rates = [schedule.rate(solver, k) for k in (0, 20999, 21000, 26999, 27000, 29999)]
    assert rates == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4, 3e-5, 3e-5])


def test_poly_beside_the_recursion_that_mmengine_computes() -> None:
    solver = recipe.load("voc12aug-fcn-d8-20k", ["solver.iterations=50"])[1].solver
    rate, total = 0.01, 50 - 1
    for k in range(50):
        if k:
            rate = (rate - 1e-4) * (1 - 1 / (total - k + 1)) ** 0.9 + 1e-4
        assert schedule.rate(solver, k) == pytest.approx(rate, rel=1e-9)
    assert schedule.rate(solver, 49) == pytest.approx(1e-4)
