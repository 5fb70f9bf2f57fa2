"""Keeps strided convolutions right where a feature map becomes one pixel wide.

In bfloat16 on a CPU with AMX, oneDNN computes something else, at times NaN, for a convolution with
a stride whose result is one pixel wide (pytorch/pytorch#169688). A canvas up to 32 pixels wide
comes to that in the last stage of every network whose stages reduce it 32 times.
"""

import torch
from torch import Tensor, nn


def _in_float32(
    convolution: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor | None:
    """The result anew where it cannot be trusted; None keeps it."""
    if output.shape[-1] > 1 or output.dtype != torch.bfloat16 or output.device.type != "cpu":
        return None
    with torch.autocast("cpu", enabled=False):
        bias = None if convolution.bias is None else convolution.bias.float()
        anew = nn.functional.conv2d(
            inputs[0].float(),
            convolution.weight.float(),
            bias,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.groups,
        )
    return anew.to(output.dtype)


def fix_narrow_maps(network: nn.Module) -> None:
    """Lets every strided convolution in ``network`` judge its own result; call it once."""
    for module in network.modules():
        # Of subclasses it is not known what they do with their input first.
        if type(module) is nn.Conv2d and module.stride[-1] > 1 and module.kernel_size[-1] > 1:
            module.register_forward_hook(_in_float32)
