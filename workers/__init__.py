"""The detector: from pixels to boxes; imports only Orion's vocabulary."""
