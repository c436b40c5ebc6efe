"""Tables of the toolbox pyiqa, `meta_info_….csv`: the order of the columns counts, not their names."""

from __future__ import annotations

import re
from pathlib import Path

from .databases import Database, database
from .tables import DatabaseError, check_paths, read_table

# Where pyiqa looks for the images, beside the folder of its tables. The tables of these three hold DMOS; all others, MOS.
_FOLDERS = {
    "AVADataset": "AVA_dataset/ava_images",
    "CGFIQADataset": "CGFIQA",
    "CSIQDataset": "CSIQ/dst_imgs",
    "FLIVEDataset": "FLIVE_Database/database",
    "GFIQADataset": "GFIQA-20k/image",
    "KADID10kDataset": "kadid10k/images",
    "KonIQ10kDataset": "koniq10k/512x384",
    "KonIQ10k++Dataset": "koniq10k/512x384",
    "LIVEChallengeDataset": "LIVEC",
    "LIVEIQADataset": "LIVEIQA_release2",
    "LIVEMDDataset": "LIVEmultidistortiondatabase",
    "PIPALDataset": "PIPAL/Dist_Imgs",
    "SPAQDataset": "SPAQ/TestImage",
    "TID2008Dataset": "tid2008/distorted_images",
    "TID2013Dataset": "tid2013/distorted_images",
}
_LOWER_IS_BETTER = {"CSIQDataset", "LIVEIQADataset", "LIVEMDDataset"}
_SPLITS = {"0": "train", "1": "val", "2": "test", "train": "train", "val": "val", "test": "test"}


def from_meta_info(
    file: str | Path, folder: str | Path | None = None, higher_is_better: bool | None = None
) -> Database:
    """A table of pyiqa: name and opinion, or original, name and opinion, in this order whatever the columns are called.

    The authors' split is the column `official_split`, where there is one. The images that trained the observers of LIVE
    In the Wild are left out, as pyiqa does.

    Args:
        folder: of the images; by default where pyiqa looks for them, else the table's own.
        higher_is_better: the direction; by default as pyiqa has it for this database, else True.

    Raises:
        DatabaseError: as `from_table`.
    """
    file = Path(file)
    if not file.is_file():
        raise DatabaseError(f"no such file: '{file}'")
    name = file.stem.removeprefix("meta_info_")
    table = read_table(file)
    header = table.header
    with_original = len(header) > 2 and re.match(r"(ref|hq)_?", header[0].lower()) is not None
    if len(header) < 2 + with_original:
        raise DatabaseError(f"'{file}' is no table of pyiqa: it has the columns {', '.join(header)}")
    if folder is None:
        usual = file.absolute().parent.parent / _FOLDERS.get(name, name)
        folder = usual if usual.is_dir() else file.parent
    paths = table.paths(header[with_original], Path(folder))
    scores = table.scores(header[1 + with_original])
    content = [Path(cell).stem for cell in table.column(header[0])] if with_original else [""] * len(paths)
    split = [""] * len(paths)
    if "official_split" in header:
        split = [_SPLITS.get(cell, cell) for cell in table.column("official_split")]
    better = name not in _LOWER_IS_BETTER if higher_is_better is None else higher_is_better
    found = database(name.removesuffix("Dataset"), paths, scores, better, content=content, split=split)
    trained = name == "LIVEChallengeDataset"
    keep = [i for i, path in enumerate(paths) if not (trained and re.fullmatch(r"t\d\.bmp", path.name))]
    check_paths([paths[i] for i in keep], file, [table.places[i] for i in keep])
    return found.select(keep)
