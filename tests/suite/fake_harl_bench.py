"""Stands in for `harl-bench`: leaves the run folders of the real commands, in no time.

What FAKE_BROKEN names fails: {"a word of the command": "how"}.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

words = sys.argv[1:]
if "--dry-run" in words:  # what FAKE_REFUSED names is refused before anything starts
    if os.environ.get("FAKE_REFUSED") in words:
        print("error[data]: it is refused; in here", file=sys.stderr)
        sys.exit(3)
    sys.exit()

from harl_bench.core.files import write_json  # noqa: E402 most of its time

options = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\n")
with open(Path(os.environ["FAKE_CALLS"]).with_name("gpus"), "a") as seen:
    seen.write(f"{words[0]} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
how = next(
    (how for word, how in json.loads(os.environ.get("FAKE_BROKEN", "{}")).items() if word in words),
    "",
)
out = Path(options.get("--out", "."))


def end() -> None:
    if how == "error":
        print("warning: not the last line", file=sys.stderr)
        print("error[data]: it is broken; in here", file=sys.stderr)
        sys.exit(3)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "preempted":
        sys.exit(75)
    if how == "interrupted":
        sys.exit(130)
    if how == "slow":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        Path(os.environ["FAKE_CALLS"]).with_name("ready").touch()
        time.sleep(30)


if words[0] == "pretrain":
    write_json(out / "run.json", {"config": {}})
    if how == "half":  # fails after it saved its state
        (out / "last.pth").write_bytes(b"weights of half the steps")
        how = "error"
    end()
    (out / "last.pth").write_bytes(b"weights")
    write_json(out / "done.json", {})
elif words[0] == "masks":
    end()
    if words[1] != "evaluate":
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(b"made") if words[1] == "fit" else (out / "x").mkdir(
            parents=True, exist_ok=True
        )
elif words[0] == "report":
    Path(options["--md"]).write_text("the report")
    end()
else:
    import hashlib

    from harl_bench.core.results import CheckpointRef, Result
    from harl_bench.core.runs import open_run, write_result

    source = words[1]
    sha = "" if source == "random" else hashlib.sha256(Path(source).read_bytes()).hexdigest()
    ref = CheckpointRef(path=source, name=Path(source).stem, sha256=sha, format="fake")
    detection = words[0] in ("voc", "coco")
    about: dict[str, Any] = {
        "task": words[0],
        "dataset": "voc07+12" if detection else f"folder-{Path(options['--data']).name}",
        "protocol": Path(options["--recipe" if detection else "--protocol"]).name.removesuffix(
            ".yaml"
        ),
        "checkpoint": ref,
        "seed": int(options["--seeds"]),
        "config": {"overrides": [w for w in words if "=" in w]},
    }
    if how != "early":
        run = open_run(out, **about, data_fingerprint="")
        (run.folder / "log.txt").touch()
        with run.locked():
            end()
        result = Result(
            run_id=run.run_id,
            engine="fake",
            method="fake",
            metrics={"top1": 1.0},
            n_test=1,
            manifest={"argv": ["harl-bench", *words]},
            started="",
            wall_s=60,
            peak_memory_mb=0,
            **about,
        )
        write_result(run, result)
    else:
        sys.exit(2)
print("said", *words)
