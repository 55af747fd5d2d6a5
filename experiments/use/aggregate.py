"""SADE's aggregation of experts: ``python -m experiments aggregate runs/probe_sade/seed*``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from callbacks.atomic_files import write_json
from callbacks.errors import RunError
from callbacks.run_folder import RunFolder
from datamodules.views import RandomCrop, Views
from experiments.command_line.failures import for_users
from experiments.command_line.parser import CommandParser
from experiments.running.place import refuse_name
from experiments.use.ensemble import claim, score
from experiments.use.trained import Restored, restore
from lightning_modules import Experts
from lightning_modules.networks.aggregation import prediction_stability, stable_weights

WEIGHTS = "aggregation.json"


def evaluate(run: Path, name: str, folder: Path | None, *options: str) -> None:
    """Learn weights of a run's experts on the test images, without their labels, and score them.

    The weights maximize the stability of the predictions under augmentation, see
    :func:`~lightning_modules.networks.aggregation.stable_weights`. As they depend on the images
    that are scored, the method is transductive, and results are not comparable with those of
    methods that see one test image at a time. They are therefore written to a run of their own,
    ``runs/<name>/seed<n>``, with the weights in ``aggregation.json``. The views are as in the
    paper, which has those of MoCo v2, but without changes of the hue. They are drawn once, with
    the seed 0.

    Args:
        run: Folder of a run of :class:`~lightning_modules.Experts`.
        name: Name of the new run.
        folder: Folder of images to predict; None scores the test split.
        *options: Flags in addition to the recorded ones.

    Raises:
        RunError: The run has one classifier, or the name is taken.
    """
    refuse_name(name)
    predicted = [f"--data.predict_folder={folder}"] if folder else []
    member = restore(run, *predicted, *options)
    if not isinstance(member.model, Experts):
        raise RunError(
            f"{run} has a single classifier, and so nothing to aggregate: choose a run of several "
            "experts, such as one of probe_sade."
        )
    target = RunFolder.of(name, member.datamodule.seed)
    claim(target, run, f"{run}\naggregated on {folder or 'the test split'}\n")
    views = expert_views(member, predicts=folder is not None)
    heads = member.model.heads
    weights = stable_weights(views)
    stability = [prediction_stability(views, w).item() for w in (heads.weight.cpu(), weights)]
    heads.weigh(weights)
    record = {
        "run": str(run),
        "images": views.shape[2],
        "weights": weights.tolist(),
        "stability": dict(zip(("mean", "weighted"), stability, strict=True)),
    }
    write_json(target.path / WEIGHTS, record)
    print(f"Weights of the experts: {', '.join(f'{w:.2f}' for w in weights.tolist())}")
    score(member.model, target, folder, *options)


@torch.no_grad()
def expert_views(member: Restored, predicts: bool) -> Tensor:
    """Logits (2, E, N, K) of the experts for two views of each image to score."""
    data, model = member.datamodule, member.model
    data.setup("predict" if predicts else "test")
    loader = data.predict_dataloader() if predicts else data.test_dataloader()
    crop = RandomCrop(area=(0.2, 1.0), gray=0.2, blur=0.5)
    both = Views([crop, crop])
    model.to(member.trainer.strategy.root_device)
    logits = []
    torch.manual_seed(0)
    for batch in loader:
        readable = batch.get("readable", torch.ones(len(batch["image"]), dtype=torch.bool))
        views = both({"image": batch["image"][readable].to(model.device)})["image"]
        of_both = model.heads.experts(model.network.vectors(views)).float().cpu()
        logits.append(torch.stack(of_both.chunk(2, dim=1)))
    model.cpu()
    if not sum(part.shape[2] for part in logits):
        raise RunError("None of the images can be read: choose others with --folder.")
    return torch.cat(logits, dim=2)


def main() -> None:
    parser = CommandParser(
        "Weigh the experts of runs by self-supervision on the test images, without their labels, "
        "as SADE does, and score them as runs of their own."
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--folder", type=Path | None, help="images to predict (default: test split)"
    )
    parser.add_argument("--name", help="name of the new runs (default: NAME-transductive)")
    options, more = parser.parse()
    with for_users():
        for run in options.runs:
            name = options.name or f"{run.absolute().parent.name}-transductive"
            evaluate(run, name, options.folder, *more)
