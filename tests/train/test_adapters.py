from dataclasses import replace

import numpy as np
import pytest
import torch

from fivefold.checkpoint import read
from fivefold.train.adapters import GROUPS, Matches, Workbench, adapter_parameters, group_config, stack_adapters
from fivefold.train.corpora import Corpora, Pair, Segment
from fivefold.train.loop import Schedule, train
from fivefold.train.packaging import write_package
from fivefold.train.student import build_student
from tests.train import toys


def bench_for(tasks):
    encoder, tokenizer = toys.student()
    body = {name: tensor for name, tensor in encoder.state_dict().items() if "lora" not in name}
    config = replace(group_config(encoder.config, tasks), task_instructions=dict.fromkeys(tasks, "red "))
    grouped = build_student(config, body)
    return Workbench(grouped, tokenizer, toys.FakeTeacher(), toys.corpora(), seed=0), body


@pytest.mark.parametrize("name", GROUPS)
def test_only_the_adapters_learn(name):
    group = GROUPS[name]
    bench, body = bench_for(group.tasks)
    parameters = adapter_parameters(bench.encoder)
    start = {key: p.detach().clone() for key, p in parameters.items()}
    train(parameters, group.build(bench), Schedule(steps=4, learning_rate=0.01, warmup=1))
    assert any(not torch.equal(p, start[key]) for key, p in parameters.items())
    assert all(torch.equal(tensor, bench.encoder.state_dict()[key]) for key, tensor in body.items())


def test_matches_of_a_draw_share_their_languages():
    """Or the language of the query would give the passage away."""
    corpora = Corpora()
    langs = ("en", "es", "de")
    corpora.segments["stsb"] = [Segment({lang: f"{lang}{i}" for lang in langs}) for i in range(20)]
    for name in ("vital_title", "help"):
        corpora.pairs[name] = [Pair(lang, f"{lang}{i}", f"{lang}x{i}. {lang}y{i}") for lang in langs for i in range(9)]
    matches, crossed = Matches(corpora), 0
    for seed in range(60):
        drawn = matches.draw(np.random.default_rng(seed), 8)
        asked, found = ({text[:2] for text in side} for side in zip(*drawn, strict=True))
        assert len(drawn) == 8 and len(asked) == len(found) == 1
        crossed += asked != found
    assert crossed > 10


def test_package_is_a_checkpoint_with_tasks_in_order(tmp_path):
    from safetensors.torch import save_file

    encoder, tokenizer = toys.student()
    body = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items() if "lora" not in name}
    save_file(body, tmp_path / "body.safetensors")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(__import__("json").dumps(encoder.config.to_dict()))
    for number, (name, group) in enumerate(GROUPS.items()):
        grouped = build_student(group_config(encoder.config, group.tasks), body)
        banks = {k: torch.full_like(v, number) for k, v in grouped.state_dict().items() if "lora" in k}
        save_file(banks, tmp_path / f"adapters-{name}.safetensors")
    write_package(tmp_path, tmp_path / "package")
    config, tensors = read(tmp_path / "package")
    assert tensors["layers.0.mlp.fc1.lora_A"][:, 0, 0].tolist() == [0, 0, 3, 2, 1]
    assert config.lora_adaptations == encoder.config.lora_adaptations
    torch.testing.assert_close(tensors["layers.1.mlp.fc2.weight"], body["layers.1.mlp.fc2.weight"], atol=0.01, rtol=0)
    assert "multilingual-e5-small (MIT, Microsoft)" in (tmp_path / "package" / "README.md").read_text()


def test_stack_puts_every_task_in_its_place():
    encoder, _ = toys.student()
    groups = {("text-matching", "separation"): {"x": torch.tensor([[1.0], [2.0]])}}
    config = group_config(encoder.config, ("separation", "text-matching"))
    assert stack_adapters(config, groups)["x"].tolist() == [[2.0], [1.0]]
