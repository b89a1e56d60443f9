"""Sources of SAEs, one file each: which names a source knows, and how it loads an SAE."""
