"""Formats of data files, one module each: the fields of a row, and how a row becomes an item."""
