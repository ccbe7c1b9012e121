"""Saliency-guided contrastive learning on scene images (Chen et al., arXiv 2302.11461), reconstructed.

Known from the abstract: a saliency map made of the model's own output while it learns guides where positive pairs are
cropped, and the crops' losses are re-weighted by their saliency. The rest is ours (docs/fidelity.md 5): BYOL or MoCo v2
between two global views, plus n local crops, each compared with both global views. pretrain/saliency.py has the map and
the weights, one function each.

Letters: B batch, n local crops; p, q online predictions, z, k target projections.
"""

import torch
from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor

from harl_bench.core.errors import UsageError
from harl_bench.nn import distributed, resnet
from pretrain.augment import normalise
from pretrain.config import PretrainConfig
from pretrain.losses import info_nce_each, regression
from pretrain.methods.byol import Byol
from pretrain.methods.method import Batch, Scene, StepOutput
from pretrain.methods.mocov2 import Mocov2
from pretrain.methods.siamese import OnBase
from pretrain.saliency import MapMemory, box_means, saliency_map, weights


class SaliencyCrop(OnBase):
    """L = L_base + beta mean_b mean_j sum_i w_bi D(p(local_bi), z(global_bj)).

    The target network makes the maps, in evaluation mode: a map then depends on its picture alone.
    """

    base: Byol | Mocov2

    def __init__(self, config: PretrainConfig) -> None:
        if config.base not in ("byol", "mocov2"):
            raise UsageError("saliency_crop sits on byol or mocov2", where="base", seen=config.base)
        super().__init__(Byol(config) if config.base == "byol" else Mocov2(config), config)
        self.share_maps(MapMemory(0))

    def share_maps(self, memory: MapMemory) -> None:
        """Write maps where the data workers read them; they are saved with the networks."""
        self.memory = memory
        self.base.networks.add_module("maps", memory)

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Global views through the base, local crops against their targets."""
        online, target = self.base.features(batch.views)
        v, u = ([h.float().mean(dim=(2, 3)) for h in maps] for maps in (online, target))
        loss, z = self.base.distance(v, u, None, 0)
        logs: dict[str, float | Tensor] = {**self.base.values(k, K), "feature_std": std_of_l2_normalized(z)}
        scene = batch.scene
        if scene is None:
            return StepOutput(loss, logs)
        guided = k >= self.config.saliency_warmup * K
        if guided:
            self._remember(scene, k * self.config.epochs // K)  # global crops follow the maps, too
        if not len(scene.local) or not self.config.local_weight:
            return StepOutput(loss, logs)
        boxes = scene.boxes[len(scene.boxes) - len(scene.local) :]
        maps = self.memory.current(scene.index).to(boxes.device)
        w = weights(box_means(maps, boxes) if guided else boxes.new_ones(boxes.shape[:2]))
        D = self._local_distances(scene.local)
        local = (w * D).sum(dim=0).mean()
        logs |= {"loss_global": loss.detach(), "loss_local": local.detach(), "weight_max": w.amax(dim=0).mean()}
        return StepOutput(loss + self.config.local_weight * local, logs)

    def _remember(self, scene: Scene, epoch: int) -> None:
        """Make the maps of this batch and average them into the memory."""
        self.memory.begin(epoch)
        s = self._maps(scene.whole)
        for index, maps in distributed.gather((scene.index.cpu(), s.cpu())):
            self.memory.update(index, maps)

    def _maps(self, whole: Tensor) -> Tensor:
        """[B, S, S] of the whole pictures [B, 3, H, W] uint8."""
        net = self.base.networks
        training = net.target_backbone.training
        for module in (net.target_backbone, net.target_projector):
            module.eval()
        with torch.no_grad():
            F = resnet.dense_features(net.target_backbone, normalise(whole))
            if self.config.saliency_map == "projected":
                B, _, h, w = F.shape
                F = net.target_projector(F.permute(0, 2, 3, 1).flatten(0, 2)).view(B, h, w, -1).permute(0, 3, 1, 2)
        for module in (net.target_backbone, net.target_projector):
            module.train(training)
        return saliency_map(F, self.config.saliency_map)

    def _local_distances(self, local: Tensor) -> Tensor:
        """D [n, B] of each local crop, averaged over the targets of the global views."""
        n, B = local.shape[:2]
        v = resnet.dense_features(self.backbone, local.flatten(0, 1)).float().mean(dim=(2, 3))
        net = self.base.networks
        if isinstance(self.base, Byol):
            p = self.base.networks.predict(v).view(n, B, -1)
            targets = self.base.targets  # projected once: a second pass would move the head's batch norm again
            return sum((regression(p, z[None]) for z in targets), p.new_zeros(n, B)) / len(targets)
        q = net.projector(v).view(n, B, -1)
        _, key, _ = self.base.pending[-1]  # of the one global view that went through the key network
        queue, counts = self.base.networks.queue[0], self.base.networks.counts[0]
        return info_nce_each(
            q.flatten(0, 1), key.repeat(n, 1), queue, counts, self.config.temperature
        ).view(n, B)  # fmt: skip
