"""How large the model of a recipe is, from its configuration alone. Standard library only.

What is trained is known before anything is loaded, as long as no input decides it: the service
says with it what a job will send. Tests compare it with the modules themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainmaster._communication import Model

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Of the digits that scikit-learn ships.
_DIGIT_CLASSES, _DIGIT_PIXELS = 10, 64
LANGUAGE_SHAPES: Mapping[str, tuple[int, int, int, int]] = {
    "tiny": (4, 4, 128, 128),
    "small": (6, 6, 384, 256),
    "gpt2-124m": (12, 12, 768, 1024),
    "gpt2-355m": (24, 16, 1024, 1024),
}
"""Layers, heads, width and context of each size of the language model."""
_BYTE_TOKENS = 256
_ROWS_MULTIPLE = 128  # matrix units want full tiles: 50,257 rows are slower than 50,304


class UnknownSize(ValueError):
    """It cannot be told; the message says why."""


def find_size(recipe: str, config: Mapping[str, Any], inputs: Collection[str]) -> Model:
    """Return the size of the model that a job with this recipe trains.

    Args:
        recipe: by name.
        config: with every default filled in.
        inputs: names of those that the job has.

    Raises:
        UnknownSize: an input decides, or nobody has written down how large it is.
    """
    if recipe == "image-classifier":
        return _size_classifier(config, inputs)
    if recipe == "lm":
        return _size_language_model(config)
    raise UnknownSize(f"nobody has written down how large the model of {recipe} is")


def find_heads(recipe: str, config: Mapping[str, Any]) -> int | None:
    """Return how many heads tensor ranks divide among them, None where a model has none.

    Args:
        recipe: by name.
        config: with every default filled in.
    """
    return _language_shape(config)[1] if recipe == "lm" else None


def _language_name(config: Mapping[str, Any]) -> str:
    return "tiny" if config["model"] == "auto" else config["model"]


def _language_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
    keys = ("layers", "heads", "width", "context")
    presets = LANGUAGE_SHAPES[_language_name(config)]
    return tuple(config[key] or preset for key, preset in zip(keys, presets))


def _size_classifier(config: Mapping[str, Any], inputs: Collection[str]) -> Model:
    if "data" in inputs:
        raise UnknownSize("the shape of the input data decides how large the model is")
    hidden = config["hidden"]
    head = (hidden + 1) * _DIGIT_CLASSES
    if config["model"] == "mlp":
        return Model(num_parameters=(_DIGIT_PIXELS + 1) * hidden + head)
    convolutions = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64
    return Model(num_parameters=convolutions + (64 * 4 * 4 + 1) * hidden + head)


def _size_language_model(config: Mapping[str, Any]) -> Model:
    name = _language_name(config)
    layers, _, width, context = _language_shape(config)
    is_gpt2 = name.startswith("gpt2")
    if config["tokens"] == "bytes" or (config["tokens"] == "auto" and not is_gpt2):
        vocabulary = _BYTE_TOKENS
    else:
        vocabulary = config["vocabulary"] or (50257 if is_gpt2 else 4096)
    rows = round_up_rows(vocabulary)
    return size_transformer(layers=layers, width=width, context=context, rows=rows)


def round_up_rows(vocabulary: int) -> int:
    """Return how many rows the table of so many tokens has."""
    return -(-vocabulary // _ROWS_MULTIPLE) * _ROWS_MULTIPLE


def count_inner_parameters(*, layers: int, width: int) -> int:
    """Return the parameters of all blocks and of the norm behind them: all but the tables."""
    return layers * (12 * width**2 + 13 * width) + 2 * width


def size_transformer(*, layers: int, width: int, context: int, rows: int) -> Model:
    """Return the size of a language model.

    Args:
        rows: of the table of tokens.
    """
    tables = (rows + context) * width
    num_parameters = tables + count_inner_parameters(layers=layers, width=width)
    return Model(
        num_parameters=num_parameters,
        boundary_bytes=4 * context * width,
        num_sums=4 * layers + 2,  # two more for the tables at both ends
        gathered_bytes=4 * context * rows,
        tied_bytes=4 * rows * width,  # the table is the head as well
        root_share=(tables + 2 * width) / num_parameters,
    )
