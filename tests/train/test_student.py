from dataclasses import replace

import torch

from fivefold.train.student import (
    build_student,
    calm_rotation,
    student_config,
    student_tensors,
    with_tasks,
    without_tasks,
)
from tests.train import toys


def test_word_rows_are_the_teacher_s_and_the_type_row_holds_the_mean_position():
    """Rows that no piece has, which the real file has too, are left out."""
    file = toys.teacher_file()
    words = torch.from_numpy(file.tensors["emb.word"]).view(-1, toys.HIDDEN)
    file = replace(file, pieces=file.pieces[:-3])
    tensors = student_tensors(file)
    assert torch.equal(tensors["embeddings.word_embeddings.weight"], words[:-3])
    assert student_config(file).vocab_size == len(words) - 3
    positions = torch.from_numpy(file.tensors["emb.pos"]).view(-1, toys.HIDDEN).mean(0)
    expected = positions + torch.from_numpy(file.tensors["emb.type"])[: toys.HIDDEN]
    torch.testing.assert_close(tensors["embeddings.token_type_embeddings.weight"], expected[None])


def test_calm_rotation_keeps_the_scores_and_slows_the_strong_dimensions():
    weight, bias = torch.randn(3 * 16, 16, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 48)
    turned, shift = calm_rotation(weight, bias, heads=2)
    x = torch.cat([torch.randn(9, 16, generator=torch.Generator().manual_seed(1)), torch.ones(9, 1)], 1)
    for head in range(2):
        scores, energies = [], []
        for w, b in ((weight, bias), (turned, shift)):
            q, k, _ = torch.cat([w, b[:, None]], 1).view(3, 2, 8, 17)[:, head]
            scores.append((x @ q.T) @ (x @ k.T).T)
            energies.append((q.norm(dim=1) * k.norm(dim=1)).view(2, 4).sum(0))  # of pairs (j, j + 4), fastest first
        torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)
        assert (energies[1].diff() > 0).all()
    torch.testing.assert_close((turned[32:], shift[32:]), (weight[32:], bias[32:]))


def test_tasks_come_and_go_with_their_prompts():
    config = toys.student()[0].config
    bare = without_tasks(config)
    assert bare.lora_adaptations == () and with_tasks(bare) == config
    encoder = build_student(bare, {k: v for k, v in toys.student()[0].state_dict().items() if "lora" not in k})
    assert not any("lora" in name for name in encoder.state_dict())
