"""Whose run a folder holds: this one, finished or not, another one, or none."""

from pathlib import Path

from harl_bench.core.errors import BenchError, CheckpointError, UsageError
from harl_bench.core.files import write_json
from harl_bench.core.progress import log
from harl_bench.core.runs import Run
from pretrain.config import PretrainConfig
from pretrain.job import Job

# What a run writes into its folder, run.json last: --fresh removes these and nothing else.
OWN = (
    "done.json",
    "last.pth",
    "metrics.jsonl",
    "log.txt",
    "unreadable.txt",
    "config.yaml",
    "pictures/views.png",
    "tensorboard/events.out.tfevents.*",
    "run.json",
)


def claimed(
    folder: Path, job: Job, count: int, *, fresh: bool, preview: bool, dry_run: bool = False
) -> bool:
    """Whether there is something left to train; the first process looks, writes unless `dry_run`,
    tells the others.

    `count` processes share each batch: without sync_bn they decide how many images batch norm sees.
    """
    from harl_bench.nn import distributed
    from pretrain.parallel import bn_groups
    from pretrain.recipe import NEUTRAL
    from pretrain.state import LAST

    outcome: bool | BenchError = False
    if distributed.is_main():
        try:
            bn_groups(job.config, count)  # refused before the folder is claimed
            identity: dict[str, object] = {
                "config": job.config.model_dump(exclude=NEUTRAL),
                "data_fingerprint": job.images.fingerprint(),
                "contents": job.images.contents(),
                **job.config.identity(),
                **({} if job.config.sync_bn else {"processes": count}),
            }
            if finished(folder, identity, job.config, fresh=fresh, dry_run=dry_run):
                log.info("already finished: %s", folder / LAST)
            elif dry_run:
                outcome = True
            else:
                from pretrain import preview as previews

                views = folder / "pictures" / "views.png"
                previews.save(job.dataset(), views)
                if preview:
                    log.info("wrote %s", views)
                outcome = not preview
        except BenchError as error:
            outcome = error
    outcome = distributed.gather(outcome)[0]
    if isinstance(outcome, BenchError):
        raise outcome
    return outcome


def finished(
    folder: Path,
    identity: dict[str, object],
    config: PretrainConfig,
    *,
    fresh: bool,
    dry_run: bool = False,
) -> bool:
    """Claim the folder for this run, unless `dry_run`; True when it is already done.

    Raises:
        UsageError: the folder holds a run, or a state, with other settings or other data.
        CheckpointError: the run is finished, but its weights are gone.
    """
    import json

    import yaml

    from harl_bench.nn import checkpoint
    from pretrain.recipe import settings
    from pretrain.state import LAST, changed, refuse_another_run

    known, state = folder / "run.json", folder / LAST
    if fresh and dry_run:
        return False
    if fresh and folder.is_dir():
        with Run(folder, run_id="", state="unfinished").locked():
            names = OWN if known.exists() else OWN[:2]  # without it the others may be anyone's
            for path in [path for name in names for path in folder.glob(name)]:
                path.unlink()
    if known.exists():
        try:
            before = json.loads(known.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if isinstance(before.get("config"), dict):
            before["config"] = settings(before["config"])
        if "processes" in identity and before:
            # Runs of earlier versions do not say.
            before.setdefault("processes", identity["processes"])
        if before:
            before.setdefault("contents", identity["contents"])
        if json.loads(json.dumps(before)) != json.loads(json.dumps(identity)):
            raise UsageError(
                "the folder holds another run",
                where=folder,
                seen=changed(before, identity),
                next="choose another --out, or --fresh to throw that run away",
            )
        done = (folder / "done.json").exists()
        if done and not state.exists():
            raise CheckpointError(
                "the run is finished, but its weights are gone",
                where=state,
                next="put the file back, or --fresh to train again",
            )
        return done
    if state.exists():
        refuse_another_run(
            state, checkpoint.load_own(state), config, str(identity["data_fingerprint"])
        )
    if dry_run:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(identity["config"], sort_keys=False), encoding="utf-8"
    )
    write_json(known, identity)
    return False
