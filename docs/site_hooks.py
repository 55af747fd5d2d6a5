"""Hooks of MkDocs: the page of recipes, links to files of the repository, roles in docstrings."""

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[1]
ROLE = re.compile(r":(?:py:)?(?:class|func|meth|attr|mod|data):<code>(~?)([^<]+)</code>")
CODE = re.compile(r"<code>.*?</code>", re.DOTALL)
OPTION = re.compile(r'(?<=[\s>"])--\w+')
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
# Pages made from files outside docs/.
PAGES = {"recipes.md": ROOT / "experiments" / "recipes" / "README.md"}
log = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of files outside docs/."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Link files outside docs/ to their page or the repository; without either, show names."""
    folder, docs = Path(page.file.abs_src_path).parent, Path(config.docs_dir)
    pages = {path: docs / name for name, path in PAGES.items()}

    def replaced(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        path = (folder / target).resolve()
        path = pages.get(path, path)
        if image:
            return match[0]
        if path.is_relative_to(docs):
            relative = get_relative_url(path.relative_to(docs).as_posix(), page.file.src_uri)
            return f"[{text}]({relative}{anchor or ''})"
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_path, target)
        if not config.repo_url:
            return text
        return f"[{text}]({config.repo_url}/blob/main/{path.relative_to(ROOT)})"

    return LINK.sub(replaced, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Link the references of docstrings, and keep browsers from breaking a line after ``--``.

    :class:`~a.b.C` becomes a reference to C; short names stay plain code.
    """

    def replaced(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = f"<code>{name.rpartition('.')[2] if short else name}</code>"
        return f'<autoref identifier="{name}" optional>{shown}</autoref>' if "." in name else shown

    def whole(code: re.Match[str]) -> str:
        return OPTION.sub(r'<span class="option">\g<0></span>', code[0])

    return CODE.sub(whole, ROLE.sub(replaced, html))
