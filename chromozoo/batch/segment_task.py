"""Task of ``chromozoo segment``: overlay and JSON of each image."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from chromozoo import __version__
from chromozoo.batch.identity import describe_weights, software_identity, weights_identity
from chromozoo.batch.results import SEGMENT_ENDING, ResultsFolder, write_json
from chromozoo.batch.worker import ImageTask, Message, select_device
from chromozoo.files import DISCLAIMER, write_image
from chromozoo.images.reading import read_grey
from chromozoo.models.registry import get_model
from chromozoo.visualization.overlay import draw_overlay
from chromozoo.visualization.page import JSON, OVERLAY

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage
    from chromozoo.structures.segmentation import Segmentation

FORMAT = 3


class SegmentTask(ImageTask):
    """Segments the chromosomes in the images of a file and writes the results of each."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.min_score = float(settings["score"])
        self.weights = str(settings["weights"])
        model: Any = get_model(settings["model"], weights=self.weights)
        self.model = model.to(select_device(settings))
        self.results = ResultsFolder(self.folder, "segment", SEGMENT_ENDING)

    def identity(self) -> Message:
        """Return the model, the options and the version of the software."""
        return {
            "models": [weights_identity(self.model, self.weights)],
            "options": {"score": self.min_score, **self.reading},
            "software": software_identity(FORMAT),
        }

    def write_results(self, image: "Path | ImagePage", name: str, source: Message) -> None:
        """Segment an image and write its overlay and, last, JSON."""
        grey = read_grey(image, source["shown"])
        segmentation = self.model.segment(grey, source["shown"]).filter_by_score(self.min_score)
        self.results.remove(name, JSON)
        overlay = Image.fromarray(draw_overlay(grey, segmentation))
        write_image(self.results.path(name, OVERLAY), overlay)
        write_json(self.results.path(name, JSON), self._to_document(segmentation, source))

    def _to_document(self, segmentation: "Segmentation", source: Message) -> dict[str, Any]:
        height, width = segmentation.shape
        return {
            "format": FORMAT,
            "chromozoo": __version__,
            "intended_use": DISCLAIMER,
            "image": source["shown"],
            "path": source["path"],
            "identity": {"content": source["content"], **self.identity()},
            "width": width,
            "height": height,
            **describe_weights(self.model),
            "min_score": self.min_score,
            "categories": list(self.model.categories),
            "count": len(segmentation),
            "warnings": list(segmentation.warnings),
            "instances": segmentation.to_records(self.model.categories),
        }
