"""Base classes that the data sets share."""
