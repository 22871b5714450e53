from iii.testing import Engine


def test_the_route_greets_who_is_in_its_path(iii: Engine) -> None:
    answer = iii.call("hello::page", {"method": "GET", "path": "/hello/Ada", "path_params": {"name": "Ada"}})
    assert answer == {"status_code": 200, "body": {"message": "Hello, Ada!"}}


def test_the_route_is_bound(iii: Engine) -> None:
    (binding,) = iii.bindings("http")
    assert binding.config["api_path"] == "/hello/:name"
