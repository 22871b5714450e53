from iii.testing import Engine


def test_the_route_greets_who_is_in_its_path(iii: Engine) -> None:
    answer = iii.http.get("/hello/Ada")
    assert (answer.status_code, answer.json()) == (200, {"message": "Hello, Ada!"})


def test_other_workers_call_the_same_function(iii: Engine) -> None:
    assert iii.call("hello::greet", name="Ada") == {"message": "Hello, Ada!"}
