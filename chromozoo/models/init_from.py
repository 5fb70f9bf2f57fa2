"""Initialisation from pretrained weights: of ImageNet, or of an earlier training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chromozoo.errors import WeightsError
from chromozoo.models.registry import get_model
from chromozoo.models.weights.checkpoint import load_checkpoint
from chromozoo.models.weights.storage import load_tensors

# Prefix of the names of this zoo's models, to tell them from timm's.
ZOO = "chromozoo/"
# Heads missing from many weights: a classifier's for polarity, a segmenter's for classes.
OPTIONAL_HEADS = ("polarity.", "names.")


def initialise_from(network: nn.Module, init_from: str, prefix: str = "") -> None:
    """Initialise a network before its training.

    Args:
        network: The pure network.
        init_from: Path of a checkpoint (``.ckpt``) of this very network, to tune it further;
            ``"chromozoo/<model>"`` or ``"chromozoo/<model>:<tag>"``, published weights of the zoo,
            for the same; any other text is the name of a timm model, see
            :func:`load_imagenet_weights`. In the first two a head for polarity or classes may be
            missing, and one that this network lacks is left out.
        prefix: See :func:`load_imagenet_weights`.

    Raises:
        UnknownNameError: The zoo has no such model or tag.
        WeightsError: The weights cannot be had, or do not fit.
    """
    if init_from.endswith(".ckpt"):
        _load(network, load_checkpoint(init_from)[1], Path(init_from))
    elif init_from.startswith(ZOO):
        _load(network, load_published(init_from.removeprefix(ZOO)).state_dict(), Path(init_from))
    else:
        load_imagenet_weights(network, init_from, prefix)


def load_published(name: str) -> nn.Module:
    """Return the network of published weights, ``"<model>"`` or ``"<model>:<tag>"``.

    Raises:
        UnknownNameError: The zoo has no such model or tag.
        WeightsError: The weights cannot be had.
    """
    model, _, tag = name.partition(":")
    task: Any = get_model(model, weights=tag or "DEFAULT")
    network: nn.Module = task.network
    return network


def _load(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    new = {k: v for k, v in own.items() if k.startswith(OPTIONAL_HEADS)}
    taken = {k: v for k, v in tensors.items() if k in own or not k.startswith(OPTIONAL_HEADS)}
    load_tensors(network, new | taken, path)


def load_imagenet_weights(network: nn.Module, timm_name: str, prefix: str = "") -> int:
    """Copy the ImageNet tensors of a timm model into a network, where name and shape agree.

    The stem of a network with one input channel gets the sum over the three colours: its output for
    a grey image is that of the colour stem for the same image in three equal channels.

    Args:
        network: Network whose layers carry the timm model's names.
        timm_name: For instance ``"resnext50_32x4d.tv_in1k"``. timm downloads and caches it.
        prefix: Prefix of timm's names in this network, such as ``"body."``.

    Returns:
        Number of tensors taken over.

    Raises:
        WeightsError: The weights cannot be fetched, or no tensor fits.
    """
    import timm

    try:
        source = timm.create_model(timm_name, pretrained=True).state_dict()
    except Exception as error:  # timm raises many kinds, by the reason of being offline
        raise WeightsError(
            f"{timm_name}: no ImageNet weights ({error}); connect to the network once so that "
            "timm can cache them, or set init_from to null to start from random weights"
        ) from error
    own = network.state_dict()
    fitting = {}
    for name, tensor in source.items():
        wanted = own.get(prefix + name)
        if wanted is None:
            continue
        if wanted.ndim == tensor.ndim == 4 and (wanted.shape[1], tensor.shape[1]) == (1, 3):
            tensor = tensor.sum(dim=1, keepdim=True)
        if wanted.shape == tensor.shape:
            fitting[prefix + name] = tensor
    if not fitting:
        raise WeightsError(f"{timm_name}: no tensor has a name and shape of this network")
    with torch.no_grad():
        network.load_state_dict(own | fitting)
    return len(fitting)
