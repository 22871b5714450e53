import json

from iii import InvocationError
from iii.testing import Engine

QUESTION = "How is the weather in Ulm?"
ANSWER = "It is sunny in Ulm, at 21 degrees."


def test_an_answer_comes_word_by_word_after_its_tool(iii: Engine) -> None:
    weather = iii.fake("tools::weather", returns={"sky": "sunny", "degrees": 21})
    tool, *words, done = iii.call("agent::ask", chat="one", question=QUESTION)
    assert weather.calls == [{"city": "Ulm"}]
    assert tool == {"tool": "tools::weather", "result": {"sky": "sunny", "degrees": 21}}
    assert " ".join(piece["word"] for piece in words) == ANSWER
    assert done == {"done": True}


def test_a_browser_reads_the_same_as_server_sent_events(iii: Engine) -> None:
    iii.fake("tools::weather", returns={"sky": "sunny", "degrees": 21})
    headers = {"accept": "text/event-stream"}
    with iii.http.stream("GET", "/chats/one/ask", params={"question": QUESTION}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        pieces = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert pieces == iii.call("agent::ask", chat="two", question=QUESTION)


def test_a_chat_is_remembered(iii: Engine) -> None:
    for question in ("Who are you?", "Who am I?"):
        iii.call("agent::ask", chat="one", question=question)
    turns = iii.http.get("/chats/one").json()
    assert [turn["question"] for turn in turns] == ["Who are you?", "Who am I?"]
    assert iii.http.get("/chats/two").json() == []


def test_the_model_hears_of_a_tool_that_fails(iii: Engine) -> None:
    iii.fake("tools::weather", raises=InvocationError("failed", "there is no weather under water"))
    iii.call("agent::ask", chat="one", question="How is the weather in Atlantis?")
    assert iii.http.get("/chats/one").json()[0]["answer"] == "I cannot say: there is no weather under water."
