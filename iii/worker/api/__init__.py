"""Values that users hand to the SDK: options, requests, actions, triggers."""
