"""Several endpoints of one model: each attempt goes to the one that has most room.

    pool = Pool([Flow("openai:m at http://a/v1", limits), Flow("openai:m at http://b/v1", limits)])

    async def send(index: int, slot: Slot) -> Answer:
        ...                                  # one attempt at endpoint number `index`, reported as for `Flow.call`

    answer = await pool.call(send, tokens=estimated_tokens)

All calls wait in one line (`dispatch`), so none is bound to an endpoint before it goes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar, get_args

from safer_instruct.errors import ConfigError
from safer_instruct.models.dispatch import Dispatcher, Slot
from safer_instruct.models.flow import Flow
from safer_instruct.models.gate import Kind, State

T = TypeVar("T")

_KINDS: tuple[Kind, ...] = get_args(Kind)  # from good to bad


class Pool:
    """Lets calls out to whichever endpoint has most room, by the share of its present concurrency that is in use.

    An endpoint that fails, stalls or asks for a pause gets no calls but a try now and then, and its full part when it is back.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        """Take over the flows: from now on they are called through the pool only.

        Raises:
            ConfigError: There is none.
        """
        if not flows:
            raise ConfigError("a model needs at least one endpoint")
        self.flows = tuple(flows)
        self._dispatcher = flows[0].dispatcher if len(flows) == 1 else Dispatcher([flow.gate for flow in flows])
        for flow in flows:
            flow.dispatcher = self._dispatcher

    def call(self, send: Callable[[int, Slot], Awaitable[T]], *, tokens: int = 0, asked: Hashable = None) -> Awaitable[T]:
        """Send one request until it is answered, as often and to as many endpoints as may help.

        Args:
            send: Makes one attempt at the endpoint with this number: returns the answer, or raises `AttemptError` for what
                may pass, there or at another endpoint.
            tokens: Estimate of what the call will take.
            asked: What kind of request it is: once `send` has raised `AccessError` at an endpoint, those of its kind are not sent there any more.

        Raises:
            ModelError: The retries are used up, or no endpoint answers anybody; or whatever else `send` raises.
        """
        return self._dispatcher.call(send, tokens, asked)

    @property
    def state(self) -> State:
        """How all of them are doing: the worst of their kinds, and their messages, worst first."""
        waits, now = self._dispatcher, self._dispatcher.now()
        states = sorted((flow.gate.state(now, 0, waits.ready_at(flow.gate)) for flow in self.flows), key=lambda state: -_KINDS.index(state.kind))
        message = "; ".join(state.message for state in states if state.message)
        in_flight, concurrency = sum(state.in_flight for state in states), sum(state.concurrency for state in states)
        return State(states[0].kind, message, in_flight, concurrency, waits.waiting)
