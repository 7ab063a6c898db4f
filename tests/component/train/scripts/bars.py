"""Writes bars.npz, noisy colour images of bars across or down, and features.npz without pixels."""

import numpy as np

generator = np.random.default_rng(0)
x = generator.normal(0, 0.3, (160, 3, 6, 10)).astype(np.float32)
is_across = generator.random(160) < 0.5
place = generator.integers(0, 6, 160)
for image, across, where in zip(x, is_across, place, strict=True):
    if across:
        image[:, where, :] += 2
    else:
        image[:, :, where] += 2
y = np.where(is_across, "across", "down")
np.savez("bars.npz", x=x, y=y)
np.savez("features.npz", x=x.reshape(160, -1), y=y)
