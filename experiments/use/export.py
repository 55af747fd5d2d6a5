"""Export of a run to ONNX and torch.export: ``python -m experiments export RUN [--out FOLDER]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from callbacks.atomic_files import replacing
from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.recording.log_config import commit
from callbacks.recording.sets import PredictionSets
from experiments.command_line.failures import for_users
from experiments.command_line.parser import CommandParser
from experiments.use.trained import load
from lightning_modules.networks import AdaptedNetwork

TOLERANCE = 1e-4  # largest difference of a probability between torch and onnxruntime
IN_SET = "a class is in the set if its softmax(temperature * log(probability)) >= its minimum"
ABSTENTION = "abstain if softmax(log(probability) + offsets) of the decision < threshold"
NOTICE = "Research only. Not a medical device; gives no diagnosis."


class Deployed(nn.Module):
    """A trained network with scaling, temperature and decision rule, for resized images.

    Args:
        network: Network from images (B, 3, S, S) in [0, 1] to logits (B, K).
        decision: Decision rule of the run; without offsets and costs, the most likely class.

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


def export(run: Path, out: Path) -> dict[str, str]:
    """Write ``model.onnx`` and ``model.pt2`` with their metadata, and check both.

    The data set need not be installed.

    Args:
        run: Run folder.
        out: Folder for the files.

    Returns:
        The metadata.

    Raises:
        RunError: A library is missing, or an exported file gives different results.
    """
    trained = load(run)
    model, decision, size = trained.model, trained.decision, trained.size
    for module in model.modules():
        if isinstance(module, AdaptedNetwork):
            module.merge()
    deployed = Deployed(model, decision).eval()
    deployed.to(memory_format=torch.contiguous_format)  # torch.export warns about channels-last
    metadata = describe(run, decision, trained.prediction_sets, size)
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (3, size, size, 3), np.uint8))
    out.mkdir(parents=True, exist_ok=True)
    native, onnx = out / "model.pt2", out / "model.onnx"
    with torch.no_grad():
        # From the run's model, not from ``deployed``, whose own mistakes must be found.
        probability = model(pixels.permute(0, 3, 1, 2).float() / 255).softmax(1)
        expected, cost = decision.calibrated(probability), decision.expected_cost(probability)
        free = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(deployed, (pixels,), dynamic_shapes=free)
        # Checked with another batch size than the traced one, before the file is put in place.
        with replacing(native) as partial:
            torch.export.save(program, partial, extra_files={"metadata": json.dumps(metadata)})
            check(Outputs(*torch.export.load(partial).module()(pixels[:2])), expected, cost, native)
        with replacing(onnx) as partial:
            _to_onnx(program, partial, metadata)
            check(_with_onnxruntime(partial, pixels[:2]), expected, cost, onnx)
    return metadata


def describe(
    run: Path, decision: Decision, sets: PredictionSets | None, size: int
) -> dict[str, str]:
    """Metadata of an exported file: classes, input, output, decision, sets, origin.

    Abstention and prediction sets are no outputs: their thresholds are in the metadata.
    """
    rule = {"temperature": decision.temperature, "offsets": decision.offsets}
    metadata = {
        "run": f"{run.absolute().parent.name}/{run.name}",
        "classes": json.dumps(decision.classes),
        "input": f"pixels: RGB, uint8, (batch, {size}, {size}, 3), whole image, area-averaged",
        "output": "probability (batch, class); decision (batch), an index of classes",
        "decision": json.dumps(rule | {"costs": decision.costs, "threshold": decision.threshold}),
        "commit": commit() or "",
        "notice": NOTICE,
    }
    if decision.threshold is not None:
        metadata["abstention"] = ABSTENTION
    if sets:
        minimum = dict(zip(sets.classes, sets.minimum, strict=True))
        thresholds = {"kind": sets.kind, "coverage": sets.coverage, "minimum": minimum}
        metadata["sets"] = json.dumps(thresholds | {"rule": IN_SET})
    return metadata


class Outputs(NamedTuple):
    """Outputs of an exported network for B images.

    Args:
        probability: Calibrated probabilities (B, K).
        decision: Decided classes (B,).
    """

    probability: Tensor
    decision: Tensor


def check(outputs: Outputs, probability: Tensor, cost: Tensor, file: Path) -> None:
    """Compare the outputs of an exported network for the first images with those of the run.

    Args:
        outputs: Outputs for the first images.
        probability: Calibrated probabilities (N, K) of the run.
        cost: Expected cost (N, K) of deciding each class, by the run. The decided class must have
            the lowest cost within the tolerance; nearly equal costs may be ordered differently.
        file: Name of the exported file for messages.
    """
    count = len(outputs.probability)
    error = (outputs.probability - probability[:count]).abs().max().item()
    if not error <= TOLERANCE:
        raise RunError(
            f"{file} was not kept: its probabilities differ by up to {error:.1e} from those of the "
            "run. Use the versions in requirements.lock."
        )
    cost = cost[:count]
    excess = cost.gather(1, outputs.decision[:, None].long()).squeeze(1) - cost.amin(1)
    if not (excess <= TOLERANCE * cost.abs().amax(1).clamp(min=1)).all():
        raise RunError(
            f"{file} was not kept: its decisions differ from those of the run. Use the versions in "
            "requirements.lock."
        )
    print(f"{file}: same decisions as the run, same probabilities within {error:.1e}")


def _to_onnx(program: torch.export.ExportedProgram, file: Path, metadata: dict[str, str]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise RunError("ONNX export needs more packages: pip install '.[export]'.") from None
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
        raise RunError("Checking the export needs onnxruntime: pip install '.[export]'.") from None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    outputs = session.run(["probability", "decision"], {"pixels": pixels.numpy()})
    return Outputs(*map(torch.from_numpy, outputs))


def main() -> None:
    parser = CommandParser(
        "Write a run as model.onnx and model.pt2 (torch.export), and check that both give the "
        "run's probabilities."
    )
    parser.add_argument("run", type=Path, help="run folder, runs/<name>/seed<seed>")
    parser.add_argument("--out", type=Path | None, help="target folder (default: RUN/export)")
    options = parser.parse_args()
    with for_users():
        export(options.run, options.out or options.run / "export")
