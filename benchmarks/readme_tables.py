"""Writes the tables of benchmarks/README.md anew from the files under results.

python benchmarks/readme_tables.py

A table stands between `<!-- table NAME -->`, for results/NAME.md, and `<!-- end -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
TABLE = re.compile(r"(<!-- table ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str, results: Path = FOLDER / "results") -> str:
    """The document with the tables of its result files."""

    def table(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        return f"{begin}\n{(results / f'{name}.md').read_text().strip()}\n\n{end}"

    return TABLE.sub(table, text)


def main() -> None:
    document = FOLDER / "README.md"
    document.write_text(with_tables(document.read_text()))


if __name__ == "__main__":
    main()
