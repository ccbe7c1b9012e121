"""The folder of a planned run: of a finished one, of one to resume, or a new one."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

from harl_bench.core.errors import UsageError
from harl_bench.core.results import CheckpointRef
from harl_bench.core.runs import Run, open_run
from harl_bench.core.siblings import usual_fingerprint
from harl_bench.detection.engines import ENGINES, choose
from harl_bench.detection.options import Options
from harl_bench.nn import distributed


def resolve_folder(
    options: Options,
    config: dict[str, Any],
    *,
    datasets: Sequence[str],
    fingerprints: Sequence[str],
    checkpoint: CheckpointRef,
    device: str,
    **identity: Any,
) -> tuple[Run, dict[str, Any], str]:
    """Return the run, its configuration with its own engine, and the fingerprint of its data.

    Args:
        config: engine, processes and recipe, all of which decide the outcome.
        datasets: names of the test set, the current one before those of earlier versions.
        fingerprints: of the data, likewise.
        identity: the other arguments of `open_run`.

    A new run takes the fingerprint of the data that the checkpoint's other seeds have.

    Raises:
        DataError: a run counts as this one but for its labels or images.
        UsageError: the run still has to be trained, in mixed precision and on the CPU.
    """
    match: tuple[Run, str, str] | None = None
    identity["checkpoint"] = checkpoint
    identity |= {"dataset": datasets[0], "data_fingerprint": fingerprints[0]}
    with distributed.failing_together():
        if distributed.is_main() and not options.fresh and checkpoint.format != "detector":
            match = _earlier(options, config, datasets, fingerprints, identity)
        if distributed.is_main() and (match is None or match[0].state != "finished"):
            _check_precision(options, config, device)
        if distributed.is_main() and match is None:
            fresh = options.fresh and not options.eval_only
            dry_run = options.dry_run or options.engine == "both"
            look_up = partial(open_run, options.out, config=config, **identity)
            folder = look_up(fresh=True, dry_run=True).folder
            usual = usual_fingerprint(folder, fingerprints[:2])
            run = look_up(fresh=fresh, dry_run=dry_run, data_fingerprint=usual)
            match = run, config["engine"], usual
    run, engine, fingerprint = next(filter(None, distributed.gather(match)))
    if options.eval_only:
        choose(engine)  # a run of Detectron2's is scored by Detectron2, so it must be installed
    return run, {**config, "engine": engine}, fingerprint


def _earlier(
    options: Options,
    config: dict[str, Any],
    datasets: Sequence[str],
    fingerprints: Sequence[str],
    identity: dict[str, Any],
) -> tuple[Run, str, str] | None:
    """Return an earlier run that counts as this one, its engine and its data's fingerprint.

    A finished one counts, whatever its number of processes and, for `--engine auto`, its engine.
    Resuming takes as many processes as before. The torchvision engine resumes its runs even if
    Detectron2 has been installed since. None if there is no such run.
    """
    look_up = partial(open_run, options.out, dry_run=True, **identity)
    own = config["engine"]
    names = [own, *(name for name in ENGINES if name != own)] if options.engine == "auto" else [own]
    total = config["recipe"]["SOLVER.IMS_PER_BATCH"]
    counts = [n for n in range(1, total + 1) if total % n == 0]
    for name, dataset, fingerprint, n in product(names, datasets, fingerprints, counts):
        settings = {**config, "engine": name, "processes": n}
        run = look_up(config=settings, dataset=dataset, data_fingerprint=fingerprint)
        if run.state == "finished":
            return run, name, fingerprint
    for fingerprint, name in product(fingerprints, names):
        run = look_up(config={**config, "engine": name}, data_fingerprint=fingerprint)
        resumable = name == "torchvision" and any(run.checkpoints.glob("*.pth"))
        if run.state == "unfinished" and (name == own or resumable):
            return run, name, fingerprint
    return None


def _check_precision(options: Options, config: dict[str, Any], device: str) -> None:
    """Raise a UsageError for mixed precision on the CPU, which would compute in float32."""
    if device == "cpu" and config["recipe"]["SOLVER.AMP.ENABLED"] and not options.eval_only:
        seen = "SOLVER.AMP.ENABLED True on the CPU"
        hint = "leave out --amp" if options.amp else "add the override SOLVER.AMP.ENABLED=False"
        raise UsageError("mixed precision needs a GPU", seen=seen, next=hint)
