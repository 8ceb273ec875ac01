# SPDX-License-Identifier: Apache-2.0
"""Ratios of interleaved rounds: geometric mean with a bootstrap confidence interval (95 %). No state."""
import math
import random


def geometric_mean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values))


def ratio_interval(numerators, denominators, resamples=2000, seed=1):
    """(ratio, low, high) of paired rounds. Paired: round i of both ran next to each other, so the machine's mood cancels."""
    ratios = [a / b for a, b in zip(numerators, denominators) if a > 0 and b > 0]
    if not ratios:
        return (float("nan"),) * 3
    chooser = random.Random(seed)
    means = sorted(geometric_mean([chooser.choice(ratios) for _ in ratios]) for _ in range(resamples))
    return geometric_mean(ratios), means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
