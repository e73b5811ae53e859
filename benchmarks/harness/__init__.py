"""What all benchmarks share: claims, the command line, real models and data, a runtime alone."""
