import pytest

from iii import InvocationError
from iii.testing import Engine


def test_a_mail_is_sent(iii: Engine) -> None:
    assert iii.call("mail::send", to="ada@example.org", text="Hi.") == {"sent": "ada@example.org"}


def test_what_is_no_address_fails_and_is_tried_again(iii: Engine) -> None:
    with pytest.raises(InvocationError, match="ada is no address"):
        iii.call("mail::send", to="ada", text="Hi.")
