"""Who is alive: heartbeats, busy workers, slow consumers, and readiness of programs without our SDK."""
