"""Hooks of MkDocs: Sphinx roles in docstrings, and links to files of the repository."""

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROLE = re.compile(r":(?:py:)?(?:class|func|meth|attr|mod|data):<code>(~?)([^<]+)</code>")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Link files outside docs/ to the repository, or show their names if it has no address."""
    folder = Path(page.file.abs_src_path).parent

    def replaced(match: re.Match[str]) -> str:
        image, text, target, _anchor = match.groups()
        path = (folder / target).resolve()
        if image or path.is_relative_to(Path(config.docs_dir)):
            return match[0]
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_path, target)
        if not config.repo_url:
            return text
        return f"[{text}]({config.repo_url}/blob/main/{path.relative_to(ROOT)})"

    return LINK.sub(replaced, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn :class:`~a.b.C` into a reference to C; short names stay plain code."""

    def replaced(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = f"<code>{name.rpartition('.')[2] if short else name}</code>"
        return f'<autoref identifier="{name}" optional>{shown}</autoref>' if "." in name else shown

    return ROLE.sub(replaced, html)
