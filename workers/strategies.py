"""How the suggestions of the last frames become the region to look at next: pure. Runs in the worker's main thread."""

import numpy as np

from orion.messages import AttentionSettings, Region


def attended(history: tuple[Region, ...], settings: AttentionSettings) -> Region | None:
    """Return the region that the strategy makes of the suggested regions of the last frames, oldest first; None
    without any.
    """
    if not history:
        return None
    recent = history[-settings.history_size :]
    if settings.strategy == "smoothing":
        return smoothing(recent, settings.alpha)
    if settings.strategy == "velocity":
        return velocity(recent, settings.velocity_threshold, settings.velocity_factor, settings.max_expansion)
    return simple(recent)


def simple(history: tuple[Region, ...]) -> Region:
    """Return the last suggestion as it is: R(t) = S(t)."""
    return history[-1]


def smoothing(history: tuple[Region, ...], alpha: float) -> Region:
    """Return the exponentially smoothed suggestion, each edge by itself, from the oldest one on:
    R(0) = S(0), R(t) = alpha * S(t) + (1 - alpha) * R(t - 1).
    """
    edges = _edges(history[0])
    for region in history[1:]:
        edges = alpha * _edges(region) + (1 - alpha) * edges
    return _region(edges)


def velocity(history: tuple[Region, ...], threshold: float, factor: float, max_expansion: float) -> Region:
    """Return the last suggestion, widened ahead of its motion. With v the way of its centre since the suggestion
    before, in shares of the frame: where |v| (the longer of both axes) exceeds `threshold`, each axis grows by
    min(factor * |v_axis|, max_expansion) on the side that v_axis points to; else R(t) = S(t). Clamped to the frame.
    """
    if len(history) < 2:
        return history[-1]
    edges, before = _edges(history[-1]), _edges(history[-2])
    way = ((edges + np.roll(edges, 2)) - (before + np.roll(before, 2)))[:2] / 2
    if np.abs(way).max() <= threshold:
        return history[-1]
    ahead = np.clip(factor * way, -max_expansion, max_expansion)
    return _region(np.clip(edges + np.concatenate([np.minimum(ahead, 0), np.maximum(ahead, 0)]), 0, 1))


def _edges(region: Region) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([region.x, region.y, region.x + region.width, region.y + region.height])


def _region(edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Region:
    left, top, right, bottom = (float(edge) for edge in edges)
    return Region(left, top, right - left, bottom - top)
