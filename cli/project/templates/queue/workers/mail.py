from iii import TriggerAction, register_worker

worker = register_worker()


@worker.function("mail::send")
def send(to: str, text: str) -> dict[str, str]:
    """Send one mail. Called for each job of the queue `mails`; an exception means: try again later."""
    if "@" not in to:
        raise ValueError(f"{to} is no address")
    print(f"sending to {to}: {text}")
    return {"sent": to}


@worker.function("mail::welcome")
def welcome(to: str) -> dict[str, str]:
    """Put a welcome mail into the queue, and return its receipt at once."""
    receipt: dict[str, str] = worker.trigger(
        {
            "function_id": "mail::send",
            "payload": {"to": to, "text": "Welcome!"},
            "action": TriggerAction.Enqueue(queue="mails"),
        }
    )
    return receipt
