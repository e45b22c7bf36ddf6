"""Random views for training with labels: which view an image shows, and what it depends on."""

import numpy as np
import torch

from byol import views
from byol.data.source import open_source
from byol.networks.encoder import Encoder, build_encoder
from byol.tasks.augment import PLAIN, random_views
from byol.tasks.subject import Subject
from byol.viewspec import T_PRIME, T, ViewSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), np.uint8)
SOURCE = open_source((IMAGES, np.arange(6)))
SUBJECT = Subject(
    "trained",
    Encoder(build_encoder("convnet-4"), (), ()),
    {"image_size": 12, "in_chans": 3},
    torch.device("cpu"),
    "fp32",
)


def test_plain_is_a_crop_and_a_flip_and_nothing_else() -> None:
    whole = ViewSpec(crop_area_min=1, crop_ratio_min=1, crop_ratio_max=1, jitter=0, grey=0, blur=0)
    assert PLAIN == ViewSpec(jitter=0, grey=0, blur=0) and PLAIN.crop_area_min == 0.08
    truth = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255
    flipped = 0
    for batch in random_views(SUBJECT, SOURCE, 6, 0, (whole,))(0, 4):
        for image, place in zip(batch.images, batch.index, strict=True):
            is_flipped = torch.equal(image, truth[place].flip(2))
            assert is_flipped or torch.equal(image, truth[place])
            flipped += is_flipped
        assert batch.labels.tolist() == batch.index.tolist()
    assert 4 <= flipped <= 20


def test_two_views_take_turns_by_epoch() -> None:
    whole = {"crop_area_min": 1.0, "crop_ratio_min": 1.0, "crop_ratio_max": 1.0}
    specs = (ViewSpec(**whole, blur=1), ViewSpec(**whole, solarize=1, blur=0))
    truth = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    for batch in random_views(SUBJECT, SOURCE, 4, 7, specs)(0, 6):  # batches across epochs
        for v in (0, 1):
            at = batch.epoch % 2 == v
            drawn = views.draw(specs[v], 7, batch.epoch[at], batch.index[at], v)
            torch.testing.assert_close(
                batch.images[torch.from_numpy(at)], views.apply(truth[batch.index[at]], drawn)
            )


def test_a_later_step_needs_no_earlier_one() -> None:
    feed = random_views(SUBJECT, SOURCE, 4, 1, (T, T_PRIME))
    for once, again in zip(list(feed(0, 5))[3:], feed(3, 5), strict=True):
        assert torch.equal(once.images, again.images)
