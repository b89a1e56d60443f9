"""Where SAEs come from, one file each: the names that it knows, and how one is loaded."""
