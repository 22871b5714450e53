"""The laws of the router hold while calls are recorded, and every span ends with its call: the same machine, traced."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import invariant, rule

from iii.engine.routing.tracer import Tracer
from iii.engine.tracing.sampling import Sampler, Sampling
from tests.engine.routing.test_router_machine import RouterLaws


class TracedRouterLaws(RouterLaws):
    """Some traces are recorded, some are not; the tracer pauses and resumes."""

    def __init__(self) -> None:
        super().__init__()
        self.minted = 0
        net = self.net
        sampler = Sampler(Sampling(default=0.7, max_traces_per_second=5.0))
        self.tracer = Tracer(
            sampler,
            net.router.calls.in_flight,
            mint=self._mint,
            clock=lambda: net.now,
            on_finished=lambda: None,
            on_state_changed=net.router.choose_path,
        )
        net.router.trace(self.tracer)

    def _mint(self, bits: int) -> int:
        self.minted += 1
        return self.minted * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << bits)

    @rule()
    def the_tracer_resumes(self) -> None:
        self.tracer.resume()

    @rule()
    def spans_are_taken(self) -> None:
        self.tracer.take(5)

    @invariant()
    def only_calls_under_way_have_open_spans(self) -> None:
        in_flight = self.net.router.calls.in_flight
        assert set(self.tracer.spans) <= set(in_flight)
        assert not any(in_flight[id].is_abandoned for id in self.tracer.spans)

    @invariant()
    def what_is_finished_has_ended_and_no_span_is_told_twice(self) -> None:
        assert all(span.end for span in self.tracer.finished)
        ids = [span.span_id for span in [*self.tracer.finished, *self.tracer.spans.values()]]
        assert len(ids) == len(set(ids))

    def teardown(self) -> None:
        """When everybody has left, no span is open any more."""
        super().teardown()
        assert self.tracer.spans == {}


TestTracedRouterLaws = TracedRouterLaws.TestCase
TestTracedRouterLaws.settings = settings(max_examples=40, stateful_step_count=40)
