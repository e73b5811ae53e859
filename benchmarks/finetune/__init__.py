"""What a fine-tune brings, by sort of candidate, model and recipe."""
