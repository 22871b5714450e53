import pytest

from iii import InvocationError
from iii.testing import Engine


def test_a_name_is_greeted(iii: Engine) -> None:
    assert iii.call("hello::greet", name="Ada", excited=True) == {"message": "Hello, Ada!"}


def test_a_name_is_a_text(iii: Engine) -> None:
    with pytest.raises(InvocationError, match="name must be a string"):
        iii.call("hello::greet", name=7)
