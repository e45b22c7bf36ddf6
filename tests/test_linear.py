"""Linear evaluation: problems with a known answer, and scikit-learn's."""

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from byol.data.embedded import digits
from byol.tasks import linear as module
from byol.tasks.linear import PAPER_RATES, RATES, linear
from byol.tasks.sidebyside import Heads, batches, gradient


def _fixed(features: Tensor) -> "module.EpochFeatures":
    return lambda epoch: features


def _separable(n: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % classes
    return 3 * F.one_hot(labels, 8).float() + 0.3 * torch.randn(n, 8), labels


def test_a_separable_problem_is_solved() -> None:
    (train, labels), (test, test_labels) = _separable(400), _separable(100)
    found = linear(_fixed(train), labels, test, test_labels, 4, epochs=10)
    assert found["top1"] == 100 and found["top5"] == 100 and found["lr"] in RATES


def test_same_seed_same_numbers() -> None:
    train, labels = torch.randn(300, 6), torch.arange(300) % 3
    one, two = (linear(_fixed(train), labels, train, labels, 3, epochs=3, seed=4) for _ in "ab")
    assert one == two


def test_digits_as_logistic_regression() -> None:
    images, names, _ = digits()
    pixels, labels = torch.from_numpy(images).flatten(1) / 255, torch.from_numpy(names)
    train, test = slice(0, 1200), slice(1200, None)
    ours = linear(_fixed(pixels[train]), labels[train], pixels[test], labels[test], 10, epochs=30)
    reference = LogisticRegression(max_iter=2000).fit(pixels[train].numpy(), names[train])
    theirs = 100 * reference.score(pixels[test].numpy(), names[test])
    assert ours["top1"] == pytest.approx(theirs, abs=2)
    assert ours["top5"] > 99


def test_training_is_that_of_torch() -> None:
    """Nesterov momentum 0.9, no decay, the base rate times batch / 256, cosine to 0, side by
    side for two rates."""
    n, classes, epochs, batch, rates = 50, 3, 4, 16, (0.4, 3.0)
    features, labels = torch.randn(n, 5), torch.arange(n) % classes
    heads = Heads(labels, torch.arange(n), classes, epochs, batch, rates, seed=9)
    module._fit(_fixed(features), [heads], epochs, "", None)
    for r, rate in enumerate(rates):
        layer = torch.nn.Linear(5, classes)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        sgd = torch.optim.SGD(layer.parameters(), rate * batch / 256, momentum=0.9, nesterov=True)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs * 4)
        for epoch in range(epochs):
            for at in batches(torch.arange(n), batch, 9, epoch):
                sgd.zero_grad()
                F.cross_entropy(layer(features[at]), labels[at]).backward()
                sgd.step()
                cosine.step()
        torch.testing.assert_close(heads.weights[r], layer.weight.detach().T, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(heads.bias[r, 0], layer.bias.detach(), rtol=1e-4, atol=1e-5)


def test_the_rate_is_chosen_on_a_held_out_tenth() -> None:
    """A rate that diverges, and one that learns nothing, lose; the test set has no say."""
    train, labels = _separable(200)
    said: list[str] = []
    found = linear(
        _fixed(train), labels, -train, labels, 4, epochs=5,
        rates=(0.0, 0.3, 1e30), progress=said.append,
    )  # fmt: skip
    assert found["lr"] == 0.3 and found["top1"] < 25
    assert said == ["learning rate 0.3: 100.0 % on the held-out tenth"]


def test_one_rate_needs_no_choice() -> None:
    train, labels = _separable(40)
    said: list[str] = []
    found = linear(
        _fixed(train), labels, train, labels, 4, epochs=2, rates=(0.2,), progress=said.append
    )
    assert found["lr"] == 0.2 and not said


def test_features_are_asked_for_every_epoch() -> None:
    train, labels = _separable(40)
    asked = set()

    def augmented(epoch: int) -> Tensor:
        asked.add(epoch)
        return train + 0.01 * epoch

    linear(augmented, labels, train, labels, 4, epochs=5, rates=(0.2,))
    assert asked == {0, 1, 2, 3, 4}


def test_the_papers_rates_are_among_ours() -> None:
    assert set(PAPER_RATES) == {0.05, 0.1, 0.2, 0.3, 0.4} and set(PAPER_RATES) < set(RATES)


@pytest.mark.parametrize("clip", [None, (20.0, 1e-2), (2.0, 0.5)])
def test_the_written_gradient_is_autograds(clip: tuple[float, float] | None) -> None:
    """Clipped logits u = alpha tanh(x / alpha), cross-entropy of u plus beta mean(u^2)."""
    scores = (5 * torch.randn(3, 7, 4, dtype=torch.float64)).requires_grad_(True)
    labels = torch.arange(7) % 4
    for x in scores:
        u = x if clip is None else clip[0] * torch.tanh(x / clip[0])
        penalty = 0.0 if clip is None else clip[1] * u.square().mean()
        (F.cross_entropy(u, labels) + penalty).backward(retain_graph=True)
    ours = gradient(scores.detach(), F.one_hot(labels, 4).double(), clip)
    torch.testing.assert_close(ours, scores.grad)


def test_augmented_features_are_made_once_an_epoch_for_choice_and_result() -> None:
    """The centre crops choose the rate; what is reported is trained on all images at that rate."""
    train, labels = _separable(200)
    asked: list[int] = []

    def augmented(epoch: int) -> Tensor:
        asked.append(epoch)
        return train + 0.01 * epoch

    found = linear(augmented, labels, train, labels, 4, epochs=4, rates=(0.0, 0.3), centre=train)
    assert asked == [0, 1, 2, 3] and found["lr"] == 0.3
    alone = linear(augmented, labels, train, labels, 4, epochs=4, rates=(0.3,))
    assert alone == found
    wrong = linear(augmented, labels, train, labels, 4, 4, None, (0.0, 0.3), centre=-train)
    assert wrong["lr"] == 0.0  # 25 % of -train by chance, 0 % by what was learned


@pytest.mark.parametrize("augmented", [False, True])
def test_a_stopped_training_goes_on(
    augmented: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the sweep and again in the last training, with the same numbers as in one go."""
    monkeypatch.setattr(module, "SAVE_SECONDS", -1)
    rows, labels = torch.randn(80, 8), torch.arange(80) % 4  # so that no figure is 100
    asked: list[int] = []

    def run(stop: int, folder: Path | None) -> dict[str, float]:
        calls = iter(range(stop))

        def train(epoch: int) -> Tensor:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            asked.append(epoch)
            return rows + 0.01 * epoch

        centre = rows if augmented else None
        return linear(
            train, labels, rows, labels, 4, 6, 16, (0.01, 0.1), centre=centre, folder=folder
        )

    whole = run(99, None)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(2 if augmented else 5, tmp_path)
    asked.clear()
    assert run(99, tmp_path) == whole
    assert len(asked) < 6
