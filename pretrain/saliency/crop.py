"""Saliency-guided contrastive learning on scene images (Chen et al., arXiv 2302.11461),
reconstructed.

Known from the abstract: a saliency map made of the model's own output while it learns guides where
positive pairs are cropped, and the crops' losses are re-weighted by their saliency. The rest is
ours (docs/fidelity.md 5): BYOL or MoCo v2 between two global views, plus n local crops, each
compared with both global views. `maps.py` has the map and the weights, one function each.

Letters: B batch, n local crops; p, q online predictions, z, k target projections.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from harl_bench.nn import distributed, resnet
from harl_bench.nn.runtime import sent
from pretrain.augment import normalise
from pretrain.batch import Batch, Scene
from pretrain.config import VIEW_KEYS, PretrainConfig
from pretrain.data import TwoViews
from pretrain.images import Images
from pretrain.losses import info_nce_each, regression
from pretrain.methods import byol, method_class, mocov2
from pretrain.methods.byol import Byol
from pretrain.methods.method import Siamese, StepOutput, Wrapper, global_pool
from pretrain.methods.mocov2 import Mocov2
from pretrain.parallel import share_statistics
from pretrain.saliency.maps import MapMemory, box_means, saliency_map, weights
from pretrain.saliency.scenes import SceneViews


class Config(PretrainConfig):
    """Keys of saliency-guided crops, beside their base's."""

    base: Literal["byol", "mocov2"] = "byol"
    local_crops: int = Field(default=4, ge=0, description="local crops of each image")
    local_size: int = Field(default=96, ge=32, description="their side in pixels")
    local_weight: float = Field(default=1.0, ge=0, description="beta, weight of their loss")
    saliency_map: Literal["cosine", "projected", "activation"] = "cosine"
    saliency_warmup: float = Field(
        default=0.1, ge=0, le=1, description="fraction of the steps before maps are made"
    )
    saliency_momentum: float = Field(
        default=0.9, ge=0, lt=1, description="of each image's map over epochs"
    )
    saliency_temperature: float = Field(
        default=1.0, gt=0, description="of the places of local crops; below 1 sharper"
    )

    @model_validator(mode="after")
    def _epochs_are_those_of_the_maps(self) -> Self:
        if self.accumulation_ramp:
            raise ValueError("saliency_crop keeps maps by epoch, without accumulation_ramp")
        return self

    def unused(self) -> dict[str, str]:
        """Return the keys of views, which are this method's own, and of local crops without any."""
        unused = super().unused() | dict.fromkeys(
            ("views", *VIEW_KEYS), "methods without views of their own"
        )
        if self.local_crops:
            return unused
        keys = ("local_size", "local_weight", "saliency_temperature")
        return unused | dict.fromkeys(keys, "saliency_crop with local crops")


class OnByol(Config, byol.Config):
    base: Literal["byol"] = "byol"


class OnMocov2(Config, mocov2.Config):
    base: Literal["mocov2"] = "mocov2"


class SaliencyCrop(Wrapper):
    """L = L_base + beta mean_b mean_j sum_i w_bi D(p(local_bi), z(global_bj)).

    The target network makes the maps, in evaluation mode: a map then depends on its image alone.
    """

    configs = {"byol": OnByol, "mocov2": OnMocov2}
    traced = ("losses", "_local_distances")
    base: Byol | Mocov2

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.base)
        self.config = config
        self.maps = MapMemory(0)

    @classmethod
    def dataset(cls, images: Images, config: PretrainConfig, *, unfinished: bool) -> TwoViews:
        """Return global views and local crops, placed by each image's saliency map."""
        assert isinstance(config, Config), "the configuration of this method"
        return SceneViews(
            images,
            size=config.image_size,
            seed=config.seed,
            local_crops=config.local_crops,
            local_size=config.local_size,
            temperature=config.saliency_temperature,
            momentum=config.saliency_momentum,
            unfinished=unfinished,
            cells=cls.cells(config),
        )

    @classmethod
    def passes(cls, config: PretrainConfig) -> float:
        """Return the base's, and the local crops' by their area."""
        assert isinstance(config, Config), "the configuration of this method"
        base: Siamese = method_class(config.base)
        trained = config.local_crops if config.local_weight else 0
        return base.passes(config) + trained * (config.local_size / config.image_size) ** 2

    def attach(self, dataset: TwoViews) -> None:
        """Write maps where the data workers read them. They are saved with the networks."""
        assert isinstance(dataset, SceneViews), "the data set of this method"
        self.maps = dataset.memory

    def forward(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Send global views through the base, and compare local crops with their targets."""
        loss, z, spread = self.losses(batch.views)
        self.base.keep("whole", z, None)
        logs: dict[str, float | Tensor] = {**self.base.log_values(k, K), "feature_std": spread}
        scene = batch.scene
        if scene is None:
            return StepOutput(loss, logs)
        guided = k >= self.config.saliency_warmup * K
        if guided:
            self._remember(scene, k * self.config.epochs // K)  # global crops follow the maps, too
        if not len(scene.local) or not self.config.local_weight:
            return StepOutput(loss, logs)
        boxes = scene.boxes[len(scene.boxes) - len(scene.local) :]
        maps = sent(self.maps.current(scene.index), boxes.device)
        w = weights(box_means(maps, boxes) if guided else boxes.new_ones(boxes.shape[:2]))
        D = self._local_distances(scene.local, z)
        local = (w * D).sum(dim=0).mean()
        logs |= {
            "loss_global": loss.detach(),
            "loss_local": local.detach(),
            "weight_max": w.amax(dim=0).mean(),
        }
        return StepOutput(loss + self.config.local_weight * local, logs)

    def losses(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the base's own `losses` does."""
        return self.base.losses(views)

    def _remember(self, scene: Scene, epoch: int) -> None:
        """Make the maps of this batch and average them into the memory.

        Without SyncBN they look through the first process's statistics, which are those that are
        saved: a map depends on its image alone, and a resumed run makes the same.
        """
        self.maps.begin(epoch)
        if not self.config.sync_bn:
            for module in (self.base.target_backbone, self.base.target_projector):
                share_statistics(module)
        s = self._maps(scene.whole)
        for index, maps in distributed.gather((scene.index.cpu(), s.cpu())):
            self.maps.update(index, maps)

    def _maps(self, whole: Tensor) -> Tensor:
        """[B, S, S] of the whole images [B, 3, H, W] uint8."""
        net = self.base
        training = net.target_backbone.training
        for module in (net.target_backbone, net.target_projector):
            module.eval()
        with torch.no_grad():
            F = resnet.dense_features(net.target_backbone, normalise(whole))
            if self.config.saliency_map == "projected":
                B, _, h, w = F.shape
                z = net.target_projector(F.permute(0, 2, 3, 1).flatten(0, 2))
                F = z.view(B, h, w, -1).permute(0, 3, 1, 2)
        for module in (net.target_backbone, net.target_projector):
            module.train(training)
        return saliency_map(F, self.config.saliency_map)

    def _local_distances(self, local: Tensor, key: Tensor) -> Tensor:
        """D [n, B] of each local crop, averaged over the targets of the global views.

        Args:
            key: [B, D] of MoCo's one global view through the key network.
        """
        n, B = local.shape[:2]
        if isinstance(self.base, Mocov2) and self.base.groups > 1:
            # An image's crops together: a group has those of its own images, as a process has.
            crops = local.transpose(0, 1).flatten(0, 1)
            v = global_pool(resnet.dense_features(self.backbone, crops))
            v = v.view(B, n, -1).transpose(0, 1).flatten(0, 1)
        else:
            v = global_pool(resnet.dense_features(self.backbone, local.flatten(0, 1)))
        if isinstance(self.base, Byol):
            p = self.base.predictor(self.base.projector(v)).view(n, B, -1)
            # Projected once: a second pass would move the head's batch norm again.
            targets = self.base.targets
            return sum((regression(p, z[None]) for z in targets), p.new_zeros(n, B)) / len(targets)
        q = self.base.projector(v).view(n, B, -1)
        queue, counts = self.base.queue[0], self.base.counts[0]
        temperature = self.base.config.temperature
        D = info_nce_each(q.flatten(0, 1), key.repeat(n, 1), queue, counts, temperature)
        return D.view(n, B)
