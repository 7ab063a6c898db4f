"""Checks on the parts of the recipe `lm`; prints the name of each that held."""

import copy
import itertools
import os
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainmaster.recipes import _language_speed, _text_tokens
from trainmaster.recipes._language_model import (
    LanguageModel,
    Shape,
    UnusableShape,
    group_parameters,
    next_token_loss,
)
from trainmaster.recipes._text_files import UnusableText, load_text
from trainmaster.recipes._text_tokens import Tokens, Windows, learn_pairs
from trainmaster.train.inner.microbatches import step_whole

SHAPE = Shape(layers=2, heads=4, width=32, context=16, vocabulary=200)
TEXT = b"the cat sat on the mat; the cat ate the rat.\n\tIf x == 10:\n    y = 2026\n\0" * 40


def as_array(text: bytes) -> Any:
    return np.frombuffer(text, dtype=np.uint8)


def make_model(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(SHAPE, **options).double()


def make_windows(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 200, (count, 17), generator=torch.Generator().manual_seed(1))


def gradients(model: LanguageModel, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    next_token_loss(model(windows[:, :-1]), windows[:, 1:]).backward()
    return {name: each.grad.clone() for name, each in model.named_parameters()}


def gap(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


# The model.


def it_has_the_parameters_of_gpt2() -> None:
    shape = Shape(layers=12, heads=12, width=768, context=1024, vocabulary=50_257)

    # 124,439,808 in all (Radford and others, 2019: "124M"), of which 1024 x 768 are positions.
    assert shape.num_parameters == 124_439_808 - 1024 * 768
    assert shape.rows == 50_304
    with torch.device("meta"):
        model = LanguageModel(shape)
    count = sum(each.numel() for each in model.parameters())
    assert count == 124_439_808 + (50_304 - 50_257) * 768


def a_small_model_counts_its_parameters_right() -> None:
    count = sum(each.numel() for each in make_model().parameters())

    assert count == SHAPE.num_parameters + 16 * 32 + (SHAPE.rows - 200) * 32


def each_head_is_neighbouring_rows_of_qkv() -> None:
    """So half of the rows, and of the columns of what follows, are half of the heads."""
    whole = make_model().blocks[0].attention
    x = torch.randn(3, 16, 32, dtype=torch.float64)
    parts = []
    for half in range(2):
        part = copy.deepcopy(whole)
        rows, columns = slice(48 * half, 48 * half + 48), slice(16 * half, 16 * half + 16)
        part.qkv.weight = torch.nn.Parameter(whole.qkv.weight[rows])
        part.qkv.bias = torch.nn.Parameter(whole.qkv.bias[rows])
        part.out.weight = torch.nn.Parameter(whole.out.weight[:, columns])
        part.out.bias = torch.nn.Parameter(whole.out.bias / 2)
        parts.append(part(x))

    assert torch.allclose(parts[0] + parts[1], whole(x), rtol=0, atol=1e-14)


def attention_is_the_textbooks() -> None:
    attention = make_model().blocks[0].attention
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    rows = attention.qkv(x).view(2, 5, 4, 3, 8)
    q, k, v = rows[:, :, :, 0], rows[:, :, :, 1], rows[:, :, :, 2]
    scores = torch.einsum("bihe,bjhe->bhij", q, k) / 8**0.5
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    mixed = torch.einsum("bhij,bjhe->bihe", scores.softmax(-1), v).reshape(2, 5, 32)

    assert torch.allclose(attention(x), attention.out(mixed), rtol=0, atol=1e-14)


def nobody_sees_what_comes_later() -> None:
    model, windows = make_model(), make_windows(1)
    changed = windows.clone()
    changed[:, 9:] = 7

    before, after = model(windows[:, :-1]), model(changed[:, :-1])

    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def recomputed_activations_give_the_same_gradients() -> None:
    windows = make_windows()

    whole, recomputing = make_model(), make_model(recompute_activations=True)

    assert gap(gradients(whole, windows), gradients(recomputing, windows)) == 0.0


def recomputed_activations_draw_the_same_dropout() -> None:
    windows, found = make_windows(), []
    for recompute in (False, True):
        model = make_model(dropout=0.3, recompute_activations=recompute)
        torch.manual_seed(5)
        found.append(gradients(model, windows))

    assert gap(*found) == 0.0


def gradients_added_up_are_those_of_one_large_batch() -> None:
    windows, whole = make_windows(7), make_model()
    want = gradients(whole, windows)
    x, y = windows[:, :-1], windows[:, 1:]
    for pieces in (1, 2, 3, 7):
        model = make_model()

        loss = step_whole(model, x, y, next_token_loss, pieces, lambda loss: loss)

        found = {name: each.grad for name, each in model.named_parameters()}
        assert gap(want, found) < 1e-12, pieces
        assert abs(loss - next_token_loss(whole(x), y)) < 1e-12


def model_and_loss_are_compiled_in_one_piece_each() -> None:
    windows, model = make_windows(), make_model().float()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    loss_of = torch.compile(next_token_loss, backend="aot_eager", fullgraph=True)
    x, y = windows[:, :-1], windows[:, 1:]
    found = []
    for call, loss in ((model, next_token_loss), (compiled, loss_of)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            step_whole(call, x, y, loss, 1, lambda value: value)
        found.append({name: each.grad for name, each in model.named_parameters()})

    # The narrow type has 8 bits, and fused operations round less often.
    assert gap(*found) < 0.02 * max(each.abs().max().item() for each in found[0].values())


def only_matrices_decay() -> None:
    model = make_model()
    decaying, others = group_parameters(model, 0.1)

    assert decaying["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    assert all(each.ndim == 2 for each in decaying["params"])
    assert len(decaying["params"]) == 2 + 2 * 4  # the head is the token table
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))


def the_stream_is_as_narrow_as_autocast() -> None:
    model = make_model().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.embed(make_windows()[:, :-1]).dtype == torch.bfloat16
    assert model.embed(make_windows()[:, :-1]).dtype == torch.float32


def a_width_that_heads_do_not_divide_is_refused() -> None:
    message = ""
    try:
        Shape(layers=1, heads=3, width=32, context=8, vocabulary=256)
    except UnusableShape as error:
        message = str(error)

    assert "config.width is 32 and config.heads is 3" in message


# Tokens.


def any_bytes_come_back() -> None:
    every = bytes(range(256)) * 3
    noise = os.urandom(50_000)
    for tokens in (Tokens(), learn_pairs(as_array(TEXT), 300), learn_pairs(as_array(noise), 400)):
        for text in (b"", b"a", TEXT, every, noise, b" " * 1000, b"\0" * 100, b"x" * 5000):
            assert tokens.decode(tokens.encode(text).tolist()) == text


def pairs_are_learnt_as_by_hand() -> None:
    # "abab abab abab": in each of three words ab twice, then (ab)(ab) once.
    tokens = learn_pairs(as_array(b"abab\nabab\nabab\n"), 1000)

    assert tokens.merges[:2] == [(97, 98), (256, 256)]
    assert tokens.encode(b"abab").tolist() == [257]
    assert tokens.encode(b"aba").tolist() == [256, 97]


def pairs_are_those_of_a_plain_count() -> None:
    """Beside the textbook's way, which counts everything anew for each merge."""
    text = TEXT + b"aaa aaaa aaaaa banana bandana " * 9
    words = Counter(_text_tokens._WORD.findall(text))
    spelled = {word: list(word) for word in words}
    want: list[tuple[int, int]] = []
    for token in range(256, 320):
        totals: Counter[tuple[int, int]] = Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(spelled[word]):
                totals[pair] += times
        pair, total = min(totals.items(), key=lambda item: (-item[1], item[0]))
        if total < 2:
            break
        want.append(pair)
        for word, tokens in spelled.items():
            merged: list[int] = []
            for each in tokens:
                merged.append(each)
                # A pair that was just made is no part of the next one, so one look back is enough.
                if tuple(merged[-2:]) == pair:
                    merged[-2:] = [token]
            spelled[word] = merged

    assert learn_pairs(as_array(text), 320).merges == want
    assert len(want) > 30


def a_vocabulary_comes_back_from_a_checkpoint() -> None:
    learnt, kept = learn_pairs(as_array(TEXT), 300), Tokens()
    kept.load_state_dict(learnt.state_dict())

    assert kept.merges == learnt.merges
    assert kept.encode(TEXT).tolist() == learnt.encode(TEXT).tolist()
    assert len(kept.encode(TEXT)) < len(TEXT) / 2
    assert kept.lengths()[kept.encode(TEXT).astype(int)].sum() == len(TEXT)
    empty = Tokens()
    empty.load_state_dict(Tokens().state_dict())
    assert empty.merges == []


def a_long_text_is_cut_without_loss() -> None:
    size, _text_tokens._PIECE_BYTES = _text_tokens._PIECE_BYTES, 97
    try:
        tokens = learn_pairs(as_array(TEXT), 300)
        assert tokens.decode(tokens.encode(TEXT).tolist()) == TEXT
    finally:
        _text_tokens._PIECE_BYTES = size


def windows_are_every_token_once_with_the_next() -> None:
    windows = Windows(np.arange(24, dtype=np.uint16), 5)

    assert [windows[index].tolist() for index in range(len(windows))] == [
        [0, 1, 2, 3, 4, 5],
        [5, 6, 7, 8, 9, 10],
        [10, 11, 12, 13, 14, 15],
        [15, 16, 17, 18, 19, 20],
    ]
    assert [len(windows.shortened(size)) for size in (1, 2, 3, 4, 5)] == [4, 4, 3, 4, 4]
    assert len(Windows(np.arange(5), 5)) == 0
    assert len(Windows(np.arange(6), 5)) == 1


# Text.


def make_folder(name: str, **files: bytes) -> Path:
    folder = Path(name)
    for file, content in files.items():
        path = folder / file.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def refusal(path: Path) -> str:
    try:
        load_text(path, 0.2, 0)
    except UnusableText as error:
        return str(error)
    raise AssertionError(f"{path} was taken")


def a_folder_is_divided_by_file() -> None:
    files = {f"sub{number}__file.txt": f"text {number} ".encode() * 9 for number in range(10)}
    folder = make_folder("many", **files, **{"image.png": b"\0PNG\0", "empty.txt": b""})
    (folder / ".hidden").write_bytes(b"hidden")

    text = load_text(folder, 0.2, 0)

    documents = text.train_N.tobytes().split(b"\0"), text.validation_N.tobytes().split(b"\0")
    assert [len(part) for part in documents] == [8, 2]
    assert sorted([*documents[0], *documents[1]]) == sorted(files.values())
    assert text.num_documents == 10
    assert load_text(folder, 0.2, 0).digest() == text.digest()
    others = {load_text(folder, 0.2, seed).digest() for seed in range(1, 6)}
    assert len(others - {text.digest()}) >= 3


def of_one_file_the_end_is_held_out() -> None:
    Path("one.txt").write_bytes(bytes(range(1, 101)))

    text = load_text(Path("one.txt"), 0.2, 3)

    assert isinstance(text.train_N, np.memmap)
    assert text.train_N.tobytes() == bytes(range(1, 81))
    assert text.validation_N.tobytes() == bytes(range(81, 101))


def without_an_input_it_is_the_standard_library() -> None:
    text = load_text(None, 0.05, 0)

    assert text.num_documents > 300
    assert len(text.train_N) > 4_000_000
    assert 0.005 < len(text.validation_N) / len(text.train_N) < 0.2


def text_that_is_none_is_refused() -> None:
    Path("empty").write_bytes(b"")

    assert "is not there" in refusal(Path("nowhere"))
    assert "has 0 bytes" in refusal(Path("empty"))
    assert "0 files of text" in refusal(make_folder("binary", a=b"\0", b=b"\1\0"))
    assert "at least two" in refusal(make_folder("lonely", a=b"hello"))


# Speed.


def the_operations_are_those_of_the_formula() -> None:
    shape = Shape(layers=12, heads=12, width=768, context=1024, vocabulary=50_257)

    assert _language_speed.operations_per_token(shape, 1024) == 855_166_464


def only_devices_that_we_know_have_a_peak() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA H100 PCIe": None,
        "NVIDIA H100 NVL": None,
        "NVIDIA GeForce RTX 5090": None,
    }
    for name, want in names.items():
        torch.cuda.get_device_name = lambda _device, name=name: name
        assert _language_speed.find_peak(torch.device("cuda")) == want, name
    assert _language_speed.find_peak(torch.device("cpu")) is None


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if callable(check) and getattr(check, "__annotations__", {}) == {"return": None}:
            try:
                check()
            except Exception:  # noqa: BLE001  the others are to be tried as well
                traceback.print_exc()
            else:
                print("held", name, flush=True)
