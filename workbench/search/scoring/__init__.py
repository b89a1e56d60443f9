"""Score many prompts on many contexts, with exact caching."""
