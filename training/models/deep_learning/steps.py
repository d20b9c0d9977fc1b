"""From a batch of sequences to the tensors of one training step: candidates, id dropout and log q."""

import numpy as np
import numpy.typing as npt
import torch

from training.data.dataset import Dataset
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.recent_popularity import RecentPopularity
from training.models.deep_learning.sequences import Batch
from training.models.deep_learning.task import Step, sample_log_q


class StepBuilder:
    """The tensors of items that stay on the device, and the steps that are built from them.

    Attributes:
        content: [n_items, content_width].
        has_events: [n_items] 1 where the item has an event; the id of any other item has learned nothing.
    """

    def __init__(
        self,
        dataset: Dataset,
        content: torch.Tensor,
        popularity: RecentPopularity,
        config: DeepLearningConfig,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        self.config, self.device, self.rng, self.popularity = config, device, rng, popularity
        self.content = content
        counts = np.bincount(dataset.interactions.items, minlength=dataset.n_items)
        self._counts = torch.from_numpy(counts).to(device)
        self.has_events = (self._counts > 0).float()
        self._candidates = torch.from_numpy(np.flatnonzero(counts)).to(device)  # positions of items with an event

    def build(self, batch: Batch) -> Step:
        """The step of one batch: all items with events as candidates, or a sample that holds the batch's own items."""
        device = self.device
        items = torch.from_numpy(batch.items).to(device)
        loss_mask = torch.from_numpy(batch.loss_mask).to(device)
        if len(self._candidates) <= self.config.candidates:
            touched, log_q = self._candidates, None
        else:
            drawn = self._candidates[
                torch.from_numpy(self.rng.choice(len(self._candidates), self.config.candidates, False)).to(device)
            ]
            valid = np.arange(batch.items.shape[1]) < batch.lengths[:, None]
            own = items[torch.from_numpy(valid).to(device)]
            touched = torch.unique(torch.cat([drawn, own]))
            of_candidates = sample_log_q(self._counts[self._candidates], len(own), len(drawn))
            log_q = of_candidates[torch.searchsorted(self._candidates, touched)]
        id_mask = self.has_events
        if self.config.id_dropout:
            id_mask = id_mask * (torch.rand(len(id_mask), device=device) >= self.config.id_dropout)
        return Step(
            touched=touched,
            content=self.content[touched],
            id_mask=id_mask[touched],
            items=torch.searchsorted(touched, items).clamp_max(len(touched) - 1),  # padding may be no candidate
            types=torch.from_numpy(batch.types).to(device),
            weights=torch.from_numpy(batch.weights).to(device),
            lengths=torch.from_numpy(batch.lengths).to(device),
            times=torch.from_numpy(batch.timestamps).to(device),
            loss_mask=loss_mask,
            context_lengths=torch.from_numpy(batch.context_lengths).to(device),
            query_times=self.popularity_index(batch.query_times),
            log_q=log_q,
        )

    def popularity_index(self, timestamps: npt.NDArray[np.int64]) -> torch.Tensor:
        """Indices into the times of the recent popularity, int64 of the same shape, on the device."""
        return torch.from_numpy(self.popularity.at(timestamps)).to(self.device)
