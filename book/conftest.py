"""`pytest --nbval book` is for the chapters: `book/tools.py lint` names its folder, and assignments have no stored outputs."""

collect_ignore = ["lint", "assignments"]
