"""`pytest --nbval book` is for the notebooks; `book/tools.py lint` names its folder."""

collect_ignore = ["lint"]
