"""The classes of a data set: names, titles, descriptions, shot groups, taxonomy and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import DataError

SHOT_GROUPS = ("many", "medium", "few")
ALL = "diagnosis"  # the task of all classes
KEYS = {"classes", "shots", "taxonomy", "tasks"}
CLASS_KEYS = {"title", "description"}


@dataclass(frozen=True)
class Classes:
    """The classes of a data set and what is known about them, as its YAML file states it.

    Args:
        titles: Full name of each class by its code, in the order of the labels.
        descriptions: A phrase about the looks of a class, for text encoders. May lack classes.
        shots: Classes of the groups ``many``, ``medium`` and ``few``; or two numbers of training
            images: a class with more than ``many`` is in that group, one with fewer than ``few``
            in the other. Empty if the data set has no groups.
        taxonomy: Tree whose leaves are lists of classes, such as
            ``{melanocytic: {benign: [nv], malignant: [mel]}}``; empty if there is none.
        tasks: Subsets of the classes by name.

    Examples:
        >>> classes = Classes.parse({"classes": ["benign", "malignant"]}, "dataset.yaml")
        >>> classes.names
        ('benign', 'malignant')
    """

    titles: Mapping[str, str]
    descriptions: Mapping[str, str] = field(default_factory=dict)
    shots: Mapping[str, Any] = field(default_factory=dict)
    taxonomy: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Codes of the classes, in the order of the labels."""
        return tuple(self.titles)

    def of_task(self, task: str) -> tuple[str, ...]:
        """Names of the classes of a task; ``diagnosis`` has all classes.

        Raises:
            DataError: There is no such task.
        """
        tasks = {ALL: self.names} | dict(self.tasks)
        if task not in tasks:
            raise DataError(f"There is no data.task={task}: choose one of {', '.join(tasks)}.")
        return tuple(tasks[task])

    def shot_groups(self, training_images: Mapping[str, int]) -> dict[str, list[str]]:
        """Classes of each shot group, given the number of training images per class.

        Groups that name a class without a number, as in a task of fewer classes, are left out
        altogether.
        """
        if all(isinstance(members, int) for members in self.shots.values()):
            groups = _by_counts(self.shots, training_images) if self.shots else {}
        else:
            groups = {name: list(members) for name, members in self.shots.items()}
        known = {name for members in groups.values() for name in members} <= set(training_images)
        return groups if known else {}

    @classmethod
    def read(cls, path: Path) -> Classes:
        """Read the classes from a YAML file; other keys of the file are ignored.

        Raises:
            DataError: The file is unreadable or describes no classes.
        """
        return cls.parse(read_yaml(path), str(path))

    @classmethod
    def parse(cls, record: Mapping[str, Any], source: str) -> Classes:
        """Classes from the contents of a YAML file named ``source``.

        Raises:
            DataError: The contents describe no classes, or something names an unknown class.
        """
        given = record.get("classes")
        if not isinstance(given, list | Mapping) or len(given) < 2:
            raise DataError(
                f"{source} has no `classes`: list at least two class names, in the order of the "
                "labels."
            )
        if misread := [name for name in given if name is None or isinstance(name, bool)]:
            raise DataError(
                f"{source}: YAML reads the class {misread[0]} as a value, not as a name: put it in "
                "quotes, such as 'no'."
            )
        entries = {str(name): _entry(name, given, source) for name in given}
        if divided := [name for name in entries if len(name.split()) != 1]:
            raise DataError(
                f"{source}: the class {divided[0]!r} needs a code without spaces, since metrics "
                "and columns are named after it: write `code: full name` for each class."
            )
        if len(entries) < len(given):
            raise DataError(f"{source} lists a class twice: {', '.join(map(str, given))}.")
        classes = cls(
            titles={name: entry.get("title", name) for name, entry in entries.items()},
            descriptions={
                name: entry["description"]
                for name, entry in entries.items()
                if "description" in entry
            },
            shots=_named(record, "shots", source),
            taxonomy=record.get("taxonomy") or {},
            tasks=_named(record, "tasks", source),
        )
        classes._refuse_mistakes(source)
        return classes

    def record(self) -> dict[str, Any]:
        """The contents of a YAML file that :meth:`parse` reads back."""
        entries = {
            name: {"title": title}
            | ({"description": self.descriptions[name]} if name in self.descriptions else {})
            for name, title in self.titles.items()
        }
        rest = {"shots": self.shots, "taxonomy": self.taxonomy, "tasks": self.tasks}
        return {"classes": entries} | {key: value for key, value in rest.items() if value}

    def _refuse_mistakes(self, source: str) -> None:
        _refuse_shots(self.shots, source)
        _refuse_tasks(self.tasks, source)
        named = {"tasks": self.tasks.values()}
        if not all(isinstance(members, int) for members in self.shots.values()):
            named["shots"] = self.shots.values()
        for key, groups in named.items():
            for name in (name for members in groups for name in members):
                self._refuse_unknown(name, f"{source}: `{key}`")
        leaves = list(leaves_of(self.taxonomy, source))
        for name in leaves:
            self._refuse_unknown(name, f"{source}: `taxonomy`")
        if leaves and sorted(leaves) != sorted(self.names):
            raise DataError(
                f"{source}: `taxonomy` must have each class once, but has {', '.join(leaves)}."
            )

    def _refuse_unknown(self, name: str, where: str) -> None:
        if name not in self.titles:
            raise DataError(
                f"{where} names {name!r}, which is not one of the classes {', '.join(self.names)}."
            )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        DataError: The file is missing, unreadable, or holds something else.
    """
    try:
        record = yaml.safe_load(path.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not YAML ({' '.join(str(error).split())}): fix it.") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} holds no `key: value` lines: write at least `classes: [...]`.")
    return record


def leaves_of(tree: Any, source: str) -> Iterator[str]:
    """The classes of a taxonomy, in its order.

    Raises:
        DataError: A branch is neither a mapping nor a list.
    """
    if isinstance(tree, Mapping):
        for branch in tree.values():
            yield from leaves_of(branch, source)
    elif isinstance(tree, list | tuple):
        yield from map(str, tree)
    else:
        raise DataError(
            f"{source}: a branch of `taxonomy` is {tree!r}: give a mapping of branches, or a list "
            "of classes."
        )


def _named(record: Mapping[str, Any], key: str, source: str) -> dict[str, Any]:
    """The groups of classes under a key, with the classes as text; empty if there are none."""
    groups = record.get(key) or {}
    if not isinstance(groups, Mapping):
        raise DataError(
            f"{source}: `{key}` is {groups!r}: give each group a name, such as "
            "`GROUP: [CLASS, CLASS]`."
        )
    return {
        str(name): list(map(str, members)) if isinstance(members, list) else members
        for name, members in groups.items()
    }


def _entry(name: Any, given: Any, source: str) -> dict[str, str]:
    entry = given[name] if isinstance(given, Mapping) else None
    if isinstance(entry, str):
        return {"title": entry}
    if entry is None:
        return {}
    if not isinstance(entry, Mapping) or set(entry) - CLASS_KEYS:
        raise DataError(
            f"{source} describes the class {name} by {entry!r}: give a title, or `title` and "
            "`description`."
        )
    return {key: str(value) for key, value in entry.items()}


def _refuse_tasks(tasks: Mapping[str, Any], source: str) -> None:
    for name, members in tasks.items():
        if not isinstance(members, list) or len(set(members)) < max(2, len(members)):
            raise DataError(
                f"{source}: the task {name} of `tasks` is {members!r}: list two or more different "
                "classes."
            )


def _refuse_shots(shots: Mapping[str, Any], source: str) -> None:
    values = list(shots.values())
    if not shots or (set(shots) == set(SHOT_GROUPS) and all(isinstance(v, list) for v in values)):
        return
    numbers = set(shots) == {"many", "few"} and all(type(v) is int for v in values)
    if numbers and shots["few"] <= shots["many"]:
        return
    raise DataError(
        f"{source}: `shots` is {dict(shots)}: list the classes of many, medium and few, or give "
        "two numbers of training images, such as {many: 1000, few: 200}."
    )


def _by_counts(bounds: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, list[str]]:
    def group(count: int) -> str:
        if count > bounds["many"]:
            return "many"
        return "few" if count < bounds["few"] else "medium"

    return {name: [c for c, n in counts.items() if group(n) == name] for name in SHOT_GROUPS}


HAM10000_CLASSES = Classes.read(Path(__file__).with_name("ham10000.yaml"))
CLASSES = HAM10000_CLASSES.names
