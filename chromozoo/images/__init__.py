"""Image processing: reading, grey levels, signal images, extraction, straightening, presets.

Only ``preset``, ``metaphase``, ``sources`` and ``augment`` import torch.
"""
