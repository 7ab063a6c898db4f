"""From bytes to tokens and back: each byte a token, or pairs of them merged by what is frequent.

Token 0 is the byte 0, which ends a document. Every other byte is a token as well, so any bytes at
all can be told, and come back as they were.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NUM_BYTES = 256
TOKENS_MAX = 65_536  # two bytes each
SAMPLE_BYTES = 8 << 20  # pairs are counted in this much of the text
_PIECE_BYTES = 1 << 20
# Words, numbers, other signs, and spaces; a space before a word belongs to it. Every byte matches.
# Never long, since the time to merge within a word grows with the square of its length.
_WORD = re.compile(
    rb" ?[A-Za-z\x80-\xff]{1,32}| ?[0-9]{1,3}"
    rb"|[\t-\r ]{1,32}(?![^\t-\r ])|[\t-\r ]{1,32}|\x00"
    rb"| ?[\x01-\x08\x0e-\x1f!-/:-@\[-`{-\x7f]{1,32}"
)

Pair = tuple[int, int]


class Tokens:
    """A vocabulary: the 256 bytes, and pairs of earlier tokens that became one, in order.

    Attributes:
        merges: the pairs; the first makes token 256.
    """

    def __init__(self, merges: Iterable[Pair] = ()) -> None:
        self.merges: list[Pair] = []
        self._learn(merges)

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return NUM_BYTES + len(self.merges)

    def encode(self, text: Any) -> np.ndarray[Any, Any]:
        """Return the tokens of bytes, or of an array of them, as numbers.

        Without merges these are the bytes themselves, and nothing is copied.
        """
        text_N = np.frombuffer(text, dtype=np.uint8) if isinstance(text, bytes) else text
        if not self.merges:
            return np.asarray(text_N)
        pieces = [
            np.frombuffer(b"".join(map(self._lookup, words)), dtype=np.uint16)
            for words in _iter_words(text_N)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, np.uint16)

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes that were encoded.

        Raises:
            IndexError: there is no such token.
        """
        return b"".join(self._texts[token] for token in tokens)

    def lengths(self) -> torch.Tensor:
        """Return how many bytes each token stands for."""
        return torch.tensor([len(text) for text in self._texts])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"merges": torch.tensor(self.merges, dtype=torch.int32).reshape(-1, 2)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the vocabulary that a checkpoint kept."""
        self._learn((left, right) for left, right in state["merges"].tolist())

    def _learn(self, merges: Iterable[Pair]) -> None:
        self.merges = list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._texts = [bytes([value]) for value in range(NUM_BYTES)]
        for left, right in self.merges:
            self._texts.append(self._texts[left] + self._texts[right])
        self._known: dict[bytes, bytes] = {}

    def _lookup(self, word: bytes) -> bytes:
        """Return a word's tokens, as the bytes of 16-bit numbers."""
        known = self._known.get(word)
        if known is None:
            known = np.array(self._encode_word(word), dtype=np.uint16).tobytes()
            self._known[word] = known
        return known

    def _encode_word(self, word: bytes) -> list[int]:
        """Merge the pair that was learnt first, until none is left."""
        tokens = list(word)
        last = len(self.merges)
        while len(tokens) > 1:
            pairs = list(zip(tokens, tokens[1:]))
            rank = min(self._ranks.get(pair, last) for pair in pairs)
            if rank == last:
                break
            tokens = _merge(tokens, self.merges[rank], NUM_BYTES + rank)
        return tokens


def learn_pairs(text_N: np.ndarray[Any, Any], size: int) -> Tokens:
    """Return a vocabulary of at most `size` tokens; the same for the same text.

    Fewer where no pair occurs twice any more.

    Source:
        Byte pair encoding (Sennrich, Haddow and Birch, 2016) on bytes, as in GPT-2. Ours counts
        in evenly spaced pieces of a long text, takes of equally frequent pairs the one of lower
        numbers, and tells letters from signs in ASCII only.
    """
    pairs = _PairCounts(Counter(word for words in _iter_words(_sample(text_N)) for word in words))
    merges: list[Pair] = []
    while NUM_BYTES + len(merges) < size:
        pair = pairs.pop_most_frequent()
        if pair is None:
            break
        pairs.merge(pair, NUM_BYTES + len(merges))
        merges.append(pair)
    return Tokens(merges)


class Windows:
    """Every `length` tokens of a text, each with the one that follows; a dataset for `run.steps`.

    Nothing is copied before it is asked for, so the text may be a file mapped into memory.
    """

    def __init__(
        self, tokens_N: np.ndarray[Any, Any], length: int, device: torch.device | None = None
    ) -> None:
        """With a GPU as `device`, windows are on their way there when they are returned."""
        self.tokens_N = tokens_N
        self.length = length
        self._device = device
        self._size = max(0, (len(tokens_N) - 1) // length)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return window `index`: its tokens and the next, [length + 1]."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        """Return several at once."""
        size = self.length + 1
        firsts = [index * self.length for index in indices]
        batch = np.stack([self.tokens_N[first : first + size] for first in firsts])
        windows = torch.from_numpy(batch.astype(np.int32))
        if self._device is not None and self._device.type == "cuda":
            # From pinned memory, since a copy from any other waits for all the GPU has to do.
            windows = windows.pin_memory().to(self._device, non_blocking=True)
        return list(windows)

    def shortened(self, multiple: int) -> Windows:
        """Return the same without the last few, so that batches of `multiple` come out even.

        A smaller last batch would have to be compiled for itself. Too few stay as they are.
        """
        size = len(self) // multiple * multiple or len(self)
        return Windows(self.tokens_N[: size * self.length + 1], self.length, self._device)


class _PairCounts:
    """How often two tokens stand side by side in the words of a text, kept up as pairs merge."""

    def __init__(self, counts: Counter[bytes]) -> None:
        self._words = [list(word) for word in counts]
        self._times = list(counts.values())
        self._totals: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        for number in range(len(self._words)):
            self._count(number, 1)
        self._heap = [(-total, pair) for pair, total in self._totals.items()]
        heapq.heapify(self._heap)

    def pop_most_frequent(self) -> Pair | None:
        """Return a pair, of equals the one of lower numbers; None when none occurs twice."""
        while self._heap:
            negative, pair = heapq.heappop(self._heap)
            if -negative == self._totals[pair]:  # else an old entry: each change has put in another
                return pair if -negative > 1 else None
        return None

    def merge(self, pair: Pair, token: int) -> None:
        """Put a token in the place of a pair, in every word."""
        changed: set[Pair] = set()
        for number in self._places.pop(pair):
            changed |= self._count(number, -1)
            self._words[number] = _merge(self._words[number], pair, token)
            changed |= self._count(number, 1)
        for each in changed:
            if self._totals[each] > 0:
                heapq.heappush(self._heap, (-self._totals[each], each))

    def _count(self, number: int, sign: int) -> set[Pair]:
        """Add a word to the totals, or take it out; return the pairs in it."""
        word = self._words[number]
        pairs = list(zip(word, word[1:]))
        for pair in pairs:
            self._totals[pair] += sign * self._times[number]
            if sign > 0:
                self._places[pair].add(number)
        return set(pairs)


def _sample(text_N: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a text that is not too long: evenly spaced pieces of one that is."""
    if len(text_N) <= SAMPLE_BYTES:
        return text_N
    firsts = np.linspace(0, len(text_N) - _PIECE_BYTES, SAMPLE_BYTES // _PIECE_BYTES, dtype=int)
    return np.concatenate([text_N[first : first + _PIECE_BYTES] for first in firsts])


def _iter_words(text_N: np.ndarray[Any, Any]) -> Iterator[list[bytes]]:
    """Yield the words of one piece of a text after another; a piece may cut a word."""
    for first in range(0, len(text_N), _PIECE_BYTES):
        yield _WORD.findall(text_N[first : first + _PIECE_BYTES].tobytes())


def _merge(tokens: list[int], pair: Pair, token: int) -> list[int]:
    merged: list[int] = []
    left, right = pair
    position, end = 0, len(tokens)
    while position < end:
        is_pair = tokens[position] == left and position + 1 < end and tokens[position + 1] == right
        merged.append(token if is_pair else tokens[position])
        position += 2 if is_pair else 1
    return merged
