"""Learning rate and weight decay of the layers of timm models."""

from __future__ import annotations

from typing import Any, NamedTuple

from timm import optim
from torch import nn


class Layer(NamedTuple):
    """Settings that the parameters of a layer share.

    Attributes:
        factor: Factor of the learning rate, above 0.
        decayed: Whether the weights are decayed.
    """

    factor: float
    decayed: bool


def layers(module: nn.Module, layer_decay: float) -> dict[nn.Parameter, Layer]:
    """Layer of each trainable parameter of the timm models in a module.

    timm numbers the layers of its models from the stem to the classifier. The factor of a layer is
    ``layer_decay`` to the power of the number of layers behind it. In a model without classifier,
    the last layer is that of the last block.

    Args:
        module: Module that contains models of timm.
        layer_decay: Factor of the learning rate from each layer to the one before it, in (0, 1].
    """
    found: dict[nn.Parameter, Layer] = {}
    model: Any
    for model in module.modules():
        if not hasattr(model, "group_matcher"):
            continue
        listed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        for group in optim.param_groups_layer_decay(  # type: ignore[attr-defined]
            model, weight_decay=1.0, no_weight_decay_list=listed, layer_decay=layer_decay
        ):
            layer = Layer(group["lr_scale"], decayed=group["weight_decay"] > 0)
            for parameter in group["params"]:
                found.setdefault(parameter, layer)  # of the outermost model
    return found
