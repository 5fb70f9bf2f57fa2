"""torch.hub entry points, loaded by path from another folder, without network."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.entries import make_entry

import chromozoo
from chromozoo.errors import WeightsError
from chromozoo.models.registry import list_models, model_info
from chromozoo.models.weights.index import weights_entries
from chromozoo.models.weights.storage import save_weights

ROOT = Path(chromozoo.__file__).resolve().parents[1]

HUB_MODEL = '''
from torch import nn

from chromozoo.models.registry import register_model


class HubTiny(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.network = nn.Linear(width, 2)


@register_model(task="classification", paper="A. Uthor, 2026")
def hub_tiny(width=3):
    """A tiny model."""
    return HubTiny(width)
'''

SCRIPT = """
import json, sys
import torch

repository = sys.argv[1]
model = torch.hub.load(repository, "hub_tiny", source="local")
import chromozoo
print(json.dumps({
    "package": chromozoo.__file__,
    "models": torch.hub.load(repository, "list_models", source="local", pattern="hub_*"),
    "tag": torch.hub.load(repository, "get_weight", source="local", name="hub_tiny").tag,
    "bias": model.network.bias.tolist(),
    "training": model.training,
}))
"""


def load_hubconf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hubconf_under_test", ROOT / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_clone_works_from_another_folder_in_a_fresh_process(tmp_path: Path) -> None:
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(
        ROOT / "chromozoo", repository / "chromozoo", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "hubconf.py", repository)
    models = repository / "chromozoo" / "models"
    (models / "classifiers" / "hub_tiny.py").write_text(HUB_MODEL)
    network = torch.nn.Linear(3, 2)
    _, entry = save_weights(
        network, make_entry(model="hub_tiny", init_args={"width": 3}), repository / "weights"
    )
    (models / "weights" / "entries" / "hub_tiny_toy.json").write_text(entry.to_json())

    hidden = ("PYTHONPATH", "CHROMOZOO_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(repository)],
        cwd=elsewhere,
        check=False,
        env=environment | {"CHROMOZOO_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # The clone is used, even where another ChromoZoo is installed.
    assert Path(found["package"]) == repository / "chromozoo" / "__init__.py"
    assert found["models"] == ["hub_tiny"]
    assert found["tag"] == "toy"
    assert found["bias"] == network.bias.tolist()
    assert found["training"] is False


def test_entries_are_the_models() -> None:
    hubconf = load_hubconf()
    shown = [
        name for name, item in vars(hubconf).items() if callable(item) and not name.startswith("_")
    ]  # as torch.hub.list does
    assert sorted(shown) == sorted([*list_models(), "get_weight", "karyotyper", "list_models"])
    for name in list_models():
        assert getattr(hubconf, name).__name__ == name
        for part in (model_info(name).doc, model_info(name).paper):
            assert part in getattr(hubconf, name).__doc__


def test_models_without_weights_say_which_argument_they_take() -> None:
    hubconf = load_hubconf()
    assert "a tag ('bioimlab', " in hubconf.chrnet4.__doc__
    assert "no published ones" in hubconf.resnet50.__doc__
    without = [name for name in list_models() if not weights_entries(name)]
    assert len(without) > 10
    for name in without:
        with pytest.raises(WeightsError, match=rf"{name}.*no weights .*chr.*give weights=None"):
            getattr(hubconf, name)()


def test_dependencies_are_import_names() -> None:
    missing = [name for name in load_hubconf().dependencies if not importlib.util.find_spec(name)]
    assert missing == []


def test_chrnet4_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load: Any = torch.hub.load
    model = load(str(ROOT), "chrnet4", source="local", weights=None)
    assert not model.training
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 16_355_160
