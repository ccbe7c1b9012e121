"""Record what the real Detectron2 computes, for tests that run without it.

    python tests/golden/record_detection.py [CASE ...]

needs Detectron2 (docs/detectron2.md) beside harl-bench. Writes tests/golden/detection/CASE.json and
solver.json: per quantity [sum, sum of absolute values, largest absolute value, number of values],
with the versions and the machine.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from detectron2.solver import build_optimizer  # noqa: E402

from tests.detection import parity  # noqa: E402
from tests.golden import detectron2_side  # noqa: E402

# facebookresearch/detectron2, 2026-06-06; installed from this commit
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"


def digests(seen: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Nine digits: a float32 has seven."""
    return {name: [float(f"{x:.9g}") for x in parity.digest(value)] for name, value in seen.items()}


def write(name: str, content: dict[str, Any]) -> None:
    """One quantity a line, so that a change is a readable diff."""
    made = {
        "detectron2": f"{COMMIT} ({version('detectron2')})",
        "script": "tests/golden/record_detection.py",
    }
    path = HERE / "detection" / f"{name}.json"
    lines = [f'"made": {json.dumps(made | parity.machine())}']
    for section, values in content.items():
        rows = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()
        )
        lines.append(f'"{section}": {{\n{rows}\n}}')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(path, path.stat().st_size, "bytes")


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*parity.CASES, "solver"]:
        if name == "solver":
            write("solver", detectron2_side.solver())
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
        write(name, content)


if __name__ == "__main__":
    main()
