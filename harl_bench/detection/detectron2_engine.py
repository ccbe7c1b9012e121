"""The real Detectron2's training under our recipes; with detectron2_model.py all that imports it.

Model, mapper, optimizer, schedule, trainer and hooks are Detectron2's own. Ours are the data (both
engines get the same images in the same order, and a run resumes where it stopped), the backbone
weights, and the scoring. detectron2.model_zoo is never imported: it needs pkg_resources, which
setuptools 82 dropped (detectron2#5494).
"""

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter
from torch import nn

from harl_bench.core.errors import TrainingError
from harl_bench.core.progress import Tracker, log
from harl_bench.core.stopping import Stop, stoppable
from harl_bench.core.unreadable import note
from harl_bench.detection.detectron2_model import Mapper, configuration, predict
from harl_bench.detection.engines import Job
from harl_bench.detection.scoring import score
from harl_bench.detection.torchvision_engine import checkpoints
from harl_bench.detection.torchvision_engine.data import Batch, training_batches
from harl_bench.detection.torchvision_engine.recompute import save_memory
from harl_bench.detection.torchvision_engine.train import precise_start
from harl_bench.detection.torchvision_engine.weights import load_backbone_into
from harl_bench.nn import distributed
from harl_bench.nn.runtime import rng_state, seed_everything, set_rng_state
from harl_bench.nn.session import stop_together


def train(job: Job) -> dict[str, Any]:
    """Train with Detectron2's trainer to checkpoints/model_final.pth, or resume.

    Returns and raises as the torchvision engine's `train`.
    """
    _create_local_group(distributed.world_size())
    _log_to(job.folder / "detectron2.log")
    seed_everything(job.seed)
    with stoppable() as stop:
        trainer = _Trainer(job, stop)
        if trainer.start_iter < trainer.max_iter:
            try:
                with Tracker(
                    "train", trainer.max_iter, start=trainer.start_iter, unit="iterations"
                ) as trainer.tracker:
                    trainer.train()
            except FloatingPointError as error:
                seen, hint = " ".join(str(error).split())[:200], "lower SOLVER.BASE_LR"
                raise TrainingError("the loss is not finite", seen=seen, next=hint) from None
    for share in distributed.gather(trainer.unreadable):
        trainer.unreadable.update(share)
    return {"unreadable": trainer.unreadable, "wall_s": trainer.wall_s()}


class _Trainer(DefaultTrainer):  # type: ignore[misc]
    """DefaultTrainer on our data, with exact resume, stopping on signals and our files."""

    def __init__(self, job: Job, stop: Stop) -> None:
        self.job, self.stop, self.unreadable = job, stop, dict[str, str]()
        self.tracker: Tracker | None = None
        self.began, self.spent_s = time.monotonic(), 0.0
        cfg = configuration(job.recipe, job.device)
        cfg.OUTPUT_DIR, cfg.SEED = str(job.folder / "checkpoints"), job.seed
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        super().__init__(cfg)
        detector = getattr(self.model, "module", self.model)
        load_backbone_into(detector, job.tensors)
        if job.save_memory:
            save_memory(detector, (BasicStem, BottleneckBlock))
        seed_everything(job.seed + comm.get_rank())
        self.resume_or_load(resume=True)

    @property
    def model(self) -> nn.Module:
        """Return the network in training, wrapped if there are several processes."""
        return self._trainer.model  # type: ignore[no-any-return]

    def build_train_loader(self, cfg: CfgNode) -> Any:  # not a class method: it needs the job
        """Return a stream from the iteration where training starts, which is known later."""
        return _Stream(self)

    def build_writers(self) -> list[Any]:
        """Write metrics.jsonl, and metrics.json as a link to it."""
        path, alias = self.job.folder / "metrics.jsonl", self.job.folder / "metrics.json"
        if not alias.is_symlink():
            alias.symlink_to(path.name)
        return [CommonMetricPrinter(self.max_iter), JSONWriter(str(path))]

    def build_hooks(self) -> list[Any]:
        """Return Detectron2's hooks in its order, with two checkpoints and our own evaluation."""
        cfg, result = self.cfg, []
        period, count = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER
        for hook in super().build_hooks():
            if isinstance(hook, hooks.PreciseBN):
                hook = hooks.PreciseBN(period, self.model, _Stream(self, precise=True), count)
            elif isinstance(hook, hooks.PeriodicCheckpointer):
                hook = _CheckpointHook(
                    self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=2
                )
                hook.evaluation_period = period
            elif isinstance(hook, hooks.EvalHook):
                hook = hooks.EvalHook(period, self._scores, eval_after_train=False)
            result.append(hook)
        return [*result, _ProgressHook()]

    def _scores(self) -> OrderedDict[str, Any]:
        predictions = predict(self.model, self.job, self.stop)
        if not comm.is_main_process():
            return OrderedDict()
        masks, library = bool(self.cfg.MODEL.MASK_ON), self.job.evaluator
        scores = score(self.job.test, predictions, masks=masks, library=library)
        nested: OrderedDict[str, Any] = OrderedDict()
        for name, value in scores.metrics.items():
            task, _, kind = name.rpartition("/")
            nested.setdefault(task or "bbox", {})[kind] = float("nan") if value is None else value
        return nested

    def wall_s(self) -> float:
        """Return the seconds of training over all sessions."""
        return self.spent_s + time.monotonic() - self.began

    def state_dict(self) -> dict[str, Any]:
        """Return the contents of a checkpoint besides the model."""
        own = {"rng": rng_state(), "wall_s": self.wall_s(), "unreadable": self.unreadable}
        own["network"] = checkpoints.of_network(self.job.recipe)
        return super().state_dict() | {"harl_bench": own}  # type: ignore[no-any-return]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        own = state_dict.pop("harl_bench")
        super().load_state_dict(state_dict)
        set_rng_state(own["rng"])
        self.spent_s, self.unreadable = own["wall_s"], own["unreadable"]
        log.info("resuming after iteration %d", self.iter + 1)


class _Stream:
    """Our batches through Detectron2's mapper."""

    def __init__(self, trainer: _Trainer, *, precise: bool = False) -> None:
        self.trainer, self.precise = trainer, precise

    def __iter__(self) -> Iterator[Batch]:
        trainer, job = self.trainer, self.trainer.job
        start = trainer.start_iter
        if self.precise:
            start = precise_start(job.recipe, start)
        mapper = Mapper(job.recipe, job.train, training=True)
        batches = training_batches(
            job.train,
            job.recipe,
            seed=job.seed,
            start=start,
            workers=job.workers,
            rank=comm.get_rank(),
            world=comm.get_world_size(),
            transform=mapper,
        )
        for batch in batches:
            note(batch, trainer.unreadable, len(job.train.samples), allowed=job.allow_unreadable)
            yield batch


class _CheckpointHook(hooks.PeriodicCheckpointer):  # type: ignore[misc]
    """Saves as Detectron2's, and before an evaluation, which a signal may end."""

    period: int
    evaluation_period = 0

    def step(self, iteration: int, **state: Any) -> None:
        """Save after `iteration` if it is due."""
        period = self.period
        if self.evaluation_period and (iteration + 1) % self.evaluation_period == 0:
            self.period = 1
        super().step(iteration, **state)
        self.period = period


class _ProgressHook(HookBase):  # type: ignore[misc]
    """After each iteration show progress, and save and stop after a signal."""

    def after_step(self) -> None:
        trainer: Any = self.trainer
        latest = trainer.storage.latest()
        values = {key: float(latest[key][0]) for key in ("total_loss", "lr") if key in latest}
        trainer.tracker.advance(**values)
        if distributed.any_process(trainer.stop.asked) and trainer.iter + 1 < trainer.max_iter:
            if comm.is_main_process():
                trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
            comm.synchronize()
            stop_together(
                trainer.stop, f"iteration {trainer.iter + 1} of {trainer.max_iter} is saved"
            )


def _log_to(path: Path) -> None:
    """Send Detectron2's own log to a file, and its warnings to the terminal as well.

    The terminal has no traceback of an exception: it is raised again, and the command reports it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    logger, terminal = logging.getLogger("detectron2"), logging.StreamHandler()
    logger.setLevel(logging.INFO)
    terminal.setLevel(logging.WARNING)
    terminal.addFilter(lambda log_record: not log_record.exc_info)
    logger.propagate = False
    logger.handlers[:] = [terminal, logging.FileHandler(path, encoding="utf-8")]


def _create_local_group(world: int) -> None:
    """Create the group of the machine's processes that Detectron2 needs besides the global one."""
    if world > 1 and comm._LOCAL_PROCESS_GROUP is None:
        comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", world)))
