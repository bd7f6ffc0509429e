"""The benchmarks' pure parts; what they measure is measured by running them."""
