"""A board that everybody with a ticket may write on, and the function that decides who has one."""

import secrets

from iii import InvocationError, TriggerAction, register_worker

worker = register_worker()
tickets: set[str] = set()
pages: set[str] = set()
notes: list[str] = []


def auth(visitor: dict) -> dict:
    """Decide about a page that connects: it shows its ticket in the address, because a page cannot set headers."""
    ticket = visitor["query_params"].get("ticket", [""])[0]
    if ticket not in tickets:
        raise InvocationError("no_ticket", "ask /ticket for one")
    # What the page registers is known to others under its own prefix: it cannot stand in for anything of ours.
    return {"function_registration_prefix": f"page-{ticket}"}


def ticket(_: dict) -> dict:
    """Give out a ticket. A real project would ask for a password here, or look at a cookie."""
    fresh = secrets.token_hex(8)
    tickets.add(fresh)
    return {"status_code": 200, "body": {"ticket": fresh}}


@worker.function("board::join")
def join(ticket: str) -> dict:
    """Tell a page the notes so far; from now on its `notice` is called for each new one."""
    pages.add(f"page-{ticket}::notice")
    return {"notes": notes}


@worker.function("board::post")
def post(text: str) -> dict:
    """Put a note on the board and tell every page."""
    notes.append(text)
    for notice in pages:
        worker.trigger({"function_id": notice, "payload": {"text": text}, "action": TriggerAction.Void()})
    return {"count": len(notes)}


worker.register_function("gate::auth", auth)
worker.register_function("gate::ticket", ticket)
worker.register_trigger(
    {"type": "http", "function_id": "gate::ticket", "config": {"api_path": "ticket", "http_method": "POST"}}
)
