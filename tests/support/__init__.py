"""What several tests share: real projects, stand-ins for peers, oracles."""
