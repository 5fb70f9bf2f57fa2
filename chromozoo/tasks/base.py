"""What classifiers and segmenters share: evaluation without a change, errors of what misfits."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from lightning import LightningModule
from torch import nn

from chromozoo.errors import WeightsError
from chromozoo.structures.weights_entry import WeightsEntry

# Arguments of the builders with and without which a network has tensors of these names.
ADDED_BY = {
    "network.polarity.": ("polarity=True", "polarity=False"),
    "network.names.": ("num_classes=24", "num_classes=1"),
}


class BaseTask(LightningModule):
    """A LightningModule around a pure ``network``.

    Attributes:
        weights_entry: Entry of the weights, set by `get_model`; None where there is none.
        model_name: Registered name, set by `get_model`; None for a task that was built directly.
    """

    network: nn.Module
    weights_entry: WeightsEntry | None = None
    model_name: str | None = None

    @property
    def place(self) -> tuple[torch.device, torch.dtype]:
        """Device and floating type of the network's weights: its input must have both."""
        for parameter in self.network.parameters():
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
        return self.device, torch.float32

    def in_evaluation(self, dtype: torch.dtype | None = None) -> Self:
        """This task in evaluation mode, without a change to itself.

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
        """As torch's, with an error that says which arguments the other model was built with.

        Raises:
            WeightsError: Tensors are missing, unexpected or of another shape.
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise WeightsError(_why_unfit(self, state_dict)) from error


def _evaluation_twin(module: Any, dtype: torch.dtype | None, done: dict[int, Any]) -> Any:
    """A copy of a module and those within it, in evaluation mode; tensors are shared.

    Args:
        module: Is left as it is.
        dtype: The floating tensors are converted to it, and then not shared; None keeps them.
        done: Twins by the id of their module: one that has two names has one twin.
    """
    if id(module) in done:
        return done[id(module)]
    twin = copy.copy(module)  # its own __dict__, but the same dictionaries in it
    done[id(module)] = twin
    state = twin.__dict__
    # A compiled call is that of the original module.
    state.pop("_compiled_call_impl", None)
    state["training"] = False
    state["_modules"] = {
        name: None if child is None else _evaluation_twin(child, dtype, done)
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


def _why_unfit(task: BaseTask, state_dict: Mapping[str, Any]) -> str:
    """What a user should know of a ``state_dict`` that does not fit a task, in one line."""
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
