"""Write the help of every command into docs/cli.md, between its marks. `make docs` runs this; a test compares.

Usage: python docs/cli_help.py
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from fivefold.cli import parser

PAGE = Path(__file__).parent / "cli.md"
BLOCK = re.compile(r"(<!-- help: (?P<command>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def helps() -> dict[str, str]:
    """Help text of `fivefold` itself and of each command."""
    top = parser()
    texts = {"fivefold": top.format_help()}
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts |= {name: sub.format_help() for name, sub in action.choices.items()}
    return texts


def filled(page: str) -> str:
    """The page with every marked block holding the current help."""
    texts = helps()
    return BLOCK.sub(lambda m: f"{m[1]}```text\n{texts[m['command']].strip()}\n```\n{m[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
