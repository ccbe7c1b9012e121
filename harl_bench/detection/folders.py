"""The folder of a planned run: one that is finished already, one to be resumed, or a new one."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from harl_bench.core.errors import UsageError
from harl_bench.core.results import CheckpointRef, Run, open_run
from harl_bench.detection.engines import ENGINES, choose
from harl_bench.nn import distributed

if TYPE_CHECKING:
    from harl_bench.detection.plan import Options


def opened(
    options: "Options",
    config: dict[str, Any],
    *,
    datasets: Sequence[str],
    fingerprints: Sequence[str],
    checkpoint: CheckpointRef,
    device: str,
    **identity: Any,
) -> tuple[Run, dict[str, Any], str]:
    """Return the run, its configuration, whose engine is that of the run, and the fingerprint of
    its data.

    Args:
        config: engine, processes and recipe, all of which decide the outcome.
        datasets: names of the test set, of earlier versions too; the first is the one that is
            recorded now.
        fingerprints: of the data, likewise.
        identity: the other arguments of `open_run`.

    Raises:
        UsageError: the run still has to be trained, in mixed precision and on the CPU.
    """
    found: tuple[Run, str, str] | None = None
    identity = {
        **identity,
        "checkpoint": checkpoint,
        "dataset": datasets[0],
        "data_fingerprint": fingerprints[0],
    }
    with distributed.failing_together():
        if distributed.is_main() and not options.fresh and checkpoint.format != "detector":
            found = _earlier(options, config, datasets, fingerprints, identity)
        if distributed.is_main() and (found is None or found[0].state != "finished"):
            _check_precision(options, config, device)
        if distributed.is_main() and found is None:
            fresh, looking = (
                options.fresh and not options.eval_only,
                options.dry_run or options.engine == "both",
            )
            run = open_run(options.out, config=config, fresh=fresh, dry_run=looking, **identity)
            found = run, config["engine"], fingerprints[0]
    run, engine, fingerprint = next(match for match in distributed.gather(found) if match)
    if options.eval_only:
        choose(engine)  # a run of Detectron2's is scored by Detectron2, which must still be there
    return run, {**config, "engine": engine}, fingerprint


def _earlier(
    options: "Options",
    config: dict[str, Any],
    datasets: Sequence[str],
    fingerprints: Sequence[str],
    identity: dict[str, Any],
) -> tuple[Run, str, str] | None:
    """Return a run that stands for this one, its engine and its data's fingerprint; None if there
    is none.

    One that is finished counts, however many processes made it and, for `--engine auto`, whichever
    engine did. Resuming takes as many processes as before; the torchvision engine's runs are
    resumed by it also where Detectron2 has been installed since.
    """
    look = partial(open_run, options.out, dry_run=True, **identity)
    own = config["engine"]
    names = [own, *(name for name in ENGINES if name != own)] if options.engine == "auto" else [own]
    total = config["recipe"]["SOLVER.IMS_PER_BATCH"]
    counts = [n for n in range(1, total + 1) if total % n == 0]
    for name, dataset, fingerprint, n in product(names, datasets, fingerprints, counts):
        run = look(
            config={**config, "engine": name, "processes": n},
            dataset=dataset,
            data_fingerprint=fingerprint,
        )
        if run.state == "finished":
            return run, name, fingerprint
    for fingerprint, name in product(fingerprints, names):
        run = look(config={**config, "engine": name}, data_fingerprint=fingerprint)
        if run.state == "unfinished" and name == own:
            return run, name, fingerprint
        if (
            run.state == "unfinished"
            and name == "torchvision"
            and any(run.checkpoints.glob("*.pth"))
        ):
            return run, name, fingerprint
    return None


def _check_precision(options: "Options", config: dict[str, Any], device: str) -> None:
    """Raise a UsageError where training would be recorded as mixed precision and computed in
    float32.
    """
    if device == "cpu" and config["recipe"]["SOLVER.AMP.ENABLED"] and not options.eval_only:
        way_out = "leave out --amp" if options.amp else "add the override SOLVER.AMP.ENABLED=False"
        raise UsageError(
            "mixed precision needs a GPU", seen="SOLVER.AMP.ENABLED True on the CPU", next=way_out
        )
