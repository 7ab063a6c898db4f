"""Prints how many parameters the model of a recipe has with each of some configurations.

sizes.py <recipe> <configurations, a JSON list>
"""

import json
import sys
from typing import Any

import numpy as np

from trainmaster.recipes import default_config, image_classifier
from trainmaster.recipes._labelled_images import LabelledImages
from trainmaster.recipes._language_model import LanguageModel, Shape
from trainmaster.recipes._sizes import LANGUAGE_SHAPES


def count_classifier(config: dict[str, Any]) -> int:
    images = LabelledImages(
        np.zeros((10, 1, 8, 8), np.uint8), np.arange(10), [str(each) for each in range(10)]
    )
    network = image_classifier.build_model(images, config)
    return sum(each.numel() for each in network.parameters())


def count_language_model(config: dict[str, Any]) -> int:
    layers, heads, width, context = (
        config[key] or preset
        for key, preset in zip(
            ("layers", "heads", "width", "context"), LANGUAGE_SHAPES[config["model"]], strict=True
        )
    )
    shape = Shape(layers, heads, width, context, config["vocabulary"] or 256)
    return sum(each.numel() for each in LanguageModel(shape).parameters())


recipe, configurations = sys.argv[1], json.loads(sys.argv[2])
count = {"image-classifier": count_classifier, "lm": count_language_model}[recipe]
print("said", json.dumps([count({**default_config(recipe), **each}) for each in configurations]))
