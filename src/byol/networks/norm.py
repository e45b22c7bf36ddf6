"""Batch normalisation with the running averages of the official code (Haiku's `BatchNorm` and
`ExponentialMovingAverage`, as set up in the official `byol/configs/byol.py`).

Differs from torch's in two ways: the running variance averages the biased variance, and both
averages are corrected for their start as Adam's are, so after one batch they equal that batch's
statistics and the initial values never count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DebiasedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the channels of (B, C) or (B, C, H, W), with bias-corrected averages.

    The corrected averages themselves are the buffers `running_mean` and `running_var`, so the
    weights work in `nn.BatchNorm1d` and `nn.BatchNorm2d` in evaluation mode as they are. Haiku's
    hidden sum is average * (1 - 0.9^count), which turns its update into
    average + w (value - average), w = 0.1 / (1 - 0.9^(count + 1)).

    `nn.SyncBatchNorm.convert_sync_batchnorm` would replace it by torch's averages.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C) or (B, C, H, W), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None and var is not None and count is not None
        if not self.training:
            return F.batch_norm(input, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        # Momentum 1 makes the fused kernel hand out the batch's own mean and unbiased variance.
        batch_mean, batch_var = torch.zeros_like(mean), torch.zeros_like(var)  # (C,), (C,)
        output = F.batch_norm(
            input, batch_mean, batch_var, self.weight, self.bias, True, 1.0, self.eps
        )
        with torch.no_grad():
            values = input.numel() // input.shape[1]
            count.add_(1)
            seen = count.to(mean.dtype)
            if self.momentum is None:  # a plain average, as in torch
                weight = 1 / seen  # ()
            else:
                weight = self.momentum / (1 - (1 - self.momentum) ** seen)
            mean.lerp_(batch_mean, weight)
            var.lerp_(batch_var * ((values - 1) / values), weight)
        return output
