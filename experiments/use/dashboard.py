"""W&B workspace of the project: ``python -m experiments dashboard [--out FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from callbacks.atomic_files import write_text
from callbacks.errors import reason
from callbacks.looking.charts import BARS
from datamodules.classes import CLASSES
from experiments.command_line.parser import CommandParser

OVERALL = ("balanced_accuracy", "macro_f1", "macro_auroc", "ece")
SHOTS = ("many_accuracy", "medium_accuracy", "few_accuracy")
RESOURCES = ("seconds", "images_per_second", "memory_gb")
HEAD = "nv"  # the most frequent class
LEARNING_RATE = "lr-.*"  # the optimizer's name follows
SECTIONS: dict[str, dict[str, list[str]]] = {
    "Overview": {
        "Training loss": ["train/loss"],
        "Validation loss": ["val/loss"],
        **{name: [f"val/{name}"] for name in (*OVERALL, "accuracy")},
        "Many, medium, few": [f"val/{name}" for name in SHOTS],
    },
    "Per class": {metric: [f"val/{metric}_{c}" for c in CLASSES] for metric in BARS},
    "Attention": {
        "Share of the map in the lesion": ["val/energy", "val/lesion_area"],
        "Highest point in the lesion": ["val/pointing"],
        "Share of the map in the lesion, per class": [f"val/energy_{c}" for c in CLASSES],
    },
    "Mixing": {
        f"Images decided as {HEAD}, {title}": [f"val/called_{HEAD}_{kind}_{c}" for c in CLASSES]
        for kind, title in (("clean", "not mixed"), ("mixed", "mixed"))
    },
    "System": {name: [f"resources/{name}"] for name in RESOURCES},
}
TEST_BARS = {
    "Overview": [f"test/{name}" for name in (*OVERALL, *SHOTS)],
    "Per class": [f"test/{metric}_{c}" for metric in BARS for c in CLASSES],
    "Attention": ["test/energy", "test/pointing", "test/lesion_area"],
}
TABLES = {"Per class": ["test/predictions"]}
MEDIA = {"Attention": ["val/attention", "test/attention"]}


def plotted() -> set[str]:
    """Names of all metrics, tables and media in the workspace, except the learning rate."""
    keys = {key for charts in SECTIONS.values() for ys in charts.values() for key in ys}
    return keys.union(*(ys for part in (TEST_BARS, TABLES, MEDIA) for ys in part.values()))


def workspace(entity: str, project: str) -> Any:
    """The workspace, with sections for overview, classes, attention, mixing and system."""
    ws: Any = import_module("wandb_workspaces.workspaces")
    sections = [
        ws.Section(name=name, panels=list(_panels(name)), is_open=True) for name in SECTIONS
    ]
    settings = ws.WorkspaceSettings(x_axis="epoch", max_runs=50)
    return ws.Workspace(
        entity=entity, project=project, name="LongDerm", sections=sections, settings=settings
    )


def _panels(section: str) -> Iterable[Any]:
    wr: Any = import_module("wandb_workspaces.reports.v2")
    for title, ys in SECTIONS[section].items():
        yield wr.LinePlot(title=title, x="epoch", y=list(ys))
    if section == "System":
        yield wr.LinePlot(title="Learning rate", x="Step", metric_regex=LEARNING_RATE)
    for key in TEST_BARS.get(section, []):
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
    options = parser.parse_args()
    try:
        view = workspace(options.entity, options.project)
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
