"""What people run: scoring files, evaluating on a database, the command line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "cli",
        "clusters",
        "evaluation",
        "inputs",
        "journals",
        "loading",
        "parts",
        "plans",
        "results",
        "resuming",
        "scorers",
        "scoring",
        "settings",
        "shards",
        "sheets",
        "tables",
    ],
)
