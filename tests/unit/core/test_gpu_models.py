"""What people call a GPU, and what it calls itself."""

import pytest

from scheduler.core.resources import is_gpu_model


@pytest.mark.parametrize(
    ("asked", "model", "want"),
    [
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("nvidia h100", "NVIDIA H100 80GB HBM3", True),
        ("A100-SXM4", "NVIDIA A100-SXM4-40GB", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("A10", "NVIDIA A100-SXM4-40GB", False),
        ("H100 HBM3", "NVIDIA H100 80GB HBM3", False),
        ("H100", "", False),
        ("-", "NVIDIA H100", False),
    ],
)
def test_a_model_goes_by_the_words_of_its_name(asked: str, model: str, want: bool) -> None:
    assert is_gpu_model(asked, model) is want
