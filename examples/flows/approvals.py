"""A request that waits for a person, who answers over http; days may pass."""

from iii import Flow, HttpError, InvocationError, register_worker

worker = register_worker()


@worker.flow("approvals::ask", id_field="request")
def ask(flow: Flow, request: str, text: str) -> str:
    link = flow.token("answer")
    flow.status(
        {"request": request, "text": text, "answer": f"POST /answers/{link}"}
    )  # a real one would be mailed, in a step
    answer = flow.wait("answer", timeout="7d", default={"approved": False})
    return "approved" if answer["approved"] else "refused"


@worker.post("/requests", status=202)
def open_request(request: str, text: str) -> dict[str, str]:
    payload = {"request": request, "text": text}
    started = worker.trigger("flow::start", {"function_id": "approvals::ask", "payload": payload})
    return {"run": started["run"]}


@worker.post("/answers/{token}")
def answer(token: str, approved: bool) -> dict[str, str]:
    try:
        sent = worker.trigger("flow::signal", {"token": token, "payload": {"approved": approved}})
    except InvocationError as error:
        raise HttpError(410, "this request is answered, or was never made") from error
    return {"run": sent["run"]}
