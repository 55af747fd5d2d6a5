"""docs/sources.md: every row has its recipe, and options and numbers are up to date."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments.recipes import find
from tests.parsed import parsed

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / "docs" / "sources.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
ROWS = {
    "Barata": [
        *("CE", "CE + CB", "CE + ES", "CE + SPL", "CE + OHEM"),
        *("FL", "FL + CB", "FL + ES", "FL + SPL", "FL + OHEM"),
    ],
    "CARE": ["baseline", "CARE", "CSL", "CARE + CSL", "FL", "CARE + FL", "DA", "CARE + DA"],
    "Doctor": [
        "classifier",
        *("autoencoder 6x", "autoencoder 3x", "autoencoder 1.5x"),
        *("frozen classifier 6x", "frozen classifier 3x", "frozen classifier 1.5x"),
        *("joint training 6x", "joint training 3x", "joint training 1.5x"),
        *("k-means", "edges"),
    ],
    "SPMix": [
        *("ResNet-50 CE", "ResNet-50 CE-resample", "ResNet-50 MiSLAS", "ResNet-50 ResLT"),
        *("ResNet-50 BALLAD", "ResNet-50 BCL", "ResNet-50 PaCo"),
        *("hybrid ViT CE", "hybrid ViT CE-resample", "hybrid ViT MiSLAS"),
        *("hybrid ViT BCL", "hybrid ViT PaCo", "hybrid ViT SPMix"),
        *("the same, the paper's words taken literally", "the same, as in the published code"),
        *("ablation: neither patches nor saliency", "the same, read as no mixing"),
        *("ablation: patches alone", "ablation: saliency alone", "ablation: both"),
    ],
    "forum": [
        *("as posted: head, then all layers", "the same network in one stage"),
        *("another threshold", "class weights", "F1 loss", "oversampling", "costs of mistakes"),
    ],
}


def tables(text: str) -> list[list[dict[str, str]]]:
    """All Markdown tables of a text, as rows by column name."""
    found = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    cells = [
        [[c.strip() for c in line.strip("|").split("|")] for line in t.splitlines()] for t in found
    ]
    return [[dict(zip(names, row, strict=True)) for row in rows] for names, _, *rows in cells]


TABLE = next(rows for rows in tables(SOURCES) if "row" in rows[0])
OPTIONS = re.search(r"```bash\n(.*?)```", SOURCES, re.DOTALL)[1]
# Prints the arguments of make, one per line, instead of running it.
MAKE = "make() { printf '%s\\n' \"$@\" ''; }\n"


def asked(row: dict[str, str]) -> list[dict[str, str]]:
    """The calls of make in a row's command, as a shell would make them with the shared options."""
    script = MAKE + OPTIONS + row["command"].strip("`")
    shell = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    calls = [call.splitlines() for call in shell.stdout.strip().split("\n\n")]
    return [{"verb": verb} | dict(word.split("=", 1) for word in words) for verb, *words in calls]


CALLS = [call for row in TABLE for call in asked(row)]
TRAININGS = {(c["EXP"], c.get("ARGS", "")): c for c in CALLS if c["verb"] == "train"}
FORMS = {  # one training of each set of options: the folds are alike
    (experiment, re.sub(r"--name \S+|=\S*", "", arguments)): (experiment, arguments)
    for experiment, arguments in reversed(TRAININGS)
}


def run_name(call: dict[str, str]) -> str:
    name = re.search(r"--name (\S+)", call.get("ARGS", ""))
    return name[1] if name else call["EXP"]


def test_every_row_of_the_sources_is_there():
    rows = {source: [r["row"] for r in TABLE if r["source"] == source] for source in ROWS}
    assert rows == ROWS
    assert len(TABLE) == sum(map(len, ROWS.values()))
    assert all(cell for row in TABLE for cell in row.values())
    assert not [row for row in TABLE if "results.md" in row["differs"] + row["published"]]


@pytest.mark.parametrize(
    ("experiment", "arguments"), [pytest.param(*form, id=form[0]) for form in FORMS.values()]
)
def test_the_command_line_takes_its_options(experiment, arguments):
    assert parsed("fit", f"--config={find(experiment)}", *shlex.split(arguments))


def test_runs_that_others_start_from_are_made_by_rows_above():
    made: set[str] = set()
    for call in CALLS:
        if call["verb"] == "train":
            options = call.get("ARGS", "")
            own = find(call["EXP"]).read_text()
            starts = re.findall(r"runs/(\w+)/seed\{seed\}", options if "=runs/" in options else own)
            assert set(starts) <= made
            made.add(run_name(call))
        else:
            assert call["EXP"] in made


def test_trainings_of_one_name_are_one_training():
    by_name: dict[str, tuple[str, str]] = {}
    for training, call in TRAININGS.items():
        assert by_name.setdefault(run_name(call), training) == training


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    slugs = (title.lower().replace(" ", "-") for title in parts[::2])
    return dict(zip(slugs, parts[1::2], strict=True))


@pytest.mark.parametrize(
    "row", [r for r in TABLE if r["measured here"] != "-"], ids=lambda r: r["row"]
)
def test_what_was_measured_is_in_the_results(row):
    cells = re.findall(
        r"(MAE )?(\d\.\d+) \(\[[\w-]+\]\(results\.md#([\w-]+)\): ([^)]+)\)", row["measured here"]
    )
    assert len(cells) == row["measured here"].count("results.md#")
    for error, number, section, name in cells:
        column = "MAE" if error else "balanced accuracy"
        numbers = [
            entry[header].split()[0]
            for rows in tables(sections(RESULTS)[section])
            for entry in rows
            for header in entry
            if next(iter(entry.values())) == name and header.startswith(column)
        ]
        assert numbers == [number]
