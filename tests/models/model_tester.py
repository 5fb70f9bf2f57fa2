"""The checks that every registered model passes."""

import copy
import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chromozoo.models.registry import get_model, model_info
from chromozoo.tasks.optimisation import build_optimizer


@dataclass(frozen=True)
class Case:
    """A registered model, and a variant of it that is quick to build and to run.

    Attributes:
        name: Registered name.
        parameters: Parameters of the network that the builder makes by default.
        arguments: Arguments of the quick variant.
        sizes: Two sizes of images that it takes; one where its size is fixed.
        channels: Channels of the images.
        batch: Images of a training step.
        steps: Training steps until all parameters have moved: a block that begins as its shortcut
            needs two.
        settings: Attributes of the built task.
        idle: Parameters whose gradient is zero but for rounding.
    """

    name: str
    parameters: int
    arguments: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ((64, 32), (48, 40))
    channels: int = 1
    batch: int = 4
    steps: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()


def count_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class ModelTester:
    """Checks of both tasks. A subclass gives ``batch_of`` and ``outputs_of``.

    The fixture ``model`` must give a model in evaluation mode and is shared by all checks of a
    case, so each leaves it as it was.
    """

    rebuilt_on = "meta"

    def prepare(self, model: Any) -> None:
        """Make a model that was just built quick to run."""

    def batch_of(self, case: Case) -> dict[str, Any]:
        raise NotImplementedError

    def outputs_of(self, model: Any, case: Case, size: tuple[int, int]) -> Tensor:
        """Return what the model makes of random images, the same for the same size."""
        raise NotImplementedError

    def predict(self, model: Any) -> np.ndarray:
        """Return the result of ``classify`` or ``segment`` for a simulated image."""
        raise NotImplementedError

    def test_parameter_count(self, case: Case) -> None:
        with torch.device("meta"):  # counts without filling
            model: Any = get_model(case.name, weights=None)
        assert count_parameters(model.network) == case.parameters
        doc = " ".join(model_info(case.name).doc.split())
        assert "parameters" not in doc or f"{case.parameters:,}" in doc
        # The config of the shipped weights may build another size; their entry counts it.
        assert "our config" not in doc

    def test_outputs_are_finite_and_deterministic(self, case: Case, model: Any) -> None:
        for size in case.sizes:
            first, second = (self.outputs_of(model, case, size) for _ in range(2))
            assert first.isfinite().all()
            assert torch.equal(first, second)

    def test_hyperparameters_are_plain_and_rebuild_it(self, case: Case, model: Any) -> None:
        file = io.BytesIO()
        torch.save({"hparams": dict(model.hparams), "state": model.state_dict()}, file)
        file.seek(0)
        stored = torch.load(file, weights_only=True)
        json.dumps(stored["hparams"])
        # On `meta` nothing is filled with random numbers first.
        with torch.device(self.rebuilt_on):
            again: Any = get_model(case.name, weights=None, **stored["hparams"])
        assert again.hparams == model.hparams
        assert again.transforms == model.transforms
        again.load_state_dict(stored["state"], assign=True)
        self.prepare(again)
        size = case.sizes[0]
        assert torch.equal(self.outputs_of(again, case, size), self.outputs_of(model, case, size))
        needed = model.builder_arguments(stored["hparams"])
        assert not {"lr", "optimizer", "weight_decay"} & needed.keys()
        with torch.device("meta"):
            smaller: Any = get_model(case.name, weights=None, **needed)
        assert {k: v.shape for k, v in smaller.network.state_dict().items()} == {
            k: v.shape for k, v in model.network.state_dict().items()
        }

    def test_a_training_step_changes_every_parameter(self, case: Case, model: Any) -> None:
        torch.manual_seed(0)
        trained = copy.deepcopy(model).train()
        before = {name: p.detach().clone() for name, p in trained.network.named_parameters()}
        optimizer = build_optimizer(trained.trained_parameters(), "adamw", 1e-3, 0.0)
        batch = self.batch_of(case)
        for _ in range(case.steps):
            optimizer.zero_grad()
            loss = trained.loss(batch)
            assert loss.isfinite() and loss.ndim == 0
            loss.backward()
            optimizer.step()
        unchanged = {
            name for name, p in trained.network.named_parameters() if torch.equal(p, before[name])
        }
        assert not unchanged - case.idle
        assert all(parameter.isfinite().all() for parameter in trained.network.parameters())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_other_precision(self, case: Case, model: Any, dtype: torch.dtype) -> None:
        expected = self.predict(model)
        other = copy.deepcopy(model).to(dtype)
        assert self.predict(other) == pytest.approx(expected, abs=0.1)
        assert {p.dtype for p in other.network.parameters()} == {dtype}

    def test_autocast(self, case: Case, model: Any) -> None:
        expected = self.predict(model)
        with torch.autocast("cpu", torch.bfloat16):
            assert self.predict(model) == pytest.approx(expected, abs=0.1)
