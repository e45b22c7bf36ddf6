"""Fine-tuning: rules by value, learning, going on exactly, and what is remembered."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from byol.data.embedded import digits
from byol.data.source import Subset, open_source
from byol.networks.encoder import Encoder, build_encoder
from byol.tasks import finetune as module
from byol.tasks import training
from byol.tasks.augment import PLAIN, random_views
from byol.tasks.finetune import accuracy, finetune, norm_momentum, steps_of, trial
from byol.tasks.subject import Subject

IMAGES, NAMES, _ = digits()
TRAIN = open_source((IMAGES[:600], NAMES[:600]))
TEST = open_source((IMAGES[600:900], NAMES[600:900]))


def subject(seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    encoder = Encoder(build_encoder("convnet-8", in_chans=1), (0.5,), (0.5,)).eval()
    description = {"image_size": 8, "in_chans": 1, "value_range": (0, 16)}
    return Subject("trained", encoder, description, torch.device("cpu"), "fp32")


def test_norm_momentum_is_the_papers_in_torchs_convention() -> None:
    """Decay max(1 - 10 / s, 0.9): 0.9 up to 100 steps an epoch, 0.98 at 500."""
    assert norm_momentum(4) == pytest.approx(0.1)
    assert norm_momentum(100) == pytest.approx(0.1)
    assert norm_momentum(500) == pytest.approx(0.02)


def test_steps_of_epochs() -> None:
    assert steps_of(3, 100, 32) == 9  # floor of 9.4
    assert steps_of(2, 10, 32) == 2  # batches of 10
    assert steps_of(0.01, 10, 5) == 1


def test_training_is_that_of_torch() -> None:
    """Nesterov 0.9, decay on everything, cosine from lr to 0, norms in training mode."""
    given = subject()
    network = finetune(given, TRAIN, np.arange(64), 10, lr=0.05, steps=4, batch_size=32,
                       weight_decay=0.01, seed=5, bn_momentum=0.3)  # fmt: skip
    plain = module.Classifier(given, 10, 5)
    for layer in plain.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.3
    sgd = torch.optim.SGD(plain.parameters(), 0.05, 0.9, weight_decay=0.01, nesterov=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 4)
    plain.train()
    part = Subset(TRAIN, np.arange(64))
    for batch in random_views(given, part, 32, 5)(0, 4):
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(plain(batch.images), batch.labels).backward()
        sgd.step()
        cosine.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert not network.training and not given.encoder.training


def test_digits_are_learned_and_the_subject_is_left_alone() -> None:
    given = subject()
    before = {k: v.clone() for k, v in given.encoder.state_dict().items()}
    upright = (replace(PLAIN, crop_area_min=0.6, flip=0),)
    network = finetune(given, TRAIN, None, 10, lr=0.1, epochs=16, batch_size=32, views=upright)
    found = accuracy(network, TEST)
    assert found["top1"] > 75 and found["top5"] > 97
    assert all(torch.equal(v, before[k]) for k, v in given.encoder.state_dict().items())
    few = accuracy(network, TEST, np.arange(7))
    assert few["top1"] * 7 / 100 == pytest.approx(round(few["top1"] * 7 / 100))


def test_an_interrupted_training_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)  # after every step
    given = subject()
    settings = {"lr": 0.05, "steps": 6, "batch_size": 32}
    whole = finetune(given, TRAIN, None, 10, **settings)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(module, "random_views", _ending_at(3))
        finetune(given, TRAIN, None, 10, folder=tmp_path, **settings)  # type: ignore[arg-type]
    again = finetune(given, TRAIN, None, 10, folder=tmp_path, **settings)  # type: ignore[arg-type]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert len(list(tmp_path.iterdir())) == 1
    finetune(subject(1), TRAIN, None, 10, folder=tmp_path, **settings)  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2  # another encoder does not go on from there


def _ending_at(step: int):  # type: ignore[no-untyped-def]
    original = random_views

    def shorter(*arguments):  # type: ignore[no-untyped-def]
        feed = original(*arguments)
        return lambda start, stop: feed(start, step)

    return shorter


def test_fewer_images_than_a_batch_are_said() -> None:
    said: list[str] = []
    for n in (1, 5):
        finetune(subject(), TRAIN, np.arange(n), 10, lr=0.01, epochs=2, say=said.append)
    assert [line.split(":")[0] for line in said] == [
        "1 images are fewer than a batch of 256",
        "5 images are fewer than a batch of 256",
    ]
    assert "batches of 5" in said[1]


def test_a_trial_is_remembered_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    given = subject()
    settings = {"lr": 0.05, "epochs": 2, "batch_size": 64, "folder": tmp_path}
    one = trial(given, TRAIN, np.arange(128), 10, {"test": TEST}, **settings)  # type: ignore[arg-type]
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".json" and set(one["test"]) == {"top1", "top5", "mean_per_class"}
    file.write_text('{"test": {"top1": 1.5}}')
    two = trial(given, TRAIN, np.arange(128), 10, {"test": TEST}, **settings)  # type: ignore[arg-type]
    assert two == {"test": {"top1": 1.5}}
    trial(given, TRAIN, np.arange(1, 129), 10, {"test": TEST}, **settings)  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_trial_that_diverges_scores_nothing() -> None:
    said: list[str] = []
    found = trial(subject(), TRAIN, None, 10, {"test": TEST}, lr=1e30, epochs=1, say=said.append)
    assert found["test"]["top1"] == 0 and "lower the learning rate" in said[-1]
