from iii.testing import Engine


def test_an_answer_uses_the_tools(iii: Engine) -> None:
    words = iii.call("agent::answer", question="How is the weather in Ulm?")
    assert words == ["It", "is", "sunny", "in", "Ulm."]


def test_a_question_about_anything_else_needs_no_tool(iii: Engine) -> None:
    assert iii.call("agent::answer", question="Who are you?")[0] == "Ask"


def test_an_answer_streams_over_http(iii: Engine) -> None:
    answer = iii.http.get("/answer", params={"question": "Who are you?"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("data: Ask\n\ndata: me\n\n")
