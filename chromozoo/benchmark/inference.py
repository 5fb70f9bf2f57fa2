"""Predictions of a classifier for all crops of a data set."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def predict(model: Any, crops: Any, batch_size: int = 64) -> Any:
    """Return calibrated probabilities of a :class:`CropDataset`, ``(N, 24)`` float64, and polarity.

    The second is ``p_arm_up (N, 24)`` as in
    :class:`chromozoo.structures.prediction.Prediction`, or None.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from chromozoo.data.base.composed_cells import batch_whole_cells

    batches = batch_whole_cells(crops.cells, batch_size)
    with torch.inference_mode():
        found = [
            model.predict_with_polarity(
                batch["image"].to(model.device), batch["cell"].to(model.device)
            )
            for batch in DataLoader(crops, batch_sampler=batches)
        ]
    in_order = np.argsort(np.concatenate(batches))
    values = torch.cat([part for part, _ in found]).cpu().double().numpy()[in_order]
    arms = None
    if model.polarity:
        arms = torch.cat([up for _, up in found]).cpu().double().numpy()[in_order]
    return values / values.sum(axis=1, keepdims=True), arms


def cell_log_probabilities(
    model: Any, crops: Any
) -> Callable[["NDArray[np.int64]"], "NDArray[np.float64]"]:
    """Return a function that classifies cells made of rows of a :class:`CropDataset`.

    Returns:
        A function of rows of ``crops``, which make one cell: their natural-log probabilities,
        ``(K, 24)`` float64. The features of the images are computed once, here.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from chromozoo.metrics.classification import MIN_PROBABILITY
    from chromozoo.tasks.classify import FLIPS

    if not model.sees_cells:
        log_p = np.log(np.maximum(predict(model, crops)[0], MIN_PROBABILITY))
        return lambda rows: log_p[rows]
    flips = FLIPS if model.flip_average else FLIPS[:1]
    with torch.inference_mode():
        evidence = torch.cat(
            [
                torch.stack([model.network.forward_features(images.flip(axes)) for axes in flips])
                for images in (batch["image"].to(model.device) for batch in DataLoader(crops, 64))
            ],
            dim=1,
        )

    @torch.inference_mode()
    def of_rows(rows: "NDArray[np.int64]") -> "NDArray[np.float64]":
        together = torch.zeros(len(rows), dtype=torch.int64, device=evidence.device)
        logits = torch.stack(
            [model.network.forward_head(flipped[rows], together) for flipped in evidence]
        )
        mean = torch.softmax(logits.double() / model.temperature, dim=-1).mean(dim=0)
        found: NDArray[np.float64] = mean.clamp_min(MIN_PROBABILITY).log().cpu().numpy()
        return found

    return of_rows
