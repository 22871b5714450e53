"""Which peers still work: heartbeats, hanging workers, slow consumers, and readiness of programs without our SDK."""
