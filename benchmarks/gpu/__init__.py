"""Does the search run on a GPU, and what does it gain there? In eight minutes, without network."""
