import torch
from torch.nn import functional as F

from fivefold.train.forward import embed
from fivefold.train.student import (
    build_student,
    calm_rotation,
    dimension_order,
    round_rows,
    student_config,
    student_tensors,
)
from tests.train import toys


def test_order_of_dimensions_only_permutes_the_vectors():
    file, (_, tokenizer) = toys.teacher_file(), toys.student()
    rows, order = list(range(file.vocab_size)), torch.randperm(toys.HIDDEN, generator=torch.Generator().manual_seed(0))
    config = student_config(file, file.vocab_size, matryoshka=(8,))
    found = []
    for chosen in (torch.arange(toys.HIDDEN), order):
        encoder = build_student(config, student_tensors(file, rows, chosen))
        found.append(embed(encoder, tokenizer, ["red sun", "luna"], max_length=16)[0])
    torch.testing.assert_close(found[0][:, order], found[1], atol=1e-5, rtol=1e-4)


def test_word_rows_hold_mean_position_and_type():
    file = toys.teacher_file()
    table = student_tensors(file, [5, 7], torch.arange(toys.HIDDEN))["embeddings.word_embeddings.weight"]
    words = torch.from_numpy(file.tensors["emb.word"]).view(-1, toys.HIDDEN)[[5, 7]]
    positions = torch.from_numpy(file.tensors["emb.pos"]).view(-1, toys.HIDDEN).mean(0)
    expected = words + positions + torch.from_numpy(file.tensors["emb.type"])[: toys.HIDDEN]
    torch.testing.assert_close(table, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(table, round_rows(table), atol=1e-6, rtol=0)


def test_first_dimensions_explain_most():
    hidden = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 9.0, 3.0])
    vectors = torch.stack([hidden[:, 0], hidden[:, 1], hidden[:, 1] * 0.99, hidden[:, 2], torch.full((200,), 50.0)], 1)
    assert dimension_order(vectors).tolist()[:3] == [1, 3, 0]  # not the copy of the first, not the constant


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


def test_embed_keeps_the_order_and_cuts():
    encoder, tokenizer = toys.student()
    texts = ["red", "red sun moon shine luna", "sol"]
    together, tokens = embed(encoder, tokenizer, texts, max_length=6, task_ids=[4, 0, -1])
    for i, task in enumerate([4, 0, -1]):
        alone, _ = embed(encoder, tokenizer, texts[i : i + 1], max_length=6, task_ids=[task])
        assert F.cosine_similarity(together[i], alone[0], dim=0) > 0.99999
    assert tokens == 3 + 6 + 3


def test_workers_give_the_same_vectors_and_gradients():
    found = []
    for workers in (1, 3):
        encoder, tokenizer = toys.student()
        texts = ["red", "red sun moon", "sol", "luna shine", "moon"]
        vectors, _ = embed(encoder, tokenizer, texts, max_length=6, task_ids=[1, -1, 0, -1, 1], workers=workers)
        (vectors * torch.arange(1.0, 6)[:, None]).sum().backward()
        gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
        found.append((vectors, gradients))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
