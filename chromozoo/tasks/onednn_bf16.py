"""A workaround for wrong strided convolutions in bfloat16 (pytorch/pytorch#169688).

In bfloat16 on a CPU with AMX, oneDNN returns wrong values, at times NaN, for a convolution with a
stride whose result is one pixel wide. A canvas up to 32 pixels wide has such maps in the last stage
of every network whose stages reduce it 32 times.
"""

import torch
from torch import Tensor, nn


def _recompute_in_float32(
    convolution: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor | None:
    """Return the result recomputed in float32 where it may be wrong; None keeps it."""
    if output.shape[-1] > 1 or output.dtype != torch.bfloat16 or output.device.type != "cpu":
        return None
    with torch.autocast("cpu", enabled=False):
        bias = None if convolution.bias is None else convolution.bias.float()
        recomputed = nn.functional.conv2d(
            inputs[0].float(),
            convolution.weight.float(),
            bias,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.groups,
        )
    return recomputed.to(output.dtype)


def fix_narrow_maps(network: nn.Module) -> None:
    """Recompute one-pixel-wide results of all strided convolutions of a network; call it once."""
    for module in network.modules():
        # A subclass may change its input first, and the hook would not see that.
        if type(module) is nn.Conv2d and module.stride[-1] > 1 and module.kernel_size[-1] > 1:
            module.register_forward_hook(_recompute_in_float32)
