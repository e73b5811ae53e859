"""Does the search run on a GPU, and what does it gain there? All in one call of eight minutes, without network."""
