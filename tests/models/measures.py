"""What a network's tests count: parameters, multiplications, shapes of stages; and live logits in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.weights import LoadedModel


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, side: int) -> int:
    """Return the multiplications with a weight of a convolution or a linear layer, for one image."""
    counted = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        positions = output[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
        counted.append(layer.weight.numel() * positions)

    model.eval()
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model(next(model.parameters()).new_zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def output_shapes(model: nn.Module, names: list[str], image: Tensor) -> list[tuple[int, int]]:
    """Return the channels and the side of each named module's output for one image."""
    shapes = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape)})
        )
        for name in names
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    assert all(height == width for _, _, height, width in shapes.values())
    return [shapes[name][1:3] for name in names]


def in_float64(loaded: LoadedModel) -> nn.Module:
    """Rebuild the network from its recorded options, so that the options are tested too."""
    model = loaded.spec.build(**loaded.options).double().eval()
    model.load_state_dict(loaded.model.state_dict(), strict=True)
    return model


def with_weights_of(loaded: LoadedModel, reference: nn.Module) -> nn.Module:
    """Copy the loaded weights into ``reference`` in float64, matched by their order."""
    ours = loaded.model.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), ours, strict=True)), strict=True)
    return reference.double().eval()


@torch.no_grad()
def float64_logits(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return model(images.double())


def assert_same_live_logits(ours: Tensor, theirs: Tensor) -> None:
    """Check that the logits agree within float64's rounding, and that they differ between images."""
    apart = [(ours[i] - ours[j]).abs().max() for i in range(len(ours)) for j in range(i)]
    assert min(apart) >= 1e-2
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
