"""What a handler can ask about its invocation: context, logger, spans."""
