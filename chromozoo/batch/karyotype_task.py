"""Task of ``chromozoo karyotype``: karyogram, overlay and JSON of each image."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.batch.identity import (
    KARYOTYPER_OPTIONS,
    identity_for_stain,
    software_identity,
    weights_identity,
)
from chromozoo.batch.worker import ImageTask, Message, select_device
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.visualization.report import FORMAT, write_cell

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage


class KaryotypeTask(ImageTask):
    """Karyotypes the images of a file and writes the results of each."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.segmenter_weights = str(settings["segmenter_weights"])
        self.classifier_weights = str(settings["classifier_weights"])
        self.karyotyper = get_karyotyper(
            settings["segmenter"],
            settings["classifier"],
            settings["assignment"],
            segmenter_weights=self.segmenter_weights,
            classifier_weights=self.classifier_weights,
            stain=settings["stain"],
            score=settings["score"],
        )
        self.karyotyper.to(select_device(settings))

    def identity(self) -> Message:
        """Return the models of each stain, the options and the version of the software."""
        karyotyper = self.karyotyper
        classifier = weights_identity(karyotyper.classifier, self.classifier_weights)
        models = {
            stain: [
                weights_identity(karyotyper.segmenter_for(stain), self.segmenter_weights),
                classifier,
            ]
            for stain in ("q", "g")
        }
        options = {name: getattr(karyotyper, name) for name in KARYOTYPER_OPTIONS} | self.reading
        return {"models": models, "options": options, "software": software_identity(FORMAT)}

    def write_results(self, image: "Path | ImagePage", name: str, source: Message) -> None:
        """Karyotype an image and write its karyogram, overlay and, last, JSON."""
        karyotype = self.karyotyper.karyotype(image, source["shown"])
        identity = identity_for_stain(self.identity(), karyotype.stain)
        write_cell(
            self.folder,
            name,
            karyotype,
            self.karyotyper,
            identity={"content": source["content"], **identity},
            path=source["path"],
        )
