"""Published searches in plain torch and Hugging Face, as yardsticks: what a step costs the way others do it."""
