"""Who is here: an item for each socket that listens to `live/people`, gone when the socket is."""

from iii import register_worker

worker = register_worker()


def address(event: dict) -> dict:
    """Return where a socket's item is."""
    return {"stream_name": "live", "group_id": "people", "item_id": event["subscription_id"]}


def joined(event: dict) -> dict:
    """Note somebody who has begun to listen; whoever calls itself `nobody` may not."""
    if event["stream_name"] != "live" or event["group_id"] != "people":
        return {}
    if event["subscription_id"] == "nobody":
        return {"unauthorized": True}
    worker.trigger("stream::set", {**address(event), "data": {"name": event["subscription_id"]}})
    return {}


def left(event: dict) -> None:
    """Forget somebody who has gone."""
    if event["group_id"] == "people":
        worker.trigger("stream::delete", address(event))


worker.register_function("presence::joined", joined)
worker.register_function("presence::left", left)
worker.register_trigger({"type": "stream:join", "function_id": "presence::joined", "config": {}})
worker.register_trigger({"type": "stream:leave", "function_id": "presence::left", "config": {}})
