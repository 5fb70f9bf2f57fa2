"""The base class of all tasks: preset, hyperparameters, optimiser, and evaluation.

A task is a LightningModule around a pure network. :class:`BaseTask` holds what classifiers and
segmenters have in common, and leaves two hooks to them: :meth:`BaseTask.loss` and
:attr:`BaseTask.categories`.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from lightning import LightningModule
from torch import Tensor, nn

from chromozoo.errors import WeightsError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.images.preset import ChromosomePreset
from chromozoo.structures.weights_entry import WeightsEntry
from chromozoo.tasks.optimisation import OptimizerName, one_cycle

# Arguments of the builders with and without which a network has tensors of these names.
ADDED_BY = {
    "network.polarity.": ("polarity=True", "polarity=False"),
    "network.names.": ("num_classes=24", "num_classes=1"),
}

Preset = TypeVar("Preset", ChromosomePreset, MetaphasePreset)


class BaseTask(LightningModule, Generic[Preset]):
    """A LightningModule around a pure ``network``.

    The hyperparameters of a checkpoint are all arguments of the constructors, as plain values, so
    that it can be loaded with ``weights_only=True``. Left out are ``init_from``, whose tensors the
    checkpoint has, and :attr:`fixed_arguments`.

    Args:
        network: The pure network.
        preset: Preparation of the images: a preset, or some of its arguments; the others are
            those of :attr:`default_preset`.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        lr: Highest learning rate of the one-cycle schedule.
        weight_decay: Weight decay of parameters with two or more dimensions; norms and biases have
            none.

    Attributes:
        preset_type: Class of the preset.
        default_preset: Arguments of the preset that differ from the defaults of its class.
        training_arguments: Arguments that only the training needs. Weights do without them.
        fixed_arguments: Arguments of a base class that the task sets and does not accept.
        transforms: The preset.
        weights_entry: Entry of the weights, set by `get_model`; None where there is none.
        model_name: Registered name, set by `get_model`; None for a task that was built directly.
    """

    preset_type: type[Preset]
    default_preset: ClassVar[Mapping[str, Any]] = {}
    training_arguments: ClassVar[frozenset[str]] = frozenset({"optimizer", "lr", "weight_decay"})
    fixed_arguments: ClassVar[frozenset[str]] = frozenset()

    network: nn.Module
    transforms: Preset
    weights_entry: WeightsEntry | None = None
    model_name: str | None = None

    def __init__(
        self,
        network: nn.Module,
        preset: dict[str, Any] | Preset | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__()
        # A third faster on CPUs, and on GPUs in half precision, than the default layout.
        self.network = network.to(memory_format=torch.channels_last)
        self.transforms = self.make_preset(preset)
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.save_hyperparameters(
            ignore=["network", "features", "init_from", *self.fixed_arguments]
        )
        self.save_hyperparameters({"preset": self.transforms.to_dict()})

    @classmethod
    def make_preset(cls, preset: dict[str, Any] | Preset | None) -> Preset:
        """Return the preset of some of its arguments, completed by :attr:`default_preset`."""
        if isinstance(preset, cls.preset_type):
            return preset
        arguments: Any = preset or {}
        return cls.preset_type(**{**cls.default_preset, **arguments})

    @classmethod
    def builder_arguments(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters without which trained weights cannot be used."""
        return {key: value for key, value in hparams.items() if key not in cls.training_arguments}

    # Hooks

    @property
    def categories(self) -> tuple[str, ...]:
        """Name of each class index."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Return the scalar that the training minimises."""
        raise NotImplementedError

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that the optimiser updates; those without gradient stay out."""
        return self.network.parameters()

    # Training

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return one_cycle(
            self, self.trained_parameters(), self.optimizer, self.lr, self.weight_decay
        )

    # Use

    @property
    def place(self) -> tuple[torch.device, torch.dtype]:
        """Device and floating type of the network's weights: its input must have both."""
        for parameter in self.network.parameters():
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
        return self.device, torch.float32

    def in_evaluation(self, dtype: torch.dtype | None = None) -> Self:
        """Return this task in evaluation mode, and leave the task itself unchanged.

        Switching a model that several threads share would let one of them see the others' mode, and
        move the running statistics of a model in training. So a model in training mode is not
        switched: a twin is returned that shares its parameters and buffers.

        Args:
            dtype: Floating type of the twin's network; None keeps it.
        """
        other_type = dtype not in (None, self.place[1])
        if not other_type and not any(module.training for module in self.modules()):
            return self
        twin: Self = _evaluation_twin(self, dtype if other_type else None, {})
        return twin

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load tensors as torch does, with an error that names the other model's arguments.

        Raises:
            WeightsError: Tensors are missing, unexpected or of another shape.
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise WeightsError(_explain_mismatch(self, state_dict)) from error


def _evaluation_twin(module: Any, dtype: torch.dtype | None, twins: dict[int, Any]) -> Any:
    """Return a copy of a module and its children in evaluation mode that shares their tensors.

    Args:
        module: Stays unchanged.
        dtype: Floating tensors are converted to it, and then not shared; None keeps them.
        twins: Twin of each module by its id: a module with two names has one twin.
    """
    if id(module) in twins:
        return twins[id(module)]
    twin = copy.copy(module)  # its own __dict__, but the same dictionaries in it
    twins[id(module)] = twin
    state = twin.__dict__
    # A compiled call is that of the original module.
    state.pop("_compiled_call_impl", None)
    state["training"] = False
    state["_modules"] = {
        name: None if child is None else _evaluation_twin(child, dtype, twins)
        for name, child in module._modules.items()
    }
    for kind in ("_parameters", "_buffers"):
        state[kind] = {
            name: tensor.detach().to(dtype)
            if dtype is not None and tensor is not None and tensor.is_floating_point()
            else tensor
            for name, tensor in state[kind].items()
        }
    return twin


def _explain_mismatch(task: BaseTask[Any], state_dict: Mapping[str, Any]) -> str:
    """Return the error message for a ``state_dict`` that does not fit a task, in one line."""
    own = task.state_dict()
    missing, unexpected = own.keys() - state_dict.keys(), state_dict.keys() - own.keys()
    reshaped = [
        key
        for key in own.keys() & state_dict.keys()
        if getattr(state_dict[key], "shape", None) != own[key].shape
    ]
    counts = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    lists = "; ".join(
        f"{len(keys)} {kind}: {', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''}"
        for kind, keys in counts.items()
        if keys
    )
    added = [
        argument
        for prefix, arguments in ADDED_BY.items()
        for keys, argument in zip((unexpected, missing), arguments, strict=True)
        if any(key.startswith(prefix) for key in keys)
    ]
    name = repr(task.model_name) if task.model_name else "NAME"
    hint = f", here with {', '.join(added)}" if added else ""
    return (
        f"{type(task).__name__}: the state_dict is of a model that was built with other arguments "
        f"({lists}); build this one with the same{hint}. Those of published weights, the "
        f"preprocessing among them, are get_weight({name}, tag).init_args; get_model({name}, "
        f"weights=...) takes a tag or the path of a .safetensors or .ckpt file, and does all of it"
    )
