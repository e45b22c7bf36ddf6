"""What a view's random distribution is made of (paper table 6), as plain numbers.

T and T' are two values of one type (official `byol/utils/augmentations.py`). No torch here, so
that the command line can show every field at once.
"""

from dataclasses import dataclass, field, replace


def _field(default: float, help: str) -> float:
    value: float = field(default=default, metadata={"help": help})
    return value


@dataclass(frozen=True)
class ViewSpec:
    """One distribution of views. Probabilities are in [0, 1] and drawn per image."""

    crop_area_min: float = _field(0.08, "smallest crop, as a share of the image's area")
    crop_area_max: float = _field(1.0, "largest crop, as a share of the image's area")
    crop_ratio_min: float = _field(3 / 4, "smallest aspect ratio (width / height) of the crop")
    crop_ratio_max: float = _field(4 / 3, "largest aspect ratio (width / height) of the crop")
    flip: float = _field(0.5, "probability of a horizontal flip")
    flip_vertical: float = _field(0.0, "probability of a vertical flip (not in the paper)")
    rotate: float = _field(0.0, "probability of a quarter turn (not in the paper)")
    jitter: float = _field(0.8, "probability of the colour jitter")
    brightness: float = _field(0.4, "largest shift added to all channels, either way")
    contrast: float = _field(0.4, "contrast is multiplied by 1 +- this at most")
    saturation: float = _field(0.2, "saturation is multiplied by 1 +- this at most")
    hue: float = _field(0.1, "largest shift of the hue in turns, either way")
    grey: float = _field(0.2, "probability of dropping the colours")
    blur: float = _field(0.5, "probability of a Gaussian blur")
    blur_sigma_min: float = _field(0.1, "smallest standard deviation of the blur in pixels")
    blur_sigma_max: float = _field(2.0, "largest standard deviation of the blur in pixels")
    solarize: float = _field(0.0, "probability of inverting all values above the threshold")
    solarize_threshold: float = _field(0.5, "values from here on are inverted by solarize")


T = ViewSpec(blur=1.0, solarize=0.0)
T_PRIME = ViewSpec(blur=0.1, solarize=0.2)


def _both(view1: ViewSpec, view2: ViewSpec, **changes: float) -> tuple[ViewSpec, ViewSpec]:
    return replace(view1, **changes), replace(view2, **changes)


PRESETS: dict[str, tuple[ViewSpec, ViewSpec]] = {
    # The paper's T and T', for photographs (table 6).
    "natural": (T, T_PRIME),
    # The same distribution for both views, of equal accuracy in the paper (appendix B).
    "symmetric": _both(T, T, blur=0.5, solarize=0.2),
    # 32-pixel photographs: blur erases what little there is (as in published CIFAR recipes).
    "small": _both(T, T_PRIME, blur=0.0, crop_area_min=0.2),
    # Drawn textures: their colours say nothing of the class, and would be learned in its place.
    "textures": _both(T, T, crop_area_min=0.3, grey=0.8, blur=0.3, blur_sigma_max=1.0),
    # One channel: tone and sharpness are all there is; inverting would turn bone into air.
    "grey": _both(T, T_PRIME, saturation=0.0, hue=0.0, grey=0.0, solarize=0.0, blur=0.5),
    # Microscopy and medical images: no up or down; the stain's hue carries meaning.
    "medical": _both(
        T,
        T_PRIME,
        crop_area_min=0.2,
        flip_vertical=0.5,
        rotate=0.75,
        brightness=0.2,
        contrast=0.3,
        saturation=0.2,
        hue=0.05,
        grey=0.1,
        solarize=0.0,
        blur=0.3,
    ),
    # From above: no up or down; bands are physical, so tones move little.
    "satellite": _both(
        T,
        T_PRIME,
        crop_area_min=0.2,
        flip_vertical=0.5,
        rotate=0.75,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.05,
        solarize=0.0,
        blur=0.3,
    ),
    # Text has a reading direction; paper and ink vary in tone, and scans are soft.
    "documents": _both(
        T,
        T_PRIME,
        crop_area_min=0.2,
        flip=0.0,
        brightness=0.2,
        saturation=0.2,
        hue=0.05,
        solarize=0.2,
        blur=0.3,
        blur_sigma_max=1.5,
    ),
}
