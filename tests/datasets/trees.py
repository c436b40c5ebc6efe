"""Small trees in the exact official layouts: names, headers, line ends, .mat and .xlsx as their authors publish them."""

from pathlib import Path

import numpy as np
from openpyxl import Workbook
from PIL import Image
from scipy.io import savemat


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (90, 120, 30)).save(path)


def text(path: Path, *lines: str, ends: str = "\n", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((ends.join(lines) + ends).encode(encoding))


def cells(names: list[str], row: bool = False) -> np.ndarray:
    """MATLAB's cell array of strings, a column or a row."""
    out = np.empty(len(names), dtype=object)
    out[:] = names
    return out[None] if row else out[:, None]


def mat(path: Path, **variables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def workbook(path: Path, sheets: dict[str, list[list]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


def koniq10k(root: Path) -> None:
    for name in ("10004473376.jpg", "10007357496.jpg", "10007903636.jpg"):
        picture(root / "1024x768" / name)
    text(
        root / "koniq10k_scores_and_distributions.csv",
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"',
        '"10004473376.jpg",0,0,25,73,7,105,3.82857142857143,0.527278894245447,76.9',
        '"10007357496.jpg",0,3,45,47,1,96,3.47916666666667,0.580003024600697,67.2',
        '"10007903636.jpg",1,0,20,73,2,96,3.78125,0.600382878450391,74.7',
    )
    text(
        root / "koniq10k_distributions_sets.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set",
        "10007357496.jpg,0,3,45,47,1,96,67.2,0.58,test",
        "10004473376.jpg,0,0,25,73,7,105,76.9,0.53,training",
        "10007903636.jpg,1,0,20,73,2,96,74.7,0.6,validation",
    )


def spaq(root: Path) -> None:
    for name in ("00001.jpg", "00002.jpg"):
        picture(root / "TestImage" / name)
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    rows = [header, ["00001.jpg", 25, 40, 40, 40, 40, 10], ["00002.jpg", 60.5, 50, 50, 50, 50, 60]]
    workbook(root / "Annotations" / "MOS and Image attribute scores.xlsx", {"Sheet1": rows})


def clive(root: Path) -> None:
    for name in ("trainingImages/t1.bmp", "3.bmp", "1024.JPG"):
        picture(root / "Images" / name)
    mat(root / "Data" / "AllImages_release.mat", AllImages_release=cells(["t1.bmp", "3.bmp", "1024.JPG"]))
    mat(root / "Data" / "AllMOS_release.mat", AllMOS_release=np.array([[50.0, 63.9, 35.0]]))
    mat(root / "Data" / "AllStdDev_release.mat", AllStdDev_release=np.array([[1.0, 2.0, 3.0]]))


def live(root: Path) -> None:
    originals, scores, references = np.ones(982, np.uint8), np.zeros(982), ["womanhat.bmp"] * 982
    distorted = {0: ("jp2k/img1", 47.5, "stream.bmp"), 227: ("jpeg/img1", 27.25, "stream.bmp")}
    distorted[981] = ("fastfading/img174", 111.5, "buildings.bmp")
    for row, (name, score, reference) in distorted.items():
        picture(root / f"{name}.bmp")
        originals[row], scores[row], references[row] = 0, score, reference
    mat(root / "dmos_realigned.mat", dmos_new=scores[None], dmos_std=scores[None], orgs=originals[None])
    mat(root / "dmos.mat", dmos=scores[None] + 1, orgs=originals[None])
    mat(root / "refnames_all.mat", refnames_all=cells(references, row=True))


def live_md(root: Path, part: str = "Part {}") -> None:
    parts = (
        ("1", "blurjpeg", ["babygirl_blur1.bmp", "cows_blur1_jpeg1.bmp"], [21.5, 43.25]),
        ("2", "blurnoise", ["babygirl_noise1.bmp"], [14.5]),
    )
    for number, kind, names, scores in parts:
        folder = root / part.format(number)
        for name in names:
            picture(folder / kind / name)
        mat(folder / "Imagelists.mat", distimgs=cells(names), refimgs=cells(["babygirl.bmp"]), ref4dist=np.ones((2, 1)))
        mat(folder / "Scores.mat", DMOSscores=np.array([scores]))


def live_fb(root: Path) -> None:
    for name in ("voc_emotic_ava/JPEGImages__2009_000001.jpg", "voc_emotic_ava/AVA__149.jpg", "EE371R/cj23478+019.jpg"):
        picture(root / "database" / name)
    text(
        root / "labels_image.csv",
        "name,mos,zscores",
        "voc_emotic_ava/JPEGImages__2009_000001.jpg,72.5,0.5",
        "voc_emotic_ava/AVA__149.jpg,61.25,0.2",
        "EE371R/cj23478+019.jpg,40,-1",
    )
    text(root / "labels640.csv", "name_image,mos_image", "EE371R/cj23478+019.jpg,40")
    text(
        root / "labels=640_padded.csv",
        "name_image,is_valid,mos_image",
        "voc_emotic_ava/AVA__149.jpg,True,61.25",
        "voc_emotic_ava/JPEGImages__2009_000001.jpg,False,72.5",
    )


def cid2013(root: Path) -> None:
    for name in ("IS1/co1/IS_I_C01_D01", "IS1/co2/IS_I_C02_D01", "IS2/co1/IS_II_C01_D01"):
        picture(root / f"{name}.jpg")
    header = ["Source_ID", "Image set specific  MOS", "Standard deviation", "Realigned MOS", "Sharpness"]
    rows = [
        header,
        ["IS_I_C01_D01", 10.1, 3.3, 3.5, 20],
        ["IS_I_C02_D01", 28.5, 3.3, 30.25, 20],
        ["IS_II_C01_D01", 8.5, 3.3, -9.5, 20],
    ]
    workbook(root / "CID2013 data - version 12112014.xlsx", {"Info": [["About"]], "CID2013 MOS": rows})


def pipal(root: Path) -> None:
    for name in ("Distortion_1/A0001_00_00.bmp", "Distortion_1/A0001_06_03.bmp", "Distortion_2/A0002_00_00.bmp"):
        picture(root / "Train_Dist" / name)
    text(root / "Train_Label" / "A0001.txt", "A0001_00_00.bmp,1405.1374", "A0001_06_03.bmp,1250.5", ends="\r\n")
    text(root / "Train_Label" / "A0002.txt", "A0002_00_00.bmp,1500.25", ends="\r\n")


def kadid10k(root: Path) -> None:
    for name in ("I01_01_01.png", "I02_01_05.png", "I01.png", "I02.png"):
        picture(root / "images" / name)
    rows = ("I01_01_01.png,I01.png,4.57,0.496", "I02_01_05.png,I02.png,1.2,0.4")
    text(root / "dmos.csv", "dist_img,ref_img,dmos,var", *rows, ends="\r\n")


def tid2013(root: Path) -> None:
    for name in ("i01_01_1.bmp", "I01_02_5.BMP", "I25_24_5.bmp"):
        picture(root / "distorted_images" / name)
    rows = ("5.51429 I01_01_1.bmp", "3.20000 I01_02_5.bmp", "0.90000 i25_24_5.bmp")
    text(root / "mos_with_names.txt", *rows, ends="\r\n")


def csiq(root: Path) -> None:
    for name in ("awgn/1600.AWGN.1.png", "jpeg2000/1600.jpeg2000.3.png", "contrast/boston.contrast.2.png"):
        picture(root / "dst_imgs" / name)
    gap = [None] * 3
    rows = [
        ["CSIQ", None, None, None, "DMOS values"],
        [],
        [],
        [*gap, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
        [*gap, 1600, 1, "noise", 1, 0.02, 0.061989],
        [*gap, 1600, 3, "jpeg 2000", 3, 0.02, 0.25],
        [*gap, "boston", 6, "contrast", 2, 0.02, 0.5],
        ["end"],
    ]
    workbook(root / "csiq.DMOS.xlsx", {"all_by_distortion": [["image"]], "all_by_image": rows})


def biq2021(root: Path) -> None:
    for name in ("ss01 (1).jpg", "ss03 (2).jpg", "ss02 (7).jpg"):
        picture(root / "Images" / name)
    train = ("Image Name,MOS,,", "ss01 (1).jpg,0.25,,", "ss03 (2).jpg,0.75,,")
    text(root / "Train (Images and MOS).csv", *train, ends="\r\n")
    text(root / "Test (Images and MOS).csv", "Image Name,MOS,,", "ss02 (7).jpg,0.5,,", ends="\r\n")


def agiqa3k(root: Path) -> None:
    for name in ("AttnGAN_normal_001.jpg", "DALLE2_normal_001.jpg", "glide_lowstep_004.jpg"):
        picture(root / "images" / name)
    text(
        root / "data.csv",
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align",
        "AttnGAN_normal_001.jpg,a tray of sushi,,,anime style,1.361853219,0.5,0.43,0.2",
        "DALLE2_normal_001.jpg,a tray of sushi,,,anime style,3.25,0.5,3.1,0.2",
        '"glide_lowstep_004.jpg","red, blue armor",,,,0.5,0.5,1,0.2',
    )


def uhd_iqa(root: Path) -> None:
    for name in ("training/1.jpg", "validation/2.jpg", "test/3.jpg"):
        picture(root / name)
    text(
        root / "uhd-iqa-metadata.csv",
        "image_name,quality_mos,set,subset,orig_width,orig_height",
        "1.jpg,0.41,training,,4000,3000",
        "2.jpg,0.55,validation,macro,4000,3000",
        "3.jpg,0.62,test,,4000,3000",
    )


# By key: the builder; and what comes out: files, scores, subset, split, content.
TREES = {
    "koniq10k": (
        koniq10k,
        ["1024x768/10004473376.jpg", "1024x768/10007357496.jpg", "1024x768/10007903636.jpg"],
        [3.82857142857143, 3.47916666666667, 3.78125],
        ["", "", ""],
        ["train", "test", "val"],
        ["", "", ""],
    ),
    "spaq": (spaq, ["TestImage/00001.jpg", "TestImage/00002.jpg"], [25, 60.5], ["", ""], ["", ""], ["", ""]),
    "clive": (clive, ["Images/3.bmp", "Images/1024.JPG"], [63.9, 35.0], ["", ""], ["", ""], ["", ""]),
    "live": (
        live,
        ["jp2k/img1.bmp", "jpeg/img1.bmp", "fastfading/img174.bmp"],
        [-47.5, -27.25, -111.5],
        ["jp2k", "jpeg", "fastfading"],
        ["", "", ""],
        ["stream", "stream", "buildings"],
    ),
    "live-md": (
        live_md,
        [
            "Part 1/blurjpeg/babygirl_blur1.bmp",
            "Part 1/blurjpeg/cows_blur1_jpeg1.bmp",
            "Part 2/blurnoise/babygirl_noise1.bmp",
        ],
        [-21.5, -43.25, -14.5],
        ["blurjpeg", "blurjpeg", "blurnoise"],
        ["", "", ""],
        ["babygirl", "cows", "babygirl"],
    ),
    "live-fb": (
        live_fb,
        [
            "database/voc_emotic_ava/JPEGImages__2009_000001.jpg",
            "database/voc_emotic_ava/AVA__149.jpg",
            "database/EE371R/cj23478+019.jpg",
        ],
        [72.5, 61.25, 40],
        ["voc_emotic_ava", "voc_emotic_ava", "EE371R"],
        ["train", "val", "test"],
        ["", "", ""],
    ),
    "cid2013": (
        cid2013,
        ["IS1/co1/IS_I_C01_D01.jpg", "IS1/co2/IS_I_C02_D01.jpg", "IS2/co1/IS_II_C01_D01.jpg"],
        [3.5, 30.25, -9.5],
        ["IS_I", "IS_I", "IS_II"],
        ["", "", ""],
        ["C01", "C02", "C01"],
    ),
    "pipal": (
        pipal,
        [
            "Train_Dist/Distortion_1/A0001_00_00.bmp",
            "Train_Dist/Distortion_1/A0001_06_03.bmp",
            "Train_Dist/Distortion_2/A0002_00_00.bmp",
        ],
        [1405.1374, 1250.5, 1500.25],
        ["00", "06", "00"],
        ["train", "train", "train"],
        ["a0001", "a0001", "a0002"],
    ),
    "kadid10k": (
        kadid10k,
        ["images/I01_01_01.png", "images/I02_01_05.png"],
        [4.57, 1.2],
        ["", ""],
        ["", ""],
        ["i01", "i02"],
    ),
    "tid2013": (
        tid2013,
        ["distorted_images/i01_01_1.bmp", "distorted_images/I01_02_5.BMP", "distorted_images/I25_24_5.bmp"],
        [5.51429, 3.2, 0.9],
        ["", "", ""],
        ["", "", ""],
        ["i01", "i01", "i25"],
    ),
    "csiq": (
        csiq,
        [
            "dst_imgs/awgn/1600.AWGN.1.png",
            "dst_imgs/jpeg2000/1600.jpeg2000.3.png",
            "dst_imgs/contrast/boston.contrast.2.png",
        ],
        [-0.061989, -0.25, -0.5],
        ["awgn", "jpeg2000", "contrast"],
        ["", "", ""],
        ["1600", "1600", "boston"],
    ),
    "biq2021": (
        biq2021,
        ["Images/ss02 (7).jpg", "Images/ss01 (1).jpg", "Images/ss03 (2).jpg"],
        [0.5, 0.25, 0.75],
        ["ss02", "ss01", "ss03"],
        ["test", "train", "train"],
        ["", "", ""],
    ),
    "agiqa3k": (
        agiqa3k,
        ["images/AttnGAN_normal_001.jpg", "images/DALLE2_normal_001.jpg", "images/glide_lowstep_004.jpg"],
        [1.361853219, 3.25, 0.5],
        ["attngan", "dalle2", "glide"],
        ["", "", ""],
        ["a tray of sushi", "a tray of sushi", "red, blue armor"],
    ),
    "uhd-iqa": (
        uhd_iqa,
        ["training/1.jpg", "validation/2.jpg", "test/3.jpg"],
        [0.41, 0.55, 0.62],
        ["", "", ""],
        ["train", "val", "test"],
        ["", "", ""],
    ),
}
