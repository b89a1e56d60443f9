"""The search methods, one module each; every module registers its method in `SEARCH_METHODS`."""
