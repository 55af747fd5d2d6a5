"""W&B workspace of the project: ``python -m experiments dashboard [--out FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from callbacks.atomic_files import write_text
from callbacks.errors import reason
from callbacks.looking.charts import BARS
from datamodules.classes import HAM10000_CLASSES, Classes
from experiments.command_line.parser import CommandParser

OVERALL = ("balanced_accuracy", "macro_f1", "macro_auroc", "ece")
SHOTS = ("many_accuracy", "medium_accuracy", "few_accuracy")
RESOURCES = ("seconds", "images_per_second", "memory_gb")
TABLES = {"Per class": ["test/predictions"]}
MEDIA = {"Attention": ["val/attention", "test/attention"]}
# Charts of metrics whose names depend on the optimizer or on the most frequent class.
BY_PATTERN = {
    "Mixing": {
        "Images decided as the most frequent class, not mixed": "val/called_.*_clean_.*",
        "Images decided as the most frequent class, mixed": "val/called_.*_mixed_.*",
    },
    "System": {"Learning rate": "lr-.*"},
}
Charts = dict[str, dict[str, list[str]]]


def line_charts(classes: Sequence[str]) -> Charts:
    """Metrics of the line charts, by section and title."""
    return {
        "Overview": {
            "Training loss": ["train/loss"],
            "Validation loss": ["val/loss"],
            **{name: [f"val/{name}"] for name in (*OVERALL, "accuracy")},
            "Many, medium, few": [f"val/{name}" for name in SHOTS],
        },
        "Per class": {metric: [f"val/{metric}_{c}" for c in classes] for metric in BARS},
        "Attention": {
            "Share of the map in the lesion": ["val/energy", "val/lesion_area"],
            "Highest point in the lesion": ["val/pointing"],
            "Share of the map in the lesion, per class": [f"val/energy_{c}" for c in classes],
        },
        "Mixing": {},
        "System": {name: [f"resources/{name}"] for name in RESOURCES},
    }


def bar_charts(classes: Sequence[str]) -> dict[str, list[str]]:
    """Test metrics that are shown as bars, by section."""
    return {
        "Overview": [f"test/{name}" for name in (*OVERALL, *SHOTS)],
        "Per class": [f"test/{metric}_{c}" for metric in BARS for c in classes],
        "Attention": ["test/energy", "test/pointing", "test/lesion_area"],
    }


def plotted(classes: Sequence[str]) -> set[str]:
    """Names of all metrics, tables and media in the workspace that are not chosen by a pattern."""
    parts = (*line_charts(classes).values(), bar_charts(classes), TABLES, MEDIA)
    return {key for part in parts for keys in part.values() for key in keys}


def workspace(entity: str, project: str, classes: Sequence[str]) -> Any:
    """The workspace: sections for overview, classes, attention, mixing and system."""
    ws: Any = import_module("wandb_workspaces.workspaces")
    sections = [
        ws.Section(name=name, panels=list(_panels(name, classes)), is_open=True)
        for name in line_charts(classes)
    ]
    settings = ws.WorkspaceSettings(x_axis="epoch", max_runs=50)
    return ws.Workspace(
        entity=entity, project=project, name="LongDerm", sections=sections, settings=settings
    )


def _panels(section: str, classes: Sequence[str]) -> Iterable[Any]:
    wr: Any = import_module("wandb_workspaces.reports.v2")
    for title, ys in line_charts(classes)[section].items():
        yield wr.LinePlot(title=title, x="epoch", y=list(ys))
    for title, pattern in BY_PATTERN.get(section, {}).items():
        yield wr.LinePlot(title=title, x="Step", metric_regex=pattern)
    for key in bar_charts(classes).get(section, []):
        yield wr.BarPlot(title=key, metrics=[key])
    for table in TABLES.get(section, []):
        yield wr.WeavePanelSummaryTable(table_name=table)
    for key in MEDIA.get(section, []):
        yield wr.MediaBrowser(title=key, media_keys=[key])


def main() -> None:
    parser = CommandParser("Create the project's workspace on W&B: sections, charts and tables.")
    parser.add_argument("--project", default="longderm", help="W&B project")
    parser.add_argument("--entity", default="", help="W&B user or team (default: yours)")
    parser.add_argument(
        "--out", type=Path | None, help="write the specification to this file instead of W&B"
    )
    parser.add_argument(
        "--classes",
        type=Path | None,
        help="classes.yaml of a run, or dataset.yaml (default: HAM10000's)",
    )
    options = parser.parse_args()
    classes = Classes.read(options.classes) if options.classes else HAM10000_CLASSES
    try:
        view = workspace(options.entity, options.project, classes.names)
    except ImportError:
        sys.exit("error: The dashboard needs wandb-workspaces: pip install '.[dashboard]'.")
    if options.out:
        spec = view._to_model().spec  # the library has no public method
        write_text(options.out, spec.model_dump_json(by_alias=True, exclude_none=True, indent=2))
        print(f"Wrote {options.out}.")
        return
    try:
        view.save()
    except Exception as error:  # connection, key and server fail with a dozen types
        sys.exit(f"error: W&B refused the workspace ({reason(error)}): check `wandb login`.")
