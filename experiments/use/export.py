"""A trained run as a file: ``python -m experiments export runs/<name>/seed<n> [--out FOLDER]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from callbacks.atomic_files import replacing
from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.recording.log_config import commit
from experiments.command_line.failures import for_users
from experiments.command_line.parser import CommandParser
from experiments.use.trained import restore
from lightning_modules.networks import AdaptedNetwork

TOLERANCE = 1e-4  # of a probability, between torch and onnxruntime
NOTICE = "Research only. Not a medical device, and gives no diagnosis."


class Deployed(nn.Module):
    """A trained network with everything before and behind it but the resampling of the image.

    Args:
        network: Images (B, 3, S, S) in [0, 1] to logits (B, K).
        decision: The run's, or the likeliest class.

    Shape:
        Pixels (B, S, S, 3), RGB, uint8, to probabilities (B, K), calibrated by the decision's
        temperature, and the decided classes (B,).
    """

    def __init__(self, network: nn.Module, decision: Decision) -> None:
        super().__init__()
        self.network, k = network, len(decision.classes)
        self.temperature = decision.temperature
        self.offsets: Tensor
        self.costs: Tensor
        costs = torch.tensor(decision.costs) if decision.costs else 1 - torch.eye(k)
        self.register_buffer("offsets", torch.tensor(decision.offsets or [0.0] * k).float())
        self.register_buffer("costs", costs.float())

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = pixels.permute(0, 3, 1, 2).float() / 255
        scores = self.network(images).float().log_softmax(1) / self.temperature
        expected_cost = (scores + self.offsets).softmax(1) @ self.costs
        return scores.softmax(1), expected_cost.argmin(1)


def export(run: Path, out: Path, *options: str) -> dict[str, str]:
    """Writes ``model.onnx`` and ``model.pt2`` with their metadata, and checks both.

    Args:
        run: The run folder.
        out: Where the files go.
        *options: Flags besides those that the run recorded.

    Returns:
        The metadata.

    Raises:
        RunError: A library is missing, or an exported file gives other results.
    """
    cli = restore(run, *options)
    decision = Decision.load(run) or Decision(tuple(cli.datamodule.class_names))
    for module in cli.model.modules():
        if isinstance(module, AdaptedNetwork):
            module.merge()
    deployed = Deployed(cli.model, decision).eval()
    deployed.to(memory_format=torch.contiguous_format)  # torch warns of weights in another
    size = int(cli.datamodule.size)
    metadata = describe(run, decision, size)
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (3, size, size, 3), np.uint8))
    out.mkdir(parents=True, exist_ok=True)
    native, onnx = out / "model.pt2", out / "model.onnx"
    with torch.no_grad():
        # Not what the exported module itself says, which might be what is wrong.
        seen = cli.model(pixels.permute(0, 3, 1, 2).float() / 255).softmax(1)
        expected, cost = decision.calibrated(seen), decision.expected_cost(seen)
        free = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(deployed, (pixels,), dynamic_shapes=free)
        # Checked with another batch size than it was traced with, before it is put in its place.
        with replacing(native) as partial:
            torch.export.save(program, partial, extra_files={"metadata": json.dumps(metadata)})
            check(Outputs(*torch.export.load(partial).module()(pixels[:2])), expected, cost, native)
        with replacing(onnx) as partial:
            _to_onnx(program, partial, metadata)
            check(_with_onnxruntime(partial, pixels[:2]), expected, cost, onnx)
    return metadata


def describe(run: Path, decision: Decision, size: int) -> dict[str, str]:
    """What whoever finds the file must know."""
    rule = {"temperature": decision.temperature, "offsets": decision.offsets}
    return {
        "run": f"{run.absolute().parent.name}/{run.name}",
        "classes": json.dumps(decision.classes),
        "input": f"pixels: RGB, uint8, (batch, {size}, {size}, 3), whole image, area-averaged",
        "output": "probability (batch, class); decision (batch), an index of classes",
        "decision": json.dumps(rule | {"costs": decision.costs}),
        "commit": commit() or "",
        "notice": NOTICE,
    }


class Outputs(NamedTuple):
    """What an exported network gives of B images.

    Args:
        probability: (B, K).
        decision: Decided classes (B,).
    """

    probability: Tensor
    decision: Tensor


def check(found: Outputs, probability: Tensor, cost: Tensor, file: Path) -> None:
    """Holds what an exported network says of the first images to what the run says.

    Args:
        found: Outputs for the first images.
        probability: The run's (N, K), calibrated.
        cost: The run's expected cost (N, K) of deciding each class. The class that is decided has
            the least, within the tolerance: two of nearly the same cost may change places.
        file: Exported file, for messages.
    """
    there = len(found.probability)
    apart = (found.probability - probability[:there]).abs().max().item()
    if not apart <= TOLERANCE:
        raise RunError(f"{file} gives other probabilities, by up to {apart:.1e}: not kept.")
    cost = cost[:there]
    lost = cost.gather(1, found.decision[:, None].long()).squeeze(1) - cost.amin(1)
    if not (lost <= TOLERANCE * cost.abs().amax(1).clamp(min=1)).all():
        raise RunError(f"{file} decides other classes than the run: not kept.")
    print(f"{file}: the same probabilities, within {apart:.1e}, and the same decisions")


def _to_onnx(program: Any, file: Path, metadata: dict[str, str]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise RunError("ONNX needs more packages: pip install '.[export]'.") from None
    names = ["probability", "decision"]
    exported = torch.onnx.export(program, input_names=["pixels"], output_names=names, verbose=False)
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(file))


def _with_onnxruntime(file: Path, pixels: Tensor) -> Outputs:
    try:
        import onnxruntime
    except ImportError:
        raise RunError("The check needs onnxruntime: pip install '.[export]'.") from None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = session.run(["probability", "decision"], {"pixels": pixels.numpy()})
    return Outputs(*map(torch.from_numpy, found))


def main() -> None:
    parser = CommandParser(
        "Write a run as model.onnx and model.pt2 (torch.export), and check that both give the "
        "run's probabilities."
    )
    parser.add_argument("run", type=Path, help="run folder, runs/<name>/seed<seed>")
    parser.add_argument("--out", type=Path | None, help="target folder (default: RUN/export)")
    options, more = parser.parse()
    with for_users():
        export(options.run, options.out or options.run / "export", *more)
