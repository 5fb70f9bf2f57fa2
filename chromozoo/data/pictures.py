"""Pictures of a user, for ``Trainer.predict``."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset[Path]):
    """Paths of pictures; nothing is read before a model reads it.

    Args:
        paths: Of the pictures.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Path:
        return self.paths[index]

    def loader(self) -> DataLoader[Path]:
        """One picture a batch; Lightning divides them among the processes of a run."""
        return DataLoader(self, batch_size=1, collate_fn=list)
