"""A GPU's full memory: a second try, then the CPU; else one line with the command's own remedy."""

import pytest
import torch
from torchvision.ops import batched_nms

from harl_bench.core.errors import MachineError, explained
from harl_bench.detection.torchvision_engine import boxes
from harl_bench.nn.runtime import gpu_memory, retry_on_cpu


def failing(function, times):
    """`function`, which reports a full GPU so many times before it computes; and its calls."""
    calls = []

    def called(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return function(*arguments)

    return called, calls


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_full_gpu_is_tried_again_and_then_the_cpu_computes(times):
    called, calls = failing(torch.add, times)
    assert retry_on_cpu(called, torch.tensor(2), 3) == 5
    assert len(calls) == times + 1


def test_what_fails_on_the_cpu_too_is_an_error():
    called, calls = failing(torch.add, 3)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        retry_on_cpu(called, torch.tensor(2), 3)
    assert len(calls) == 3


def test_other_errors_are_not_tried_again():
    calls = []

    def broken(x):
        calls.append(x)
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        retry_on_cpu(broken, torch.tensor(1))
    assert len(calls) == 1


def test_nms_and_matching_survive_a_full_gpu(monkeypatch):
    """Detectron2's cases: hundreds of objects on all anchors, thousands of boxes of one level."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * 50
    some = torch.cat([corners, corners + 5 + torch.rand(200, 2, generator=generator) * 20], 1)
    scores, groups = torch.rand(200, generator=generator), torch.arange(200) % 3
    expected = batched_nms(some, scores, groups, 0.5)
    matcher = boxes.Matcher(0.7, 0.3, allow_low_quality_matches=True)
    index, label = boxes.match(matcher, some[:5], some)

    called, calls = failing(batched_nms, 2)
    monkeypatch.setattr(boxes, "batched_nms", called)
    assert torch.equal(boxes.nms(some, scores, groups, 0.5), expected)
    assert len(calls) == 3

    called, calls = failing(boxes.box_iou, 2)
    monkeypatch.setattr(boxes, "box_iou", called)
    again_index, again_label = boxes.match(matcher, some[:5], some)
    assert torch.equal(again_index, index)
    assert torch.equal(again_label, label)
    assert len(calls) == 3


def test_a_full_gpu_is_one_line_with_the_commands_own_remedy():
    error = torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")
    with pytest.raises(MachineError) as caught, gpu_memory("--batch 4 --scale-lr"):
        raise error
    assert caught.value.line() == (
        "error[environment]: the memory of the GPU is full; seen: CUDA out of memory. Tried to "
        "allocate 2.00 GiB; "
        "next: --batch 4 --scale-lr"
    )
    general = explained(error)
    assert (general.exit_code, general.what) == (5, "the memory of the GPU is full")
    assert "accumulate" not in general.line()  # voc and coco refuse it
