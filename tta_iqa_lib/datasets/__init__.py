"""Images with quality: the embedded benchmark, databases of opinions, and which pictures show the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "checking",
        "databases",
        "layouts",
        "meta_info",
        "near_duplicates",
        "official",
        "sheets",
        "tables",
        "tinyshift",
    ],
)
