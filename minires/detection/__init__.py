"""Find objects in images with a residual network: Faster R-CNN and an FCN on the stages of a CIFAR network.

He et al. 2015 exchanged the backbone of a detector, VGG-16 for ResNet-101, and changed nothing else (section 4.3 and
appendix A). This package makes the same exchange possible in small. Read its files in this order:

    boxes.py               IoU, the offsets of a box from another box, non-maximum suppression
    regions.py             RoIAlign: a map of fixed size for a box of any size
    backbone.py            which stages of the network are shared, fixed and trained
    faster_rcnn.py         anchors, proposals, the head, the loss, and how a trained detector finds objects
    segmentation.py        the FCN, which classifies every pixel
    measures.py            COCO's average precision, the localisation error, and the mean IoU
    training.py            the recipes, and the loop that trains the three kinds of network

Boxes are (x0, y0, x1, y1) in pixels. x0 and y0 are the first column and row of the object; x1 and y1 are one more than
the last, so x1 - x0 is the width.
"""
from .backbone import inputs
from .boxes import Detections, clip, decode, encode, iou, nms
from .faster_rcnn import FasterRCNN, grid_anchors, smooth_l1
from .measures import (
    COCO_AREAS,
    SCENE_AREAS,
    AveragePrecision,
    Localisation,
    average_precision,
    localisation_errors,
    mean_iou,
    true_positives,
)
from .regions import interpolation, roi_align
from .segmentation import FCN, upsample
from .training import RECIPES, Recipe, build, fit, score

__all__ = ["COCO_AREAS", "FCN", "RECIPES", "SCENE_AREAS", "AveragePrecision", "Detections", "FasterRCNN",
           "Localisation", "Recipe", "average_precision", "build", "clip", "decode", "encode", "fit", "grid_anchors",
           "inputs", "interpolation", "iou", "localisation_errors", "mean_iou", "nms", "roi_align", "score",
           "smooth_l1", "true_positives", "upsample"]
