"""Deformable convolution: each tap of the kernel reads its input at a place that the layer itself predicts.

J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211. The offsets are laid out as in ONNX's
operator DeformConv, which ``export`` writes for ``torch.ops.inferception.deform_conv2d``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Convolve ``x``, ``[n, c, h, w]``, with taps that ``offset`` moves. Return ``[n, o, h', w']``.

    ``offset`` is ``[n, offset_groups * kh * kw * 2, h', w']``, in pixels: for each tap the way down and the way to the
    right. The channels of an offset group share their offsets. Between pixels a tap reads their bilinear interpolation,
    with zeros outside ``x``. The other arguments are those of ``torch.nn.functional.conv2d``.
    """
    (n, channels, *sides), kernel, outputs = x.shape, weight.shape[2:], offset.shape[2:]
    batch = n * (offset.shape[1] // (2 * kernel.numel()))  # an image for each offset group
    # The samples of one output pixel lie side by side, in [h' * kh, w' * kw] pixels. A convolution whose stride is its
    # kernel's size adds them up.
    rows, columns = (
        (torch.arange(out).unsqueeze(1) * step - before + torch.arange(taps) * apart).flatten()
        for out, taps, step, before, apart in zip(outputs, kernel, stride, padding, dilation, strict=True)
    )
    regular = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).to(offset)
    moved = offset.reshape(batch, *kernel, 2, *outputs).permute(0, 4, 1, 5, 2, 3)  # [batch, h', kh, w', kw, 2]
    places = regular + moved.reshape(batch, *regular.shape)
    # grid_sample names a column before its row, and counts from -1 to 1 between the outer edges of the image.
    grid = (2 * places + 1) / places.new_tensor(sides) - 1
    samples = F.grid_sample(x.reshape(batch, -1, *sides), grid.flip(-1), align_corners=False)
    return F.conv2d(samples.reshape(n, channels, *regular.shape[:2]), weight, bias, list(kernel), groups=groups)


# Autograd sees through a composite operator, and an export keeps the operator whole.
torch.library.define(
    "inferception::deform_conv2d",
    "(Tensor x, Tensor offset, Tensor weight, Tensor? bias, int[2] stride, int[2] padding, int[2] dilation, int groups)"
    " -> Tensor",
)
torch.library.impl("inferception::deform_conv2d", "CompositeImplicitAutograd", deform_conv2d)


class DeformConv2d(nn.Conv2d):
    """A convolution that predicts the offsets of its taps from its input, with a convolution of the same geometry.

    ``groups`` are the convolution's groups; all channels share one offset per tap. Offsets start at zero, where the
    layer equals ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.offset = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, stride, padding, dilation)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, out_channels, h', w']``, as a convolution of this geometry does."""
        out: Tensor = torch.ops.inferception.deform_conv2d(
            x, self.offset(x), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return out
