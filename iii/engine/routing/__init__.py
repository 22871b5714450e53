"""What every message does: registries, bindings, calls in flight, peers. Decides, and does no I/O."""
