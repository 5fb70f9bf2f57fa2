"""What all tests share: no network, a home of their own, one tiny data set."""

import gc
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: several processes with all cores each would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# One training, validation and test cell of the split bioimlab_v1.
TINY_CELLS = [2, 7, 6]


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory):
    """Caches and downloads of the tests never meet the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHROMOZOO_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _memory_given_back():
    """Models are cycles of references: without a sweep, those of many tests stay side by side."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def tiny_bioimlab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated cells in the published layout of the BioImLab classification set."""
    from chromozoo.synthetic import write_bioimlab_layout

    folder = tmp_path_factory.mktemp("data") / "bioimlab-classification"
    write_bioimlab_layout(folder, TINY_CELLS, seed=0)
    return folder


@pytest.fixture(scope="session")
def tiny_metaphases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn metaphases in the published layout of the BioImLab segmentation set."""
    from helpers.drawn_metaphases import write_all

    folder = tmp_path_factory.mktemp("data") / "bioimlab-segmentation"
    write_all(folder)
    return folder


@pytest.fixture
def real_data() -> Path:
    """Folder of the real data sets; the test is skipped, and says so, where they are not."""
    from chromozoo.folders import data_folders

    for folder in data_folders():
        if (folder / "bioimlab-classification.zip").exists():
            return folder
    pytest.skip("the real BioImLab set is not on this machine (CHROMOZOO_DATA, data/)")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands over images work in the test's own process, which can be looked into."""
    from helpers.inline_worker import InlineWorker

    from chromozoo.batch import worker_pool

    monkeypatch.setattr(worker_pool, "Worker", InlineWorker)


@pytest.fixture
def registered_tiny_segmenter():
    """``tiny_segmenter`` is a model of the zoo while the test runs."""
    from helpers.tiny_segmenter import Tiny

    from chromozoo.models import registry

    @registry.register_model(task="segmentation", paper="A. Uthor, 2026")
    def tiny_segmenter() -> Tiny:
        """A tiny segmenter."""
        return Tiny()

    yield
    del registry._REGISTERED["tiny_segmenter"]
