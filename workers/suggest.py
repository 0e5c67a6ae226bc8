"""The region that one frame's boxes suggest for the next frame, pure. Runs in the worker's main thread."""

from orion.messages import Detections, Region


def suggest_region(detections: Detections, frame_size: tuple[int, int], expansion: float) -> Region | None:
    """Return the union of the boxes, each axis widened by `expansion` of its length in total, half on each side, and
    clamped to the frame of (width, height) pixels; normalized. None without boxes.
    """
    if not detections:
        return None
    width, height = frame_size
    left, right = _widened([(one.x, one.x + one.width) for one in detections], width, expansion)
    top, bottom = _widened([(one.y, one.y + one.height) for one in detections], height, expansion)
    return Region(left, top, right - left, bottom - top)


def _widened(extents: list[tuple[int, int]], length: int, expansion: float) -> tuple[float, float]:
    """Return the union of extents along one axis of `length` pixels, widened, clamped and normalized."""
    low = min(start for start, _ in extents)
    high = max(end for _, end in extents)
    margin = (high - low) * expansion / 2
    return max(0.0, (low - margin) / length), min(1.0, (high + margin) / length)
