"""The registry: models are found by their files, listed without torch, built by name."""

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.entries import make_entry

import chromozoo
from chromozoo import folders
from chromozoo.errors import UnknownNameError, WeightsError
from chromozoo.models import registry
from chromozoo.models.registry import get_weight, list_models, model_info, register_model
from chromozoo.models.weights import download, index, storage

# The attributes of the tiny models below are not those of any class that mypy knows.
get_model: Any = registry.get_model

TINY = '''
from torch import nn

from chromozoo.models.registry import register_model


class Tiny(nn.Module):
    def __init__(self, width=4, size=(8, 4)):
        super().__init__()
        self.width, self.size = width, size
        self.network = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2))


@register_model(task="classification", paper="A. Uthor, 2026")
def tiny(**kwargs):
    """A tiny model.

    For the tests.
    """
    return Tiny(**kwargs)


@register_model(task="classification", paper="A. Uthor, 2026", default_weights="toy")
def tiny10(**kwargs):
    return Tiny(**kwargs)


def tiny_helper():
    pass
'''

SEGMENTER = '''
import a_module_that_is_not_there
from chromozoo.models import registry

@registry.register_model(task="segmentation", paper="B. Uthor, 2026")
def tiny2(**kwargs):
    """Cannot be imported, but can be listed."""
'''


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of classifiers with two models in one file, and a segmenter, added to the zoo."""
    monkeypatch.setenv("CHROMOZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(folders, "checkout", lambda: tmp_path)
    for package, file, text in (
        ("classifiers", "tiny.py", TINY),
        ("segmenters", "tinyseg.py", SEGMENTER),
    ):
        folder = tmp_path / package
        folder.mkdir()
        (folder / file).write_text(text)
        module = importlib.import_module(f"chromozoo.models.{package}")
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
    importlib.invalidate_caches()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    monkeypatch.setattr(index, "_folders", dict(index._folders))
    yield tmp_path
    sys.modules.pop("chromozoo.models.classifiers.tiny", None)


def save_tiny(zoo: Path, model: str = "tiny", tag: str = "toy") -> Path:
    network = get_model("tiny", weights=None, width=5).network
    entry = make_entry(model=model, tag=tag, init_args={"width": 5, "size": [8, 4]})
    path, entry = storage.save_weights(network, entry, zoo / "weights")
    index.write_entry(entry)
    return path


def test_importing_and_listing_do_not_import_torch() -> None:
    code = (
        "import sys, chromozoo; chromozoo.list_models(); chromozoo.list_models(pretrained=True);"
        "chromozoo.CLASSES; import hubconf;"
        "heavy = {'torch', 'lightning', 'numpy', 'timm', 'cv2', 'scipy', 'urllib.request'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    root = Path(chromozoo.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_package_exports() -> None:
    assert chromozoo.get_model is registry.get_model
    assert chromozoo.CLASSES[23] == "Y"
    assert set(chromozoo.__all__) <= set(dir(chromozoo))
    with pytest.raises(AttributeError, match="get_modle"):
        _ = chromozoo.get_modle


def test_models_are_read_without_import(zoo: Path) -> None:
    info = model_info("tiny")
    assert (info.task, info.module) == ("classification", "chromozoo.models.classifiers.tiny")
    assert (info.file, info.paper) == (zoo / "classifiers" / "tiny.py", "A. Uthor, 2026")
    assert info.summary == "A tiny model."
    assert info.doc == "A tiny model.\n\nFor the tests."
    assert (info.default_weights, model_info("tiny10").default_weights) == (None, "toy")
    assert "chromozoo.models.classifiers.tiny" not in sys.modules
    # What the source text says and what the decorator says is the same.
    get_model("tiny", weights=None)
    assert "chromozoo.models.classifiers.tiny" in sys.modules
    assert registry._REGISTERED["tiny"][0] == info


def test_list_models(zoo: Path) -> None:
    assert list_models(pattern="tiny*") == ["tiny", "tiny2", "tiny10"]  # natural order
    assert list_models("segmentation", pattern="tiny*") == ["tiny2"]
    assert list_models(task="classification", pattern="tiny?*") == ["tiny10"]
    save_tiny(zoo)
    assert list_models(pretrained=True, pattern="tiny*") == ["tiny"]
    assert list_models(pretrained=False, pattern="tiny*") == ["tiny2", "tiny10"]
    with pytest.raises(UnknownNameError, match="did you mean segmentation"):
        list_models("segmentatoin")


def test_unknown_names_get_suggestions(zoo: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'tiny_10': did you mean tiny10"):
        get_model("tiny_10")
    with pytest.raises(UnknownNameError, match=r"unknown model 'zzz': known are .*tiny2, tiny10"):
        get_weight("zzz")
    save_tiny(zoo)
    with pytest.raises(UnknownNameError, match="unknown weights 'toi' of 'tiny': did you mean toy"):
        get_model("tiny", weights="toi")
    with pytest.raises(UnknownNameError, match="unknown weights 'q-r' of 'tiny': known are toy"):
        get_model("tiny", weights="q-r")


def test_duplicates_are_refused(zoo: Path) -> None:
    def tiny(**kwargs: object) -> None:
        """A builder of the same name in another module."""

    with pytest.raises(UnknownNameError, match=r"two models are named 'tiny'.*tiny\.py.*rename"):
        register_model(task="classification", paper="C")(tiny)
    (zoo / "classifiers" / "other.py").write_text(TINY)
    with pytest.raises(UnknownNameError, match=r"named 'tiny'.*other\.py and in .*tiny\.py"):
        list_models()


def test_bad_registrations_name_the_file(zoo: Path) -> None:
    file = zoo / "classifiers" / "other.py"
    file.write_text("@register_model(task=TASK, paper='')\ndef other(): ...\n")
    with pytest.raises(UnknownNameError, match=r"other\.py:1: register_model needs .* literals"):
        list_models()
    file.write_text("@register_model(task='classify', paper='')\ndef other(): ...\n\n")
    registry._models_of_file.cache_clear()
    with pytest.raises(UnknownNameError, match=r"other\.py: .*'classify'; write one of"):
        list_models()
    file.write_text("@register_model(task='classification')\ndef other(): ...\n\n")
    registry._models_of_file.cache_clear()
    with pytest.raises(UnknownNameError, match=r"other\.py:1: register_model needs task and paper"):
        list_models()


def test_a_model_of_a_users_script_is_registered(zoo: Path) -> None:
    @register_model(task="classification", paper="C")
    def mine(**kwargs: object) -> torch.nn.Module:
        """My model."""
        return torch.nn.Linear(1, 1)

    assert "mine" in list_models()
    assert isinstance(get_model("mine", weights=None), torch.nn.Linear)


def test_untrained_model(zoo: Path) -> None:
    model = get_model("tiny", weights=None, width=3)
    assert not model.training
    assert (model.width, model.weights_entry) == (3, None)


def test_default_of_a_model_without_weights(zoo: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of its own .*chrnet4.*give weights=None"):
        get_model("resnet50")
    save_tiny(zoo)
    with pytest.raises(WeightsError, match=r"'tiny10' has no weights .*tiny.*weights=None"):
        get_model("tiny10")


def test_weights_by_tag(zoo: Path) -> None:
    path = save_tiny(zoo)
    assert get_weight("tiny") == get_weight("tiny", "toy")
    model = get_model("tiny")
    assert not model.training
    assert (model.width, model.weights_entry) == (5, get_weight("tiny"))
    first = get_model("tiny", weights="toy").state_dict()
    assert all(torch.equal(first[key], value) for key, value in model.state_dict().items())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="truncated"):
        get_model("tiny")


def test_which_weights_are_the_default(zoo: Path) -> None:
    save_tiny(zoo, "tiny", "toy")
    save_tiny(zoo, "tiny", "other")
    with pytest.raises(UnknownNameError, match="'DEFAULT' of 'tiny': known are other, toy"):
        get_weight("tiny")
    save_tiny(zoo, "tiny10", "other")
    save_tiny(zoo, "tiny10", "toy")
    assert get_weight("tiny10").tag == "toy"


def test_weights_fix_the_arguments(zoo: Path) -> None:
    save_tiny(zoo)
    assert get_model("tiny", width=5, size=(8, 4)).size == (8, 4)
    with pytest.raises(WeightsError, match=r"belong to width=5, not width=6; leave 'width' out"):
        get_model("tiny", width=6)


def test_weights_by_path(zoo: Path) -> None:
    path = save_tiny(zoo)
    packaged = get_model("tiny")
    # The packaged entry of the same file is used: it holds what was measured later.
    measured = dataclasses.replace(get_weight("tiny"), metrics={"toy/test": {"accuracy": 0.5}})
    index.write_entry(measured)
    assert get_model("tiny", weights=path).weights_entry == measured
    (zoo / "classifiers" / "weights" / "tiny_toy.json").unlink()
    alone = path.rename(zoo / "mine.safetensors")
    model = get_model("tiny", weights=str(alone))
    assert model.weights_entry.file == "mine.safetensors"
    assert torch.equal(model.network[0].weight, packaged.network[0].weight)
    with pytest.raises(WeightsError, match=r"mine\.safetensors: holds weights of 'tiny', not of"):
        get_model("tiny10", weights=alone)
    with pytest.raises(WeightsError, match=r"absent\.safetensors: cannot be read"):
        get_model("tiny", weights="absent.safetensors")


def test_weights_of_a_checkpoint(zoo: Path) -> None:
    trained = get_model("tiny", weights=None, width=7)
    path = zoo / "last.ckpt"
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": {"width": 7}}, path)
    model = get_model("tiny", weights=path)
    assert torch.equal(model.network[0].weight, trained.network[0].weight)
    assert (model.weights_entry, model.training) == (None, False)
    with pytest.raises(WeightsError, match=r"last\.ckpt: these weights belong to width=7"):
        get_model("tiny", weights=path, width=6)


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_arguments_of_a_file_that_cannot_be(kind: str, zoo: Path) -> None:
    """One error that names the file, whatever a builder says; and nothing is allocated."""
    trained = get_model("tiny", weights=None, width=7)
    for arguments, said in (
        ({"width": 7, "colour": "red"}, "TypeError: .*unexpected keyword argument 'colour'"),
        ({"width": 10**7}, "does not fit this model"),
        ({"width": 10**9}, "numbers in . tensors are asked for"),
        ({"width": 10**14}, "no tiny can be built"),
        ({"width": -1}, "no tiny can be built"),
        ({"width": "7"}, "no tiny can be built with the arguments that it holds .TypeError"),
        ({"width": None}, "no tiny can be built"),
        ({"width": [7]}, "no tiny can be built"),
        ({"width": 8}, "does not fit this model"),
        ({}, "does not fit this model"),
    ):
        if kind == "ckpt":
            path = zoo / "a.ckpt"
            torch.save({"state_dict": trained.state_dict(), "hyper_parameters": arguments}, path)
        else:
            entry = make_entry(init_args=arguments)
            path, _ = storage.save_weights(trained.network, entry, zoo / "own")
        with pytest.raises(WeightsError, match=rf"{path.name}: .*{said}"):
            get_model("tiny", weights=path)
    # What the user asks for is the user's own fault.
    torch.save(
        {"state_dict": trained.state_dict(), "hyper_parameters": {"width": 7}}, zoo / "a.ckpt"
    )
    with pytest.raises(TypeError, match="'colour'"):
        get_model("tiny", weights=zoo / "a.ckpt", colour="red")


def test_presets_of_a_file_that_cannot_be(tmp_path: Path) -> None:
    """Those of real models, whose networks follow from the preset."""
    states = get_model("vanilla_cnn", weights=None).state_dict()
    for preset, said in (
        ({"height": 10**9, "width": 10**9}, "no vanilla_cnn can be built"),
        ({"height": 4000, "width": 4000}, "numbers in . tensors are asked for"),
        ({"height": "x"}, "no vanilla_cnn can be built"),
        ({"scale": 0}, "no vanilla_cnn can be built"),
        ({"colour": 1}, "no vanilla_cnn can be built"),
        ([1], "no vanilla_cnn can be built"),
        ({1: 2}, "no vanilla_cnn can be built"),
    ):
        arguments = {"preset": preset}
        path = tmp_path / "a.ckpt"
        torch.save({"state_dict": states, "hyper_parameters": arguments}, path)
        with pytest.raises(WeightsError, match=rf"a\.ckpt: .*{said}"):
            get_model("vanilla_cnn", weights=path)


def test_entries_are_matched_to_their_file_name(zoo: Path) -> None:
    save_tiny(zoo)
    folder = zoo / "classifiers" / "weights"
    # Tag 'other' of model 'tiny_b' is not tag 'b_other' of model 'tiny'.
    entry = make_entry(model="tiny_b", tag="other")
    (folder / "tiny_b_other.json").write_text(entry.to_json())
    assert list(index.weights_entries("tiny")) == ["toy"]
    (folder / "tiny_toy.json").rename(folder / "tiny_best.json")
    with pytest.raises(WeightsError, match=r"tiny_best\.json: .*must be tiny_toy\.json"):
        index.weights_entries("tiny")


def test_the_shipped_zoo_is_consistent() -> None:
    """What each file of the package says is what the decorators say when it is imported."""
    for name, info in registry.models().items():
        importlib.import_module(info.module)
        assert registry._REGISTERED[name][0] == info
        assert info.doc, f"{name} needs a docstring"
        assert info.paper, f"{name} needs its paper"
        for tag, entry in index.weights_entries(name).items():
            assert entry.file == f"{name}_{tag}-{entry.sha256[:8]}.safetensors"
            assert storage.read_entry(download.find_weights(entry)) == entry
        if info.default_weights and index.weights_entries(name):
            assert get_weight(name).tag == info.default_weights
