"""Everything that speaks to Triton, by gRPC or HTTP."""
