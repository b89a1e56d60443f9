"""Formats of data files, one file each: the fields that a row has, and the item that it means."""
