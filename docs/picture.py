"""Draw what a terminal shows as docs/demo.svg.

FORCE_COLOR=1 TTY_INTERACTIVE=0 COLUMNS=104 drift-monitor demo --exit | sed "s#$PWD/##g" | python docs/picture.py
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

OUT = Path(__file__).with_name("demo.svg")
CURSOR = re.compile(r"\x1b\[\?25[lh]")
# A viewer has fonts of its own; none is fetched.
FETCHED_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def main() -> int:
    """Read ANSI text from standard input, write the picture."""
    text = CURSOR.sub("", sys.stdin.read())
    lines = [Text.from_ansi(line) for line in text.splitlines()]
    width = max(line.cell_len for line in lines)
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, overflow="ignore", no_wrap=True)
    svg = console.export_svg(title="drift-monitor demo", theme=MONOKAI, unique_id="demo")
    OUT.write_text(FETCHED_FONTS.sub("", svg).replace("Fira Code, monospace", "monospace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
