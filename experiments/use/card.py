"""The model card of an evaluated run: ``python -m experiments card runs/<name>/seed<n>``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from callbacks.atomic_files import write_text
from callbacks.console import decimals
from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.run_folder import RunFolder
from datamodules.classes import HAM10000_CLASSES
from experiments.command_line.parser import CommandParser
from experiments.compare.comparison import compare
from experiments.compare.rows import Estimate
from experiments.compare.runs import TestedRun, read_run
from experiments.compare.table import interval, number

CARD = """# {title}

**Not a medical device.** A research model: it gives no diagnosis, and must not be used to decide
about anyone's health.

## Model

{what}

| | |
|---|---|
{facts}

## Data

{data}{synthetic} Split by {group},
`{split}`, so that no {group} is in two splits:

{parts}

The model was trained on the training split. The best epoch and any decision rule were chosen on the
validation split; the test split was scored once, with these choices.

## Performance

On the test split, with 95 % bootstrap intervals over {group}s for this one trained model.
Precision depends on the class frequencies; these values hold for this split only.

{metrics}

AUROC is {auroc} (macro), expected calibration error {ece}. {decision}
{uncertainty}
## Intended use

Research on classification under class imbalance, with dermatoscopic images like those above.

## Out-of-scope use and known limits

- Diagnosis, triage or screening of people, or any decision about them.
- Photographs other than dermatoscopic images, and skin tones, sites and devices not in the data:
  performance there is unknown.
- The model assigns one of {k} classes ({classes}) to any image, whatever the image shows.
- The rare classes have few test images: see the intervals.
"""

HAM10000 = """\
HAM10000 (doi:10.7910/DVN/DBW86T, CC BY-NC 4.0), dermatoscopic images of mostly light skin from two
sites; about half of the lesions are confirmed by histology."""
OTHER_DATA = "The data set `{root}`, as described by its `dataset.yaml`."

SECTION = """
### {title}

{text}

{table}
"""


def card(run: TestedRun, folder: Path) -> str:
    """The model card in Markdown."""
    images = RunFolder(folder).split()
    counts = pd.crosstab(images["dx"], images["split"]).reindex(run.classes, fill_value=0)
    counts = counts[[split for split in ("train", "val", "test") if split in counts]]
    counts.loc["all"] = counts.sum()
    decision = Decision.load(folder)
    model = run.config["model"]
    facts = {
        "run": f"{run.name}, seed {run.seed}",
        "method": f"`{model['class_path']}`",
        "network": f"`{_network(model)}`",
        "parameters": f"{run.parameters:,}" if run.parameters else "not recorded",
        "input": f"RGB, whole image resampled to {run.config['data']['size']} pixels a side",
        "every option": "`config.yaml` beside this card",
    }
    return CARD.format(
        title=f"{run.name}, seed {run.seed}",
        what=f"A classifier of skin images into {len(run.classes)} diagnoses.",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        data=_data(run),
        group=run.group,
        synthetic=" THIS RUN USED SYNTHETIC IMAGES ONLY: its numbers mean nothing."
        if run.synthetic
        else "",
        split=run.config["data"]["split"]["class_path"].rpartition(".")[2],
        parts=_markdown(counts.reset_index(names="class")),
        metrics=_markdown(measured(run)),
        auroc=decimals(run.metrics["macro_auroc"]),
        ece=decimals(run.metrics["ece"]),
        decision=_decided(decision),
        uncertainty=uncertainty(RunFolder(folder).results(), run.group),
        k=len(run.classes),
        classes=", ".join(run.classes),
    )


def _data(run: TestedRun) -> str:
    if set(run.classes) <= set(HAM10000_CLASSES.names):
        return HAM10000
    return OTHER_DATA.format(root=run.config["data"]["root"])


def measured(run: TestedRun) -> pd.DataFrame:
    """Recall and precision of each class, and balanced accuracy, with bootstrap intervals."""
    metrics = next(row.metrics for row in compare([run]).rows if not row.decided)
    images = np.bincount(run.label, minlength=len(run.classes))
    rows = [
        [name, *(_cell(metrics.get(f"{metric}_{name}")) for metric in ("recall", "precision")), n]
        for name, n in zip(run.classes, images.tolist(), strict=True)
    ]
    rows.append(["balanced accuracy", _cell(metrics["balanced_accuracy"]), "", len(run.label)])
    return pd.DataFrame(rows, columns=["", "recall", "precision", "images"])


def _cell(estimate: Estimate | None) -> str:
    bounds = estimate.lesions if estimate else None
    return f"{number(estimate)} {interval(bounds)}".strip()


def _decided(decision: Decision | None) -> str:
    if decision is None:
        return "The decision is the most likely class."
    return (
        "The metrics above are those of the most likely class. The run also has a decision rule, "
        "chosen on the validation split: `decision.json`, with temperature "
        f"{decimals(decision.temperature)}."
    )


def uncertainty(results: dict[str, Any], group: str = "lesion") -> str:
    """Sections on abstention and prediction sets, as measured on the test split; or none.

    Args:
        results: Results of the run.
        group: Unit that counts once: ``lesion``, ``patient`` or ``image``.
    """
    sections = _abstention(results.get("abstention"), group), _sets(results.get("sets"), group)
    return "".join(sections)


def _abstention(found: dict[str, Any] | None, group: str) -> str:
    if not found:
        return ""
    rows = [[name, c["share"], c["risk"]] for name, c in found["per_class"].items()]
    rows.append(["all", found["share"], found["risk"]])
    return SECTION.format(
        title="Abstention",
        text=f"The decision abstains below a confidence of {decimals(found['threshold'])}, chosen "
        "on the validation split; this is no guarantee. On the test split, by true class and with "
        f"each {group} counting once: share decided (all: {_ends(found['share_interval'])}) and "
        f"share of wrong decisions among these (all: {_ends(found['risk_interval'])}; mean over "
        f"classes {_decimals(found['balanced_risk'])} {_ends(found['balanced_risk_interval'])}).",
        table=_numbers(rows, ["", "decided", "risk"]),
    )


def _sets(found: dict[str, Any] | None, group: str) -> str:
    if not found:
        return ""
    rows = [[name, c["coverage"], c["size"]] for name, c in found["per_class"].items()]
    rows.append(["all", found["coverage"], found["size"]])
    return SECTION.format(
        title="Prediction sets",
        text=f"{found['kind']} sets with a target coverage of {found['target']:g}, chosen on the "
        f"validation split. The target is for new {group}s that are exchangeable with those of "
        f"that split, which also chose the epoch. On the test split, with each {group} counting "
        "once: "
        f"coverage (all: {_ends(found['interval'])}) and mean number of classes.",
        table=_numbers(rows, ["", "coverage", "size"]),
    )


def _numbers(rows: list[list[Any]], columns: list[str]) -> str:
    shown = [[name, *map(_decimals, values)] for name, *values in rows]
    return _markdown(pd.DataFrame(shown, columns=columns))


def _decimals(value: float | None) -> str:
    return decimals(np.nan if value is None else value)


def _ends(interval: list[float | None]) -> str:
    low, high = map(_decimals, interval)
    return f"[{low}, {high}]"


def _network(model: dict[str, Any]) -> str:
    """Class names of the nested networks and name of the innermost: ``TimmNetwork resnet50``."""
    network = model["init_args"]["network"]
    names = [network["class_path"].rpartition(".")[2]]
    while "name" not in (options := network.get("init_args", {})):
        inner = [v for v in options.values() if isinstance(v, dict) and "class_path" in v]
        if not inner:
            return " ".join(names)
        network = inner[0]
        names.append(network["class_path"].rpartition(".")[2])
    return " ".join([*names, options["name"]])


def _markdown(table: pd.DataFrame) -> str:
    rows: list[list[Any]] = [list(table), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def main() -> None:
    parser = CommandParser("Write the model card of an evaluated run: card.md in its folder.")
    parser.add_argument("run", type=Path, help="run folder, runs/<name>/seed<seed>")
    folder = parser.parse_args().run
    try:
        RunFolder(folder).results()  # says how to get them
        run = read_run(folder)
        write_text(folder / "card.md", card(run, folder))
    except RunError as error:
        sys.exit(f"error: {error}")
    print(f"Wrote {folder / 'card.md'}.")
