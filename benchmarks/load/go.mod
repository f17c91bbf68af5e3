module chatapp-bridge/benchmarks/load

go 1.25
