"""A worker on the official `iii-sdk`. It knows nothing of this engine; the address comes to it as III_URL."""

import threading

from iii import InvocationError, register_worker

worker = register_worker()


def shout(payload):
    """Say it loudly."""
    return {"text": payload["text"].upper() + "!", "version": 1}


async def greet(payload):
    """Ask another worker how to greet, and say it loudly."""
    try:
        greeting = await worker.trigger_async({"function_id": "ours::greeting", "payload": payload})
    except InvocationError as error:
        return {"text": f"nobody knows how to greet ({error.code})"}
    return shout(greeting)


worker.register_function("text::shout", shout)
worker.register_function("text::greet", greet)
threading.Event().wait()
