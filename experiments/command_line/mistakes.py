"""Error messages for unknown options and classes, with the nearest known one."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse._typehints import ActionTypeHint  # the only source of an option's classes

from experiments.recipes import layered, read_settings

Setting = tuple[str, str]
UNKNOWN_OPTION = re.compile(r"Option '(\S+)' is not accepted$|unrecognized arguments: --([^\s=]+)")
NOT_IN_GROUP = re.compile(r"Group '(\S+)' does not accept option '(\S+)'$")
REFUSED_VALUE = re.compile(r'Parser key "(.+?)":\s*(.*)', re.DOTALL)
UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|Problem with given class_path '(\S+)':\s+"
    r"(?:module '\S+' has no attribute|No module named)"
)

UNION = re.compile(
    r"Subtypes: .*?\n\s*Errors:\n(.*?)\n\s*Given value type.*?Given value: (.*)", re.DOTALL
)
EXPECTED = re.compile(r"- Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*)\])$", re.MULTILINE)
BUILT_IN = re.compile(r"an? <class '(\w+)'>")
NULL = {"NoneType": "null", "bool": "true or false"}
HIDDEN = ("help", "print_shtab")


def clarified(parser: ArgumentParser, message: str, described: type | None = None) -> str:
    """Add the full path of the option and the nearest option or class to a parser's message.

    Args:
        parser: Parser that reports the error; for the options of a class, the parser of the class.
        message: Message of jsonargparse.
        described: Class whose options the parser accepts, or None for the parser of a command.
    """
    if unknown := UNKNOWN_OPTION.match(message):
        return _unknown_option(parser, unknown[1] or unknown[2], described)
    if unknown := NOT_IN_GROUP.match(message):
        return _unknown_option(parser, ".".join(unknown.groups()), described)
    if not (refused := REFUSED_VALUE.match(message)):
        return message
    key, details = refused.groups()
    option, file = _origin(key, described)
    option += f" in {file}" if file else ""
    if plain := _plain(details):
        return f"{option}: {plain}"
    if not (unknown := UNKNOWN_CLASS.search(details)):
        return f"{option}: {BUILT_IN.sub(lambda kind: kind[1], details)}"
    value = unknown[1] or unknown[2]
    package, _, name = value.rpartition(".")
    known = {name: f"{package}.{name}" for name in dir(sys.modules.get(package)) if package}
    action = next((action for action in parser._actions if action.dest == key), None)
    text = action.extra_help() if isinstance(action, ActionTypeHint) else ""
    paths = text.rpartition(": ")[2].split(", ")
    known |= {path.rpartition(".")[2]: path for path in paths if path}
    near = _nearest(name, known)
    hint = f"Did you mean {near}?" if near else f"Known classes: {', '.join(paths)}."
    return f"There is no class {value} for {option}. {hint}"


def _plain(details: str) -> str | None:
    """A value that no type of an option takes, in one sentence; None if it may be a class."""
    if not (union := UNION.search(details)) or "Problem with given class_path" in details:
        return None
    errors, value = union.groups()
    expected = [NULL.get(kind, kind) or choices for kind, choices in EXPECTED.findall(errors)]
    a_class = re.search(r"[A-Za-z_]\.[A-Za-z_]", value) or "dot import path" in errors
    if not expected or (a_class and not re.search("<class '(int|float|bool)'>", errors)):
        return None
    return f"Expected {' or '.join(dict.fromkeys(expected))}. Got value: {value.strip()}"


def _unknown_option(parser: ArgumentParser, name: str, described: type | None) -> str:
    option, file = _origin(name, described)
    options = [action.dest for action in parser._actions if not action.dest.endswith(HIDDEN)]
    owner = f" (of {_import_path(described)})" if described else ""
    owner += f", which {file} sets" if file else ""
    if near := _nearest(name, {key: key for key in options}):
        hint = f"Did you mean {option.removesuffix(name)}{near}?"
    elif described:
        hint = f"Its options are {', '.join(options)}."
    else:
        hint = "List the options with --help."
    return f"There is no option {option}{owner}. {hint}"


def _origin(name: str, described: type | None) -> tuple[str, str]:
    """The whole path of an option, as typed or as in a file, and that file; empty if typed."""
    if typed := _typed(name):
        return typed, ""
    arguments = [argument.partition("=") for argument in layered(sys.argv[1:])]
    files = [Path(value) for flag, _, value in arguments if flag == "--config"]
    stated = [
        (described is not None and owner == described.__name__, f"--{option}", str(file))
        for file in files
        if file.is_file()
        for option, owner in _settings(read_settings(file))
        if f".{option}".endswith(f".{name}")
    ]
    # A member of a family may leave out the class that an option is of.
    of_class = [place for place in stated if place[0]] or stated
    return of_class[0][1:] if of_class else (f"--{name}", "")


def _settings(settings: Mapping[str, Any], at: str = "", owner: str = "") -> Iterator[Setting]:
    """The options in a file, each with the name of the class that it is an argument of."""
    for key, value in settings.items():
        if key == "init_args" and isinstance(value, dict):
            yield from _settings(value, at, settings.get("class_path", "").rpartition(".")[2])
            continue
        option = f"{at}.{key.rstrip('+')}".strip(".")
        yield option, owner
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _settings(inner, option)


def _typed(name: str) -> str | None:
    """The option as typed on the command line; None if it was not typed."""
    options = [argument.partition("=")[0] for argument in sys.argv if argument.startswith("--")]
    for option in reversed(options):
        if option.removesuffix("+").removesuffix(".class_path").endswith((f".{name}", f"--{name}")):
            return option.removesuffix("+").removesuffix(".class_path")
    return None


def _nearest(name: str, known: dict[str, str]) -> str | None:
    completions: Iterable[str] = (key for key in known if key.startswith(name))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.65) or list(completions)
    return known[near[0]] if near else None


def _import_path(cls: type) -> str:
    """The shortest import path of a class: that of its package if the package exports it."""
    package = cls.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), cls.__name__, None) is cls
    return f"{package if exported else cls.__module__}.{cls.__name__}"
