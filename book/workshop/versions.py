"""A site with several versions of the book: the newest at the top, older ones in folders of their names, such as 0.3.0."""

import json
import re
import sys
from pathlib import Path

import tta_iqa_lib

EMPTY = "const VERSIONS = [];"


def versions(site: Path) -> int:
    """Tell each version's pages where the others are. Run once, on freshly built pages; returns an exit code."""
    older = [
        path.name
        for path in site.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
    ]
    older.sort(key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    folders = {tta_iqa_lib.__version__: ""} | {name: f"{name}/" for name in older}
    for name, folder in folders.items():
        up = "../" if folder else ""
        found = [
            {"version": v, "folder": "" if v == name else f"{up}{f}"}
            for v, f in folders.items()
        ]
        script = site / folder / "_static" / "versions.js"
        text = script.read_text(encoding="utf-8") if script.is_file() else ""
        if EMPTY not in text:
            print(
                f"{script}: not there, or filled in before; build the pages again",
                file=sys.stderr,
            )
            return 1
        script.write_text(
            text.replace(EMPTY, f"const VERSIONS = {json.dumps(found)};"),
            encoding="utf-8",
        )
    print("\n".join(f"{name}: {site / folder}" for name, folder in folders.items()))
    return 0
