from typing import Any

from iii import register_worker

worker = register_worker()


@worker.queue("mails", retries=5, concurrency=4)
def send(to: str, text: str) -> dict[str, str]:
    """Send one mail, a job of the queue `mails`. An exception means: try again later."""
    if "@" not in to:
        raise ValueError(f"{to} is no address")
    print(f"sending to {to}: {text}")
    return {"sent": to}


@worker.function("mail::welcome")
def welcome(to: str) -> dict[str, Any]:
    """Put a welcome mail into the queue, and return its receipt at once."""
    return {"receipt": send.enqueue(to=to, text="Welcome!")}
