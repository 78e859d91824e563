"""The figures of the paper's tables as data, with a note wherever they contradict each other.

All are per cent, from Wei et al., CVPR 2019, and its supplement. Rows carry the names of
:func:`ppool.models.list_poolings`; a cell that the paper leaves empty or says did not converge is
None.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NOTES", "ROW_NAMES", "TABLE_1", "TABLE_2", "TABLE_3", "TABLE_5", "TABLE_6"]

ROW_NAMES = {
    "max": "Max",
    "average": "Average",
    "strided_conv": "Strided-C",
    "all_conv": "All-C",
    "gated": "Gated",
    "dpp": "DPP",
    "lp": "Lp (p = 3)",
    "ppool": "P-pooling",
    "original": "published poolings",
}
"""Our poolings by the names of the paper's rows."""


def _columns(table: str) -> dict[tuple[str, str], dict[str, float | None]]:
    """Lines ``data set / network  value value ...`` under a header of rows; ``-`` is None."""
    (*rows,), *lines = (line.split() for line in table.strip().splitlines())
    return {
        (dataset, network): {
            row: None if cell == "-" else float(cell) for row, cell in zip(rows, cells, strict=True)
        }
        for dataset, network, *cells in lines
    }


TABLE_1: Mapping[tuple[str, str], Mapping[str, float | None]] = _columns("""
                        max   average  strided_conv  all_conv  gated  dpp   ppool
    voc         vgg16     53.9  52.8     50.9          -         53.3   54.2  55.1
    voc         resnet50  60.0  59.6     60.3          60.3      59.5   60.1  61.1
    cityscapes  vgg16     57.2  53.5     56.1          25.2      56.7   57.8  58.6
    cityscapes  resnet50  54.3  52.1     55.9          55.9      53.3   54.4  56.3
    ade20k      vgg16     25.4  24.7     23.9          -         25.1   25.3  25.9
    ade20k      resnet50  23.5  23.7     23.9          23.9      23.7   24.1  24.7
""")
"""Mean IoU on validation sets, by (data set, network) and pooling."""

TABLE_2: Mapping[tuple[str, str], Mapping[str, float | None]] = _columns("""
                             original  ppool
    voc  deeplab_largefov    65.1      -
    voc  fcn8s_inceptionv2   60.6      62.3
    voc  deeplabv3_xception  73.8      74.2
""")
"""Mean IoU with the published poolings and with P-pooling."""

TABLE_3: Mapping[tuple[str, str], Mapping[str, float | None]] = _columns("""
                             original  ppool
    voc  deeplab_largefov    67.27     67.95
    voc  fcn8s_inceptionv2   61.01     62.99
    voc  deeplabv3_xception  75.37     75.64
""")
"""As :data:`TABLE_2`, measured once on a test server."""

TABLE_5: Mapping[str, Mapping[tuple[str, str], Mapping[str, float | None]]] = {
    "mean_iou": _columns("""
                                    original  ppool
        ade20k  deeplab_largefov    28.44     29.01
        ade20k  fcn8s_inceptionv2   25.81     28.09
        ade20k  deeplabv3_xception  33.93     34.70
    """),
    "pixel_accuracy": _columns("""
                                    original  ppool
        ade20k  deeplab_largefov    68.45     69.22
        ade20k  fcn8s_inceptionv2   66.88     68.02
        ade20k  deeplabv3_xception  73.33     73.58
    """),
}
"""ADE20K, by measure."""

TABLE_6: Mapping[tuple[str, str], Mapping[str, float | None]] = _columns("""
                pool1  pool2  pool3  pool4  pool5  max   ppool
    voc  vgg16  54.9   54.7   54.5   54.8   54.3   53.9  55.1
""")
"""Mean IoU of VGG-16 on VOC with P-pooling at one stage only."""

NOTES: Mapping[str, tuple[str, ...]] = {
    "1": (
        "The supplement prints other means for VOC: VGG max 53.8, average 52.5, gated 53.1, DPP "
        "54.0; ResNet max 60.2, average 59.5, P-pooling 61.3.",
        "For ResNet the paper gives Strided-C and All-C as one structure; its three cells follow "
        "from the gains in the text (0.8, 0.4, 0.8).",
        "VGG with All-C is said not to converge on VOC and ADE20K.",
        "The paper counts 1499 validation images of VOC; the data set has 1449.",
    ),
    "2": (
        "The captions of Tables 2 and 3 look exchanged: Table 2 is said to be the test set, yet "
        "its FCN rows have the text's gain on the validation set, 1.7.",
        "DeepLab's mean with P-pooling cannot be read in the copy this was taken from.",
        "Ours is on the validation set: the test set's labels are not public.",
    ),
    "3": (
        "Two decimals and server addresses say test set, the caption says validation set.",
        "The means of FCN's and DeepLab's rows differ from those of their classes by up to 0.04.",
        "Ours is on the validation set: the test set's labels are not public.",
    ),
    "5": (
        "The caption says test set, the text validation set; ours is the latter.",
        "The first author's later code (kfxw/mydev-pytorch-semantic-segmentation at 5e462b1) "
        "counts 151 classes, which lowers the mean; ours counts 150.",
    ),
    "6": ("Agrees with Table 1 and not with the supplement, whose max pooling has 53.8.",),
}
"""Footnotes by table."""
