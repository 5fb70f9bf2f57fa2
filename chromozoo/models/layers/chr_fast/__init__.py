"""The network of ChrFast and its training losses."""
