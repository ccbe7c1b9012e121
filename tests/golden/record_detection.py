"""Record what the real Detectron2 computes, for tests that run without it.

    python tests/golden/record_detection.py [CASE ...]

needs Detectron2 (docs/detectron2.md) beside harl-bench. Writes tests/golden/detection/CASE.json and
solver.json: per quantity [sum, sum of absolute values, largest absolute value, number of values],
with the versions and the machine.
"""

import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from detectron2.solver import build_optimizer  # noqa: E402

from tests.detection import parity  # noqa: E402
from tests.golden import detectron2_side  # noqa: E402
from tests.golden.digests import digests, write  # noqa: E402

# facebookresearch/detectron2, 2026-06-06; installed from this commit
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
MADE = {
    "detectron2": f"{COMMIT} ({version('detectron2')})",
    "script": "tests/golden/record_detection.py",
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*parity.CASES, "solver"]:
        if name == "solver":
            write(HERE / "detection/solver.json", MADE, detectron2_side.solver())
            continue
        cfg = parity.case_recipe(name)
        content = {"observed": digests(parity.observe(detectron2_side.theirs(cfg), cfg))}
        if name in parity.TRAINED:
            side = detectron2_side.theirs(cfg)
            optimizer = build_optimizer(detectron2_side.config(cfg), side.model)
            content["trained"] = digests(parity.train(side, cfg, optimizer))
        if name == "fpn-4conv1fc":
            state = detectron2_side.precise(cfg, parity.precise_batches())
            content["precise"] = digests({n: v for n, v in state.items() if "running_" in n})
        write(HERE / "detection" / f"{name}.json", MADE, content)


if __name__ == "__main__":
    main()
