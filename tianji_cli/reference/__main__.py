"""`python -m tianji_cli.reference FILE`: writes the reference page (`make reference`)."""

from __future__ import annotations

import sys
from pathlib import Path

from tianji_cli.reference.contents import chapters
from tianji_cli.reference.page import reference_page

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference_page(chapters()), encoding="utf-8")
