"""The 2015 graph once more, written from its table as plain function calls: what tests compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class ByHand:
    """From the published tensors: convolution, batch norm (eps 0.001) and ReLU apart, float64."""

    def __init__(self, weights):
        self.w = {name: t.to(torch.float64) for name, t in weights.items()}

    def c(self, x, name, stride=1, padding=0):
        w = self.w
        x = F.conv2d(x, w[f"{name}.conv.weight"], None, stride, padding)
        bn = [w[f"{name}.bn.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *bn, training=False, eps=1e-3).relu()

    def chain(self, x, block, *steps):
        for name, *how in steps:
            x = self.c(x, f"{block}.{name}", *how)
        return x

    def average(self, x, block):
        """Pads count neither in the sum nor in the number of terms."""
        ones = F.avg_pool2d(torch.ones_like(x), 3, 1, 1)
        return self.chain(F.avg_pool2d(x, 3, 1, 1) / ones, block, ("branch_pool",))

    def a(self, x, b):
        return torch.cat([
            self.chain(x, b, ("branch1x1",)),
            self.chain(x, b, ("branch5x5_1",), ("branch5x5_2", 1, 2)),
            self.chain(x, b, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1),
                       ("branch3x3dbl_3", 1, 1)),
            self.average(x, b),
        ], 1)  # fmt: skip

    def c7(self, x, b):
        wide, tall = (0, 3), (3, 0)
        return torch.cat([
            self.chain(x, b, ("branch1x1",)),
            self.chain(x, b, ("branch7x7_1",), ("branch7x7_2", 1, wide), ("branch7x7_3", 1, tall)),
            self.chain(x, b, ("branch7x7dbl_1",), ("branch7x7dbl_2", 1, tall),
                       ("branch7x7dbl_3", 1, wide), ("branch7x7dbl_4", 1, tall),
                       ("branch7x7dbl_5", 1, wide)),
            self.average(x, b),
        ], 1)  # fmt: skip

    def e(self, x, b, last):
        wide, tall = (0, 1), (1, 0)
        y = self.chain(x, b, ("branch3x3_1",))
        z = self.chain(x, b, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1))
        pool = self.average(x, b)
        if last:  # looks like an error of that graph; numbers are published with it
            pool = self.chain(F.max_pool2d(x, 3, 1, 1), b, ("branch_pool",))
        return torch.cat([
            self.chain(x, b, ("branch1x1",)),
            self.chain(y, b, ("branch3x3_2a", 1, wide)),
            self.chain(y, b, ("branch3x3_2b", 1, tall)),
            self.chain(z, b, ("branch3x3dbl_3a", 1, wide)),
            self.chain(z, b, ("branch3x3dbl_3b", 1, tall)), pool,
        ], 1)  # fmt: skip

    def __call__(self, x):
        """(N, 3, 299, 299) normalised -> pool3 and logits without bias."""
        x = self.c(x.to(torch.float64), "Conv2d_1a_3x3", 2)
        x = self.c(self.c(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", 1, 1)
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(self.c(self.c(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(x, block)
        x = torch.cat([
            self.chain(x, "Mixed_6a", ("branch3x3", 2)),
            self.chain(x, "Mixed_6a", ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1),
                       ("branch3x3dbl_3", 2)),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c7(x, block)
        x = torch.cat([
            self.chain(x, "Mixed_7a", ("branch3x3_1",), ("branch3x3_2", 2)),
            self.chain(x, "Mixed_7a", ("branch7x7x3_1",), ("branch7x7x3_2", 1, (0, 3)),
                       ("branch7x7x3_3", 1, (3, 0)), ("branch7x7x3_4", 2)),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip
        x = self.e(self.e(x, "Mixed_7b", False), "Mixed_7c", True)
        pool3 = x.flatten(2).mean(2)
        return pool3, pool3 @ self.w["fc.weight"].T
