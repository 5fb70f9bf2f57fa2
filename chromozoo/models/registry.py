"""The registry of models: listing, metadata, and building a model by its name.

A model is one file in ``chromozoo/models/classifiers`` or ``chromozoo/models/segmenters`` with a
builder function under :func:`register_model`; no list is edited anywhere. The names are read from
the source text of these files, so listing models does not import torch. The file itself is imported
when a model of it is built.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from chromozoo.errors import UnknownNameError, WeightsError
from chromozoo.models.weights import checkpoint, download, index, storage
from chromozoo.models.weights.index import set_entries_folder
from chromozoo.structures.weights_entry import WeightsEntry

if TYPE_CHECKING:
    from lightning import LightningModule
    from torch import Tensor

    from chromozoo.tasks.classification import ChromosomeClassifier
    from chromozoo.tasks.segmentation import ChromosomeSegmenter

TASKS = ("classification", "segmentation")
MODEL_PACKAGES = ("chromozoo.models.classifiers", "chromozoo.models.segmenters")

# ``timm/<name>`` is short for this model with ``backbone='<name>'``.
TIMM_PREFIX = "timm/"
TIMM_MODEL = "timm_backbone"

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class ModelInfo:
    """The metadata of a model, available before its module is imported.

    Attributes:
        name: The one name of the model: builder, hub entry, config stem, result row and card.
        task: ``'classification'`` or ``'segmentation'``.
        module: Dotted name of the module that defines the builder.
        file: Its source file.
        paper: Citation of the published system.
        doc: Docstring of the builder.
        default_weights: The tag of ``DEFAULT``, or None where there is no choice.
        stain_weights: Tags that are better than the default one for a stain (``"q"``, ``"g"``).
        class_name: Name of the LightningModule that the builder returns, from its annotation.
    """

    name: str
    task: str
    module: str
    file: Path
    paper: str
    doc: str
    default_weights: str | None
    stain_weights: Mapping[str, str] = field(default_factory=dict)
    class_name: str = ""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UnknownNameError(
                f"{self.file}: model {self.name!r} has task {self.task!r}; "
                f"write one of {', '.join(TASKS)}"
            )

    @property
    def summary(self) -> str:
        """Return the first line of the docstring."""
        return self.doc.partition("\n")[0]


# Filled as model files are imported; also holds what a user's own script registers.
_REGISTERED: dict[str, tuple[ModelInfo, Callable[..., Any]]] = {}


def register_model(
    *,
    task: str,
    paper: str,
    default_weights: str | None = None,
    stain_weights: Mapping[str, str] | None = None,
) -> Callable[[Builder], Builder]:
    """Register a builder under its function name. All arguments must be literals.

    The builder is called with keyword arguments only and returns an untrained LightningModule
    whose ``network`` attribute is the pure ``nn.Module`` that the weights belong to.

    Args:
        task: ``'classification'`` or ``'segmentation'``.
        paper: Citation of the published system.
        default_weights: The tag of ``DEFAULT``; may be left out as long as there is at most one
            weights file.
        stain_weights: Tags that a karyotyper uses in place of the default one, by stain.

    Raises:
        UnknownNameError: Another module has registered the name, or the task is unknown.
    """

    def register(builder: Builder) -> Builder:
        info = ModelInfo(
            name=builder.__name__,
            task=task,
            module=builder.__module__,
            file=Path(builder.__code__.co_filename).resolve(),
            paper=paper,
            doc=inspect.getdoc(builder) or "",
            default_weights=default_weights,
            stain_weights=stain_weights or {},
            class_name=str(builder.__annotations__.get("return", ""))
            .rpartition(".")[2]
            .strip("'>"),
        )
        known = models().get(info.name)
        if known is not None and known.module != info.module:
            raise _duplicate(known, info)
        _REGISTERED[info.name] = (info, builder)
        if info.module.rpartition(".")[0] not in MODEL_PACKAGES:
            set_entries_folder(info.name, info.file.parent / "weights")
        return builder

    return register


def models() -> dict[str, ModelInfo]:
    """Return every known model by its name, in natural order. Does not import torch.

    Raises:
        UnknownNameError: Two builders have one name; the message names both files.
    """
    found: dict[str, ModelInfo] = {}
    for package in MODEL_PACKAGES:
        own, *added = import_module(package).__path__
        for folder in (own, *added):
            for file in sorted(Path(folder).glob("*.py")):
                for info in _models_of_file(file.resolve(), f"{package}.{file.stem}"):
                    if info.name in found:
                        raise _duplicate(found[info.name], info)
                    found[info.name] = info
                    if folder != own:
                        set_entries_folder(info.name, Path(folder) / "weights")
    found |= {name: info for name, (info, _) in _REGISTERED.items()}
    return {name: found[name] for name in sorted(found, key=_natural)}


def model_info(name: str) -> ModelInfo:
    """Return the metadata of one model.

    Args:
        name: Model name; any ``'timm/<name>'`` stands for ``timm_backbone``. Whether timm knows
            the name shows when the model is built: looking it up would import torch.

    Raises:
        UnknownNameError: No model has this name; the message lists the close ones.
    """
    if name.startswith(TIMM_PREFIX):
        name = TIMM_MODEL
    known = models()
    if name not in known:
        raise UnknownNameError(f"unknown model {name!r}: {_suggest(name, known)}")
    return known[name]


def list_models(
    task: str | None = None, pretrained: bool | None = None, pattern: str = "*"
) -> list[str]:
    """Return the names of the models in natural order (``resnet18`` before ``resnet101``).

    Args:
        task: Only models of this task.
        pretrained: True: only models with weights. False: only models without. None: all.
        pattern: Shell pattern for the name, such as ``'*resnet*'``.

    Raises:
        UnknownNameError: There is no such task.
    """
    if task is not None and task not in TASKS:
        raise UnknownNameError(f"unknown task {task!r}: {_suggest(task, TASKS)}")
    return [
        name
        for name, info in models().items()
        if task in (None, info.task)
        and fnmatchcase(name, pattern)
        and (pretrained is None or pretrained == bool(index.weights_entries(name)))
    ]


def get_weight(name: str, tag: str = "DEFAULT") -> WeightsEntry:
    """Return the weights entry of a model.

    Args:
        name: Model name.
        tag: The data set that the weights were trained on, or ``'DEFAULT'``.

    Raises:
        UnknownNameError: Unknown model or tag; the message lists the close ones.
        WeightsError: ``DEFAULT`` of a model that has no weights, or several and no default.
    """
    info = model_info(name)
    name = info.name
    entries = index.weights_entries(name)
    if not entries:
        trained = ", ".join(list_models(info.task, pretrained=True)) or "none yet"
        raise WeightsError(
            f"model {name!r} has no weights of its own (models with weights: {trained}); give "
            f"weights=None, which builds it untrained, or the path of a .safetensors or .ckpt file"
        )
    if tag == "DEFAULT":
        tag = info.default_weights or (next(iter(entries)) if len(entries) == 1 else "DEFAULT")
    if tag not in entries:
        raise UnknownNameError(f"unknown weights {tag!r} of {name!r}: {_suggest(tag, entries)}")
    return entries[tag]


def get_model(
    name: str, weights: str | os.PathLike[str] | None = "DEFAULT", **kwargs: Any
) -> LightningModule:
    """Build a model and load its weights.

    Args:
        name: Model name, see :func:`list_models`; or ``'timm/<name>'``, which is short for
            ``timm_backbone`` with ``backbone='<name>'``.
        weights: A tag, ``'DEFAULT'`` (the best), the path of a ``.safetensors`` file that
            ChromoZoo wrote or of a Lightning ``.ckpt``, or None for the untrained model.
        **kwargs: Arguments of the builder. Those that the weights fix cannot be changed.

    Returns:
        The LightningModule in eval mode; its ``weights_entry`` is the entry of its weights, or
        None where there is none (untrained, checkpoint).

    Raises:
        UnknownNameError: Unknown model or tag; the message lists the close ones.
        WeightsError: The weights are missing, altered or do not fit.
    """
    info = model_info(name)
    if name.startswith(TIMM_PREFIX):
        backbone = name.removeprefix(TIMM_PREFIX)
        if kwargs.setdefault("backbone", backbone) != backbone:
            raise UnknownNameError(
                f"{name!r} already names the backbone; leave backbone={kwargs['backbone']!r} out"
            )
        name = info.name
    if weights is None:
        model = _builder(info)(**kwargs)
        model.weights_entry = None
    elif os.fspath(weights).lower().endswith(".ckpt"):
        path = Path(weights)
        init_args, tensors = checkpoint.load_checkpoint(path)
        model = _build_for(info, kwargs, init_args, tensors, path)
        model.weights_entry = None
    else:
        if is_path(weights):
            path = Path(weights)
            entry = storage.read_entry(path)
            if entry.model != name:
                raise WeightsError(
                    f"{path}: holds weights of {entry.model!r}, not of {name!r}; "
                    f"load it as get_model({entry.model!r}, weights=...)"
                )
        else:
            entry = get_weight(name, os.fspath(weights))
            path = download.find_weights(entry)
        tensors = storage.read_tensors(path, entry)
        model = _build_for(info, kwargs, entry.init_args, tensors, path)
        model.weights_entry = entry
    model.model_name = name
    built: LightningModule = model.eval()
    return built


def get_classifier(
    name: str, weights: str | os.PathLike[str] | None = "DEFAULT", **kwargs: Any
) -> ChromosomeClassifier:
    """Build a classifier and load its weights, see :func:`get_model`.

    Raises:
        UnknownNameError: Unknown model or tag, or the model is no classifier.
        WeightsError: The weights are missing, altered or do not fit.
    """
    _check_task(name, "classification")
    classifier: Any = get_model(name, weights, **kwargs)
    built: ChromosomeClassifier = classifier
    return built


def get_segmenter(
    name: str, weights: str | os.PathLike[str] | None = "DEFAULT", **kwargs: Any
) -> ChromosomeSegmenter:
    """Build a segmenter and load its weights, see :func:`get_model`.

    Raises:
        UnknownNameError: Unknown model or tag, or the model is no segmenter.
        WeightsError: The weights are missing, altered or do not fit.
    """
    _check_task(name, "segmentation")
    segmenter: Any = get_model(name, weights, **kwargs)
    built: ChromosomeSegmenter = segmenter
    return built


def _check_task(name: str, task: str) -> None:
    if model_info(name).task != task:
        raise UnknownNameError(
            f"{name} is no model for {task}; `chromozoo models` lists those that are"
        )


def _builder(info: ModelInfo) -> Callable[..., Any]:
    if info.name not in _REGISTERED:
        import_module(info.module)  # runs register_model
    return _REGISTERED[info.name][1]


def _build_for(
    info: ModelInfo,
    kwargs: dict[str, Any],
    init_args: dict[str, Any],
    tensors: dict[str, Tensor],
    path: Path,
) -> Any:
    """Build a model with the arguments and tensors of a file, which may be damaged or malicious.

    Args:
        info: Metadata of the model.
        kwargs: Arguments of the user.
        init_args: Arguments of the file.
        tensors: Tensors of the file, for the network.
        path: The file.

    Raises:
        WeightsError: No model can be made with the arguments of the file, or the tensors are not
            those of its network.
    """
    builder = _builder(info)
    # The file has the tensors: `init_from` would fetch or read others for nothing.
    init_args = {key: value for key, value in init_args.items() if key != "init_from"}
    arguments = _merge(kwargs, init_args, path)
    elements = sum(tensor.numel() for tensor in tensors.values())
    try:
        with storage.bounded_allocation(elements):
            model = builder(**arguments)
    except Exception as error:  # builders raise many kinds for arguments that cannot be
        if kwargs and _can_build(builder, init_args, elements):
            raise  # the user's own arguments are at fault
        raise WeightsError(
            f"{path}: no {info.name} can be built with the arguments that it holds "
            f"({type(error).__name__}: {str(error)[:300]}); choose weights of this model that this "
            "version of ChromoZoo has saved"
        ) from error
    storage.load_tensors(model.network, tensors, path)
    return model


def _can_build(builder: Callable[..., Any], arguments: dict[str, Any], elements: int) -> bool:
    try:
        with storage.bounded_allocation(elements):
            builder(**arguments)
    except Exception:
        return False
    return True


def _merge(kwargs: dict[str, Any], init_args: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the builder's arguments: those of the weights, and further ones."""
    for key in kwargs.keys() & init_args.keys():
        requested, fixed = kwargs[key], init_args[key]
        # JSON has no tuples.
        if (list(requested) if isinstance(requested, tuple) else requested) != (
            list(fixed) if isinstance(fixed, tuple) else fixed
        ):
            raise WeightsError(
                f"{path}: these weights belong to {key}={fixed!r}, not {key}={requested!r}; "
                f"leave {key!r} out, or build the untrained model with weights=None"
            )
    return init_args | kwargs


def is_path(weights: str | os.PathLike[str]) -> bool:
    """Return whether weights are given as a path and not as a tag, which is a plain word."""
    path = Path(weights)
    return not isinstance(weights, str) or bool(path.suffix) or len(path.parts) > 1


def registered_elsewhere() -> list[str]:
    """Return the names of the modules outside of the zoo that have registered models.

    A worker process imports them before it builds such a model.
    """
    modules = {info.module for info, _ in _REGISTERED.values()}
    return sorted(
        module
        for module in modules
        if module != "__main__" and module.rpartition(".")[0] not in MODEL_PACKAGES
    )


@lru_cache
def _models_of_file(file: Path, module: str) -> tuple[ModelInfo, ...]:
    """Read the functions under ``@register_model(...)`` from the source text of a model file."""
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8"), filename=str(file)).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if not isinstance(call, ast.Call) or (
                ast.unparse(call.func).rpartition(".")[2] != "register_model"
            ):
                continue
            try:
                arguments = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
                task, paper = arguments["task"], arguments["paper"]
            except (ValueError, KeyError) as error:
                raise UnknownNameError(
                    f"{file}:{call.lineno}: register_model needs task and paper, written as "
                    f"literals: they are read without importing the file"
                ) from error
            found.append(
                ModelInfo(
                    name=node.name,
                    task=task,
                    module=module,
                    file=file,
                    paper=paper,
                    doc=ast.get_docstring(node) or "",
                    default_weights=arguments.get("default_weights"),
                    stain_weights=arguments.get("stain_weights") or {},
                    class_name=ast.unparse(node.returns) if node.returns else "",
                )
            )
    return tuple(found)


def _duplicate(first: ModelInfo, second: ModelInfo) -> UnknownNameError:
    return UnknownNameError(
        f"two models are named {first.name!r}: in {first.file} and in {second.file}; rename one"
    )


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known))
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known are {', '.join(known) or 'none'}"
