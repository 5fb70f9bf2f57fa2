"""Parts of networks that several models share, and the network of ChrFast."""
