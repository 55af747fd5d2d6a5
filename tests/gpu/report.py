"""The report of a GPU in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("images/s", "ratio", "memory, GB", "first step, s")
LOADED = ("size", "batch size", "images/s", "memory, GB", "waiting for data",
          "transfer and augmentation")  # fmt: skip


def report(record: Mapping[str, Any]) -> str:
    """The measurements, tests and studies of a record, as Markdown."""
    lines = ["# LongDerm on a GPU", "", *(f"- {k}: {v}" for k, v in record["machine"].items()), ""]
    if "tests" in record:
        lines += ["## Tests", "", f"{record['tests']['summary']} (`tests.txt`)", ""]
    if steps := record.get("steps"):
        lines += [*_loaded(steps), *_variants(steps), *_shares(steps)]
    for name, text in record.get("studies", {}).items():
        lines += [f"## Study {name}", "", text, ""]
    return "\n".join(lines)


def _loaded(steps: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, *(found.get(column, "-") for column in LOADED)]
        for name, found in steps.items()
        if "failed" not in found
    ]
    failed = [f"- {name}: {found['failed']}" for name, found in steps.items() if "failed" in found]
    return [
        "## Training steps",
        "",
        "Float32, with the project's loader; waiting and augmentation as shares of the time.",
        "",
        *_table(["recipe", *LOADED], rows),
        *failed,
        "",
    ]


def _variants(steps: Mapping[str, Any]) -> list[str]:
    rows = [
        [recipe, name, *(row.get(column, row.get("failed", "-")) for column in COLUMNS)]
        for recipe, found in steps.items()
        for name, row in found.get("variants", {}).items()
    ]
    return [
        "## Variants of a step",
        "",
        "One batch on the device. The ratio is of images/s, to those of contiguous float32.",
        "",
        *_table(["recipe", "variant", *COLUMNS], rows),
        "",
    ]


def _shares(steps: Mapping[str, Any]) -> list[str]:
    rows = [
        [recipe, name, f"{100 * share:.1f} %"]
        for recipe, found in steps.items()
        for name, share in found.get("shares", {}).items()
    ]
    if not rows:
        return []
    head = ["## Mixing", "", "Shares of a float32 step with the project's loader.", ""]
    return [*head, *_table(["recipe", "part", "share"], rows), ""]


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [names, ["---"] * len(names), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines]
