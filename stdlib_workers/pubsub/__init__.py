"""The standard worker `pubsub`: topics without memory. Who is subscribed when something is published, gets it."""
