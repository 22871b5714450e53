"""What is said of NATS servers that are not as a cluster needs them."""

from __future__ import annotations

from iii.engine.cluster.requirements import unmet_requirements


def test_three_servers_of_the_tested_version_are_as_they_should_be() -> None:
    assert unmet_requirements((2, 15), max_payload=1 << 20, servers=3) == []
    assert unmet_requirements((3, 0), max_payload=8 << 20, servers=5) == []


def test_each_requirement_that_is_not_met_is_a_sentence_with_the_way_out() -> None:
    old, small, few = unmet_requirements((2, 9), max_payload=8192, servers=1)
    assert old == "the NATS server is version 2.9; upgrade it to 2.15 or newer, which this was tested with"
    assert small == "the NATS server takes messages of 8192 bytes; set max_payload: 1MB, or large calls are slow"
    assert few == "one NATS server is known; run 3, so that the loss of one cuts no engine off"
    assert unmet_requirements((2, 15), max_payload=1 << 20, servers=2)[0].startswith("2 NATS servers are known")
