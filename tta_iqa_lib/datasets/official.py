"""The databases that the library knows, one record each.

Photographs with the faults that cameras make: KonIQ-10k [hosu2020koniq], SPAQ [fang2020spaq], LIVE In the Wild
[ghadiyaram2016clive], LIVE-FB [ying2020paq2piq], CID2013 [virtanen2015cid2013], BIQ2021 [ahmed2022biq2021], UHD-IQA
[hosu2024uhdiqa]. A few pictures under many distortions: LIVE release 2 [sheikh2006live], LIVE-MD [jayaraman2012livemd],
CSIQ [larson2010csiq], TID2013 [ponomarenko2015tid], KADID-10k [lin2019kadid], PIPAL [gu2020pipal]. Generated pictures:
AGIQA-3K [li2023agiqa].
"""

from __future__ import annotations

from pathlib import Path

from .layouts import Layout, Tables
from .listings import koniq_split, live, live_challenge, live_fb_split, live_md, stem_until, uhd_split
from .tables import DatabaseError

_NOTICE = "any use, with the copyright notice, acknowledging the Laboratory for Image and Video Engineering"

LAYOUTS = {
    "koniq10k": Layout(
        name="KonIQ-10k",
        cite="hosu2020koniq",
        paper="Hosu et al. 2020, IEEE Transactions on Image Processing",
        page="https://database.mmsp-kn.de/koniq-10k-database.html",
        terms="each photograph has a Creative Commons licence of its own (YFCC100M)",
        count=10_073,
        scale=(1, 5),
        marker="koniq10k_scores_and_distributions.csv",
        images=("1024x768", "512x384"),
        listing=Tables((("koniq10k_scores_and_distributions.csv", ""),), "{image_name}", "MOS", split=koniq_split),
        splits=("train", "val", "test"),
    ),
    "spaq": Layout(
        name="SPAQ",
        cite="fang2020spaq",
        paper="Fang et al. 2020, Conference on Computer Vision and Pattern Recognition (CVPR)",
        page="https://github.com/h4nwei/SPAQ",
        terms="education and research; commercial use needs the authors' permission",
        count=11_125,
        scale=(0, 100),
        marker="Annotations/MOS and Image attribute scores.xlsx",
        images=("TestImage",),
        listing=Tables((("Annotations/MOS and Image attribute scores.xlsx", ""),), "{Image name}", "MOS"),
    ),
    "clive": Layout(
        name="LIVE In the Wild",
        cite="ghadiyaram2016clive",
        paper="Ghadiyaram and Bovik 2016, IEEE Transactions on Image Processing",
        page="https://live.ece.utexas.edu/research/ChallengeDB/",
        terms=_NOTICE,
        count=1_162,
        scale=(0, 100),
        marker="Data/AllMOS_release.mat",
        images=("Images",),
        listing=live_challenge,
    ),
    "live": Layout(
        name="LIVE release 2",
        cite="sheikh2006live",
        paper="Sheikh et al. 2006, IEEE Transactions on Image Processing",
        page="https://live.ece.utexas.edu/research/quality/subjective.htm",
        terms=_NOTICE,
        count=779,
        scale=(0, 100),
        higher_is_better=False,
        marker="dmos_realigned.mat",
        listing=live,
        contents=(29, "originals"),
    ),
    "live-md": Layout(
        name="LIVE-MD",
        cite="jayaraman2012livemd",
        paper="Jayaraman et al. 2012, Asilomar Conference on Signals, Systems and Computers",
        page="https://live.ece.utexas.edu/research/quality/live_multidistortedimage.html",
        terms=_NOTICE,
        count=450,
        scale=(0, 100),
        higher_is_better=False,
        marker="Part*1/Imagelists.mat",
        listing=live_md,
        contents=(15, "originals"),
    ),
    "live-fb": Layout(
        name="LIVE-FB",
        cite="ying2020paq2piq",
        paper="Ying et al. 2020, Conference on Computer Vision and Pattern Recognition (CVPR)",
        page="https://github.com/niu-haoran/FLIVE_Database",
        terms="not stated with the images",
        count=39_810,
        scale=(0, 100),
        marker="labels_image.csv",
        images=("database", "."),
        listing=Tables(
            (("labels_image.csv", ""),),
            "{name}",
            "mos",
            subset=lambda name: name.split("/")[0] if "/" in name else "",
            split=live_fb_split,
        ),
        splits=("train", "val", "test"),
    ),
    "cid2013": Layout(
        name="CID2013",
        cite="virtanen2015cid2013",
        paper="Virtanen et al. 2015, IEEE Transactions on Image Processing",
        page="https://zenodo.org/records/2647033",
        terms="see the page",
        count=474,
        scale=(0, 100),
        marker="CID2013 data*.xlsx",
        nested=True,  # IS1/co1/IS_I_C01_D01.jpg
        listing=Tables(
            (("CID2013 data*.xlsx", ""),),
            "{Source_ID}.jpg",
            "Realigned MOS",
            sheet="CID2013 MOS",
            subset=lambda name: "_".join(name.split("_")[:2]),  # the image set
            content=lambda name: name.split("_")[2],  # each scene was taken again in every image set, by other cameras
        ),
        contents=(8, "scenes"),
    ),
    "pipal": Layout(
        name="PIPAL",
        cite="gu2020pipal",
        paper="Gu et al. 2020, European Conference on Computer Vision (ECCV)",
        page="https://github.com/HaomingCai/PIPAL-dataset",
        terms="see the page",
        count=23_200,
        scale=(900, 1850),  # Elo ratings
        marker="Train_Label/*.txt",
        images=("Train_Dist", "Dist_Imgs", "."),
        nested=True,  # Train_Dist is published in parts
        listing=Tables(
            (("Train_Label/*.txt", "train"),),
            "{name}",
            "Elo rating",
            header=("name", "Elo rating"),
            subset=lambda name: name.split("_")[1],  # the kind of distortion
            content=stem_until("_"),
        ),
        contents=(200, "originals"),
        splits=("train",),
    ),
    "kadid10k": Layout(
        name="KADID-10k",
        cite="lin2019kadid",
        paper="Lin et al. 2019, International Conference on Quality of Multimedia Experience (QoMEX)",
        page="https://database.mmsp-kn.de/kadid-10k-database.html",
        terms="the originals are from Pixabay, to be edited and passed on freely",
        count=10_125,
        scale=(1, 5),  # the column is called dmos, but 5 is the best
        marker="dmos.csv",
        images=("images",),
        listing=Tables((("dmos.csv", ""),), "{dist_img}", "dmos", content=stem_until("_")),
        contents=(81, "originals"),
    ),
    "tid2013": Layout(
        name="TID2013",
        cite="ponomarenko2015tid",
        paper="Ponomarenko et al. 2015, Signal Processing: Image Communication",
        page="https://www.ponomarenko.info/tid2013.htm",
        terms="see the page",
        count=3_000,
        scale=(0, 9),
        marker="mos_with_names.txt",
        images=("distorted_images",),
        nested=True,  # names differ in capitals here and there
        listing=Tables(
            (("mos_with_names.txt", ""),),
            "{a name}",
            "a score",
            header=("a score", "a name"),
            content=stem_until("_"),
        ),
        contents=(25, "originals"),
    ),
    "csiq": Layout(
        name="CSIQ",
        cite="larson2010csiq",
        paper="Larson and Chandler 2010, Journal of Electronic Imaging",
        page="https://s2.smu.edu/~eclarson/csiq.html",
        terms="see the page",
        count=866,
        scale=(0, 1),
        higher_is_better=False,
        marker="csiq.DMOS.xlsx",
        images=("dst_imgs",),
        nested=True,  # a folder for each kind, in other capitals than the names in it
        listing=Tables(
            (("csiq.DMOS.xlsx", ""),),
            "{image}.{dst_type}.{dst_lev}.png",
            "dmos",
            sheet="all_by_image",
            words={"noise": "AWGN", "blur": "BLUR", "jpeg": "JPEG", "jpeg 2000": "jpeg2000"},
            subset=lambda name: name.split(".")[1].lower(),
            content=stem_until("."),
        ),
        contents=(30, "originals"),
    ),
    "biq2021": Layout(
        name="BIQ2021",
        cite="ahmed2022biq2021",
        paper="Ahmed and Asif 2022, Journal of Electronic Imaging",
        page="https://github.com/nisarahmedrana/BIQ2021",
        terms="no licence is stated; the description offers the images for use and benchmarking",
        count=12_000,
        scale=(0, 1),
        marker="*(Images and MOS).csv",
        images=("Images",),
        listing=Tables(
            (("Test (Images and MOS).csv", "test"), ("Train (Images and MOS).csv", "train")),
            "{Image Name}",
            "MOS",
            subset=stem_until(" "),  # ss01 personal photographs, ss02 faults made on purpose, ss03 Unsplash
        ),
        splits=("train", "test"),
    ),
    "agiqa3k": Layout(
        name="AGIQA-3K",
        cite="li2023agiqa",
        paper="Li et al. 2023, IEEE Transactions on Circuits and Systems for Video Technology",
        page="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        terms="the repository carries the MIT licence",
        count=2_982,
        scale=(0, 5),
        marker="data.csv",
        says="mos_quality",
        images=("images", "Images", "image", "."),
        nested=True,
        listing=Tables(
            (("data.csv", ""),), "{name}", "mos_quality", subset=stem_until("_"), content="prompt"
        ),  # mos_align, agreement with the prompt, is not quality
        contents=(300, "prompts"),
    ),
    "uhd-iqa": Layout(
        name="UHD-IQA",
        cite="hosu2024uhdiqa",
        paper="Hosu et al. 2024, European Conference on Computer Vision (ECCV) Workshops",
        page="https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html",
        terms="the photographs are from Pixabay, under its licence",
        count=6_073,
        scale=(0, 1),
        marker="uhd-iqa-metadata.csv",
        nested=True,  # training/, validation/, test/
        listing=Tables((("uhd-iqa-metadata.csv", ""),), "{image_name}", "quality_mos", split=uhd_split),
        splits=("train", "val", "test"),
    ),
}


def layout(name: str) -> Layout:
    """The record of a database, by its key or its name; capitals do not count.

    Raises:
        DatabaseError: no such record; lists them.
    """
    known = {key.lower(): one for key, one in LAYOUTS.items()} | {one.name.lower(): one for one in LAYOUTS.values()}
    if name.lower() not in known:
        raise DatabaseError(f"no database '{name}'; known are {', '.join(LAYOUTS)}")
    return known[name.lower()]


def recognise(folder: str | Path) -> Layout:
    """The record of the database in a folder, by the file that tells it.

    Raises:
        DatabaseError: no such folder, or none of the files.
    """
    folder = Path(folder)
    for one in LAYOUTS.values():
        if one.is_in(folder):
            return one
    markers = ", ".join(one.marker for one in LAYOUTS.values())
    what = f"holds none of {markers}" if folder.is_dir() else "is no folder"
    raise DatabaseError(f"no database in '{folder}': it {what}. A table of paths and opinions (.csv) will do, too")
