"""Losses that torch does not have: centre, supervised contrastive and box-supervised mask loss."""
