import numpy as np
import torch

from fivefold.train.distil import Distillation, DistilSettings, body_parameters
from fivefold.train.loop import Schedule, train
from fivefold.train.sampling import Mixture
from tests.train import toys

SETTINGS = DistilSettings(examples=4)


def distillation(encoder, tokenizer):
    return Distillation(encoder, tokenizer, toys.FakeTeacher(), Mixture(toys.corpora()), SETTINGS)


def test_training_lowers_the_loss_and_leaves_the_word_table():
    encoder, tokenizer = toys.student()
    words = encoder.embeddings.word_embeddings.weight.clone()
    parameters, step = body_parameters(encoder), distillation(encoder, tokenizer)
    before = np.mean([step(i).loss.item() for i in range(8)])
    train(parameters, step, Schedule(steps=60, learning_rate=0.01, warmup=5))
    assert np.mean([step(i).loss.item() for i in range(8)]) < before - 1
    assert torch.equal(encoder.embeddings.word_embeddings.weight, words)


def test_resumed_equals_uninterrupted(tmp_path):
    schedule = Schedule(steps=8, learning_rate=0.01, warmup=2)
    whole, tokenizer = toys.student()
    train(body_parameters(whole), distillation(whole, tokenizer), schedule)

    state = tmp_path / "run.state"
    first, _ = toys.student()
    stop_after(5, first, tokenizer, schedule, state)
    resumed, _ = toys.student(seed=1)
    train(body_parameters(resumed), distillation(resumed, tokenizer), schedule, state=state, log=tmp_path / "log")
    for name, parameter in body_parameters(whole).items():
        torch.testing.assert_close(parameter, resumed.get_parameter(name), atol=0, rtol=0)
    assert (tmp_path / "log").read_text().count("\n") == 1


def stop_after(steps, encoder, tokenizer, schedule, state):
    """A run that is killed in the step after `steps`, having saved at every one."""
    step = distillation(encoder, tokenizer)

    def failing(number):
        if number == steps:
            raise KeyboardInterrupt
        return step(number)

    try:
        train(body_parameters(encoder), failing, schedule, state=state, save_seconds=-1)
    except KeyboardInterrupt:
        return


def test_schedule_rises_and_falls_to_zero():
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == 1.0 and rates[-1] < 0.02
    assert rates.index(1.0) <= 10 and rates[20:] == sorted(rates[20:], reverse=True)
