"""The standard worker `pubsub`: topics without memory. A message goes to the subscribers of the moment."""
