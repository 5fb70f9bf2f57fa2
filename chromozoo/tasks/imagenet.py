"""Starting from ImageNet weights."""

import torch
from torch import nn

from chromozoo.errors import WeightsError


def take_over_imagenet(network: nn.Module, timm_name: str) -> int:
    """Copies the ImageNet tensors of a timm model into a network, where name and shape agree.

    Args:
        network: Network whose layers carry the timm model's names.
        timm_name: For instance ``"resnext50_32x4d.tv_in1k"``. timm downloads and caches it.

    Returns:
        Number of tensors taken over.

    Raises:
        WeightsError: The weights cannot be fetched, or no tensor fits.
    """
    import timm

    try:
        source = timm.create_model(timm_name, pretrained=True).state_dict()
    except Exception as error:  # timm passes on a different kind for every way to be offline
        raise WeightsError(
            f"{timm_name}: no ImageNet weights ({error}); connect to the network once so that "
            "timm can cache them, or set init_from to null to start from random weights"
        ) from error
    own = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in source.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not fitting:
        raise WeightsError(f"{timm_name}: no tensor has a name and shape of this network")
    with torch.no_grad():
        network.load_state_dict(own | fitting)
    return len(fitting)
