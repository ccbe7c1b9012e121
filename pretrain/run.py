"""The command `harl-bench pretrain`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harl_bench.core.errors import UsageError
from harl_bench.core.options import COMMON, HARDWARE, PROTOCOL, Device, DryRun, Fresh, Workers
from harl_bench.core.progress import duration, log, log_file
from harl_bench.core.results import Run, write_json


def pretrain(
    *overrides: Annotated[str, Parameter(help="key=value changes to the recipe, e.g. feature_grid=14")],
    data: Annotated[Path, Parameter(group=COMMON, help="Folder of pictures, flat or in sub-folders.")],
    method: Annotated[str | None, Parameter(group=PROTOCOL, help="harl or byol; must agree with the recipe.")] = None,
    masks: Annotated[Path | None, Parameter(group=COMMON, help="Folder of masks, same relative paths, .png.")] = None,
    out: Annotated[Path | None, Parameter(group=COMMON, help="Run folder; last.pth lands there.")] = None,
    recipe: Annotated[str | None, Parameter(group=PROTOCOL, help="Default: METHOD-100ep.")] = None,
    seed: Annotated[int | None, Parameter(group=COMMON)] = None,
    device: Device = "auto",
    workers: Workers = 2,
    allow_unreadable: Annotated[bool, Parameter(group=COMMON, negative="")] = False,
    preview: Annotated[bool, Parameter(group=COMMON, negative="", help="Write pictures/views.png and stop.")] = False,
    threads: Annotated[int | None, Parameter(group=HARDWARE, help="CPU threads of torch.")] = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Train a ResNet-50 without labels.

    The same command again goes on where it stopped; a finished run is left alone.

    Try:

        harl-bench pretrain --method harl --data imagenet/train --masks imagenet/masks --out runs/pretrain/harl

        harl-bench pretrain --method byol --data photos --recipe byol-100ep batch_size=64 epochs=20
    """
    from pretrain import config as configs

    changes = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    config = configs.load(recipe, method, changes)
    needs_masks = config.method == "harl"
    if needs_masks and masks is None:
        raise UsageError(
            "HARL needs masks", next=f"harl-bench masks make {data} --out MASKS --method drfi-lite, then --masks MASKS"
        )
    name = recipe_name(recipe, config.method)
    folder = out or Path("runs") / "pretrain" / data.resolve().name / name / config.method / f"seed{config.seed}"

    from harl_bench.nn import runtime
    from pretrain import data as pictures_of
    from pretrain.augment import BYOL_VIEWS
    from pretrain.methods import build

    found = pictures_of.find(data, masks if needs_masks else None)
    per_epoch = pictures_of.steps_per_epoch(len(found.paths), config.batch_size)
    log.info("%d pictures in %s; %d steps of %d pictures, %d epochs", len(found.paths), data, per_epoch * config.epochs,
             config.batch_size, config.epochs)  # fmt: skip
    if needs_masks:
        log.info("%d have a mask; %d have none and %d a rejected one: those count in the whole-picture term only",
                 sum(found.masked), len(found.paths) - sum(found.masked) - found.rejected, found.rejected)  # fmt: skip
    dataset = pictures_of.TwoViews(found, views=BYOL_VIEWS, size=config.image_size, seed=config.seed)
    where = runtime.device(device)
    if dry_run:
        for key, value in config.model_dump().items():
            log.info("  %s: %s", key, value)
        log.info("would train on %s into %s (--dry-run)", where, folder)
        return

    from pretrain import loop
    from pretrain import preview as previews

    identity: dict[str, object] = {
        "config": config.model_dump(exclude=NEUTRAL),
        "data_fingerprint": found.fingerprint(),
    }
    if finished(folder, identity, fresh=fresh):
        log.info("already finished: %s", folder / loop.LAST)
        return
    previews.save(dataset, folder / "pictures" / "views.png")
    if preview:
        log.info("wrote %s", folder / "pictures" / "views.png")
        return
    if threads:
        import torch

        torch.set_num_threads(threads)
    runtime.seed_everything(config.seed)
    import time

    began = time.monotonic()
    run = Run(folder, run_id="", state="unfinished")
    with run.locked(), log_file(folder / "log.txt"):
        last = loop.train(
            build(config), found, dataset, config, folder,
            device=where, workers=workers, allow_unreadable=allow_unreadable,
        )  # fmt: skip
        log.info(
            "wrote %s after %s, last loss %.4f", folder / loop.LAST, duration(time.monotonic() - began), last["loss"]
        )
        write_json(folder / "done.json", {"steps": per_epoch * config.epochs, **last})


# What a run may change on its way: it decides what is written when, not what is learnt.
NEUTRAL = {"log_every_steps", "checkpoint_every_steps"}


def recipe_name(recipe: str | None, method: str) -> str:
    """The part of the default run folder that names the recipe."""
    return Path(recipe).stem if recipe else f"{method}-100ep"


def finished(folder: Path, identity: dict[str, object], *, fresh: bool) -> bool:
    """Claim the folder for this run; True when it is already done.

    Raises:
        UsageError: the folder holds a run with other settings or other data.
    """
    import json
    import shutil

    import yaml

    known = folder / "run.json"
    if fresh and known.exists():
        shutil.rmtree(folder)
    if known.exists():
        try:
            before = json.loads(known.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if before != json.loads(json.dumps(identity)):
            raise UsageError("the folder holds another run", where=folder, seen=difference(before, identity),
                             next="choose another --out, or --fresh to throw that run away")  # fmt: skip
        return (folder / "done.json").exists()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(identity["config"], sort_keys=False), encoding="utf-8")
    write_json(known, identity)
    return False


def difference(before: dict[str, object], now: dict[str, object]) -> str:
    """What changed between two runs' identities, in words."""
    old, new = before.get("config"), now["config"]
    if isinstance(old, dict) and isinstance(new, dict) and old != new:
        keys = [key for key in new if old.get(key) != new[key]]
        return ", ".join(f"{key} was {old.get(key)}, now {new[key]}" for key in keys[:4])
    return "its data changed"
