"""Search methods, one file each; each registers itself."""
