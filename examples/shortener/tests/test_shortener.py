from iii.testing import Engine

URL = "https://example.com/a/long/way"


def test_a_link_is_made_followed_and_counted(iii: Engine) -> None:
    made = iii.http.post("/links", json={"url": URL, "name": "way"})
    assert (made.status_code, made.json()) == (201, {"name": "way", "url": URL, "visits": 0})
    for _ in range(2):
        sent_on = iii.http.get("/way")
        assert (sent_on.status_code, sent_on.headers["location"]) == (307, URL)
    assert iii.http.get("/links/way").json()["visits"] == 2
    assert iii.call("shortener::show", name="way")["visits"] == 2


def test_a_link_without_a_name_gets_one(iii: Engine) -> None:
    made = [iii.http.post("/links", json={"url": URL}).json()["name"] for _ in range(2)]
    assert len(set(made)) == 2
    iii.http.get(f"/{made[1]}")
    assert [link["name"] for link in iii.http.get("/links", params={"limit": 1}).json()] == [made[1]]


def test_a_name_is_taken_once(iii: Engine) -> None:
    iii.http.post("/links", json={"url": URL, "name": "way"})
    again = iii.http.post("/links", json={"url": "https://example.org", "name": "way"})
    assert (again.status_code, again.json()["error"]["message"]) == (409, "the name way is taken")
    assert iii.call("shortener::show", name="way")["url"] == URL


def test_what_cannot_be_a_link_is_refused(iii: Engine) -> None:
    for link in ({"url": "javascript:alert(1)"}, {"url": URL, "name": "a/b"}, {"name": "way"}, {"url": 7}):
        assert iii.http.post("/links", json=link).status_code == 422


def test_a_forgotten_link_is_not_there(iii: Engine) -> None:
    iii.http.post("/links", json={"url": URL, "name": "way"})
    assert iii.http.delete("/links/way").status_code == 204
    missing = [iii.http.get("/way"), iii.http.get("/links/way"), iii.http.delete("/links/way")]
    assert [answer.status_code for answer in missing] == [404, 404, 404]
