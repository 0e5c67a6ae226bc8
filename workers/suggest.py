"""The region that one frame's boxes suggest for the next frame, pure. Runs in the worker's main thread."""

from orion.messages import Detections, Region


def suggest_region(detections: Detections, frame_size: tuple[int, int], expansion: float) -> Region | None:
    """Return the union of the boxes, each axis widened by `expansion` of its length in total, half on each side, and
    clamped to the frame of (width, height) pixels; normalized. None without boxes.
    """
    if len(detections) == 0:
        return None
    near = detections.xywh[:, :2].min(axis=0)
    far = (detections.xywh[:, :2] + detections.xywh[:, 2:]).max(axis=0)
    edges = []
    for low, high, length in zip(near, far, frame_size, strict=True):
        margin = (high - low) * expansion / 2
        edges.append((max(0.0, float(low - margin) / length), min(1.0, float(high + margin) / length)))
    (left, right), (top, bottom) = edges
    return Region(left, top, right - left, bottom - top)
