import torch
from torch.nn import functional as F

from fivefold.train.forward import embed
from fivefold.train.student import calm_rotation, student_tensors
from tests.train import toys


def test_word_rows_are_the_teacher_s_and_the_type_row_holds_the_mean_position():
    file = toys.teacher_file()
    tensors = student_tensors(file, [5, 7])
    words = torch.from_numpy(file.tensors["emb.word"]).view(-1, toys.HIDDEN)
    torch.testing.assert_close(tensors["embeddings.word_embeddings.weight"], words[[5, 7]], rtol=0, atol=0)
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
