"""Documents whose commands and code are tested, and their code blocks."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
             *sorted((ROOT / "docs" / "guides").glob("*.md"))]  # fmt: skip


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a language in a document."""
    pattern = rf"^ *```{language}\n(.*?)^ *```"
    found = re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]
