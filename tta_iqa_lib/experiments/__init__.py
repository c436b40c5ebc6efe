"""The evidence: other methods, grids of runs, and how to read what they gave."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "analysis",
        "baselines",
        "bench",
        "endurance",
        "grids",
        "methods",
        "opinions",
        "published",
        "runner",
        "runs",
        "seeds",
    ],
)
