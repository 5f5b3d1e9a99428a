"""The learning rate as a function of the step alone."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Return the rate of a step: linear warm-up to the peak, then half a cosine to 0.

    Source: CLIP paper, section 2.5 and table 18; SGDR (arXiv 1608.03983), equation 5.

    Args:
        step: from 0; the first step already has 1 / warmup_steps of the peak.
        peak: the largest rate.
        warmup_steps: steps until the peak.
        steps: of the whole run.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
