"""What tests of benchmarks and studies share."""
