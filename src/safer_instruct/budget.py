"""A hard cap in money or tokens: what a call may cost at most is set aside before the call is sent.

    price = prices.require(model.name, base_url, given)      # or `find`, when there is no cap in money
    cost, tokens = bound(request, price)                     # of bounds.py
    with await budget.reserve(cost, tokens) as reservation:  # one per attempt, retries included; waits for its turn
        answer = ...                                         # send it
        reservation.settle(price.cost(read, written), read + written)

What is spent and what is set aside never exceed the cap together. A reservation that is left without `settle` (no answer
came, the task was cancelled) is forfeited: the provider may have billed it, so all of it counts as spent. Settle with 0
what the provider refused without work (HTTP 4xx, 429 among them); forfeit what may have been worked on (a timeout, a
broken connection, HTTP 5xx). What answered without usage counts in full, too: `keep` it. Whoever holds a reservation must
not wait for another one.

Where a sum cannot be recorded, or `check` says that answers cannot be kept, nothing more is let in, and those who ask are
told so once what is under way has ended: its answers are saved as far as they can be, and count as what they took.

Where a run is stopped, nothing more is let in either, and what is under way is waited for a while (`stop`); the same where
a run has what it needs (`finish_under_way`, until `go_on`).

Tokens are those of the calls that reserve; calls to models in this process need not.

A kill is survived without a write per call: `record` is told a sum that spending will not pass, before it does, and a
higher one when that is used up: about twice a second, however many calls there are. Where nothing begins or ends for a
second, as while a batch is waited for, and after a clean end the recorded sum is exact. After a kill it is too high by what was in flight, which may have been
billed, and by what is left of the last step, half a second's calls and a percent or so. Wiring, with spent.py:

    budget = Budget(max_cost, max_tokens)                    # for the models, which are opened before it is known where they are used
    earlier = earlier_spent(path, answered)                  # read_spent(path), or more if the ledger holds more
    budget.begin(earlier, lambda total: write_spent(path, total), check=ledger.check)
    try: ...
    finally: budget.close()
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from safer_instruct.errors import BudgetError, RunDirectoryError
from safer_instruct.prices import show_usd
from safer_instruct.spent import Spent
from safer_instruct.stopping import STOP_S, waiting_for

_NANO = 10**9  # money is counted in whole billionths of a dollar: sums of floats drift
_CALLS_PER_RECORD = (16, 1024)  # at least and at most
_RECORDS_APART_S = 0.5
_CALM_S = 1.0  # without a call that begins or ends
PATIENCE_S = 10.0  # that calls under way are waited for once an endpoint has failed
_LAST_ANSWERS_S = 150.0  # that what is under way is waited for once nothing more can be sent; a batch takes longer, and is found again
_NOTHING = Spent()
_Need = tuple[int, int]  # billionths of a dollar, tokens


class Reservation:
    """Room in the budget for one attempt; a context manager that forfeits it when nobody has settled it."""

    __slots__ = ("_budget", "_lasting", "_need")

    def __init__(self, budget: Budget, need: _Need, *, lasting: bool = False) -> None:
        self._budget: Budget | None = budget
        self._need, self._lasting = need, lasting

    def settle(self, cost: float | None, tokens: int, *, unanswered: Spent = _NOTHING) -> None:
        """Count what the attempt took and give the rest back; `cost` is None when it is unknown.

        A reservation for many attempts, of which some were `unanswered`, says so: that is a part of what it took.

        Raises:
            RunDirectoryError: It took more than its bound, and that could not be recorded.
        """
        self._close(_need(cost, tokens), lost=_need(unanswered.cost, unanswered.tokens))

    def forfeit(self) -> None:
        """Count the whole bound: no answer came, but the provider may have billed one."""
        self._close(self._need, lost=self._need)

    def keep(self) -> None:
        """Count the whole bound: an answer came that does not tell what it took."""
        self._close(self._need, lost=(0, 0), unreported=self._need)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._budget is not None:
            self.forfeit()

    def _close(self, took: _Need, *, lost: _Need, unreported: _Need = (0, 0)) -> None:
        if self._budget is None:
            raise ValueError("this reservation is settled or forfeited already")
        budget, self._budget = self._budget, None
        budget._lasting -= self._lasting
        budget._give_back(self._need, took, lost=lost, unreported=unreported)


class Budget:
    """Who may spend how much; one event loop, one instance for a run."""

    def __init__(self, max_cost: float | None = None, max_tokens: int | None = None) -> None:
        """A budget of which nothing is spent; what earlier sittings spent, and where that is kept, is told to `begin`.

        Args:
            max_cost: Cap in US dollars, or None.
            max_tokens: Cap on tokens read and written together, or None.
        """
        if not (max_cost is None or max_cost >= 0) or not (max_tokens is None or max_tokens >= 0):
            raise ValueError("a cap is 0 or more")
        self.max_cost, self.max_tokens = max_cost, max_tokens
        self._caps = (None if max_cost is None else math.floor(round(max_cost * _NANO, 3)), max_tokens)
        self._spent = self._recorded = self._reserved = self._forfeited = self._unreported = self._cut_off = (0, 0)
        self._record: Callable[[Spent], None] | None = None
        self._check: Callable[[], None] | None = None
        self._ahead, self._recorded_at = _CALLS_PER_RECORD[0], -math.inf  # in calls
        self._changed_at = -math.inf
        self._calm: asyncio.TimerHandle | None = None
        self._open = self._lasting = 0  # the latter are a part of the former
        self._waiting: deque[tuple[_Need, bool, asyncio.Future[Reservation]]] = deque()
        self._used_up = ""
        self._failure: Exception | None = None  # why nothing is let in
        self._patient, self._over = True, False
        self._stopped: asyncio.Future[None] | None = None  # done once what was under way at the stop has come back

    def begin(self, earlier: Spent, record: Callable[[Spent], None], *, check: Callable[[], None] | None = None, answered: Spent | None = None) -> None:
        """Go on where earlier sittings of the run ended, and keep record from now on.

        Args:
            earlier: What they spent, or may have.
            record: Keeps a sum where it survives a kill. Spending never passes the last sum that it has kept; it must
                raise when it cannot keep one.
            check: Raises when an answer could not be kept either, so that none is to be paid for.
            answered: What of `earlier` finished calls took, if that is known.

        Raises:
            ValueError: Something has been reserved.
        """
        if self._open or self._spent != (0, 0):
            raise ValueError("this budget is in use")
        self._spent = self._recorded = _need(earlier.cost, earlier.tokens)
        if answered:
            self._cut_off = _less(self._spent, _need(answered.cost, answered.tokens))
        self._record, self._check = record, check

    @property
    def spent(self) -> Spent:
        """What is spent, earlier sittings and forfeited attempts included."""
        return _amount(self._spent)

    @property
    def reserved(self) -> Spent:
        """What is set aside for attempts that are under way."""
        return _amount(self._reserved)

    @property
    def forfeited(self) -> Spent:
        """The part of `spent` that this sitting counts for attempts without an answer."""
        return _amount(self._forfeited)

    @property
    def cut_off(self) -> Spent:
        """The part of `spent` that earlier sittings set aside for calls that did not finish, or told no usage, and whose cost so nobody knows."""
        return _amount(self._cut_off)

    @property
    def unreported(self) -> Spent:
        """The part of `spent` that this sitting counts for answers that do not tell what they took."""
        return _amount(self._unreported)

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return self._open

    def __str__(self) -> str:
        """Where the budget stands, for a progress display: '1.24 of 5.00 USD, 900 tokens'."""
        cost_cap = "" if self.max_cost is None else f" of {show_usd(self.max_cost)}"
        tokens_cap = "" if self.max_tokens is None else f" of {self.max_tokens:,}"
        tokens = f", {self.spent.tokens:,}{tokens_cap} tokens" if self.spent.tokens or tokens_cap else ""  # of local models none is counted
        return f"{show_usd(self.spent.cost)}{cost_cap} USD{tokens}"

    async def reserve(self, cost: float | None, tokens: int, *, lasting: bool = False) -> Reservation:
        """Set aside what an attempt may take at most; waits its turn while others may still give something back.

        Args:
            cost: Bound on the cost in US dollars; None when the price is unknown, which a cap in money does not allow.
            tokens: Bound on the tokens.
            lasting: The attempt outlives the run, as a row of a batch does: who waits for the last answers does not wait for it.

        Raises:
            BudgetError: It does not fit, and nothing is under way any more that could give something back; every later
                call then gets the same error, so that the run stops with nothing paid for and lost.
            RunDirectoryError: What may be spent now, or an answer, could not be kept, so nothing is set aside; told once nothing is
                under way any more.
        """
        if granted := self.reserve_at_once(cost, tokens, lasting=lasting):
            return granted
        need = _need(cost, tokens)
        future: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
        self._waiting.append((need, lasting, future))
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().settle(0.0, 0)  # it came in the moment of cancellation: nobody will send anything
            self._serve()
            raise

    def reserve_at_once(self, cost: float | None, tokens: int, *, lasting: bool = False) -> Reservation | None:
        """The same where there is nothing to wait for; None where there is."""
        if cost is None and self.max_cost is not None:
            raise ValueError("a cap in money needs a bound in money: see Prices.require")
        need = _need(cost, tokens)
        if self._used_up or self._failure or self._stopped or self._waiting or not self._fits(need):
            return None
        try:
            return self._grant(need, lasting=lasting)
        except RunDirectoryError as exc:
            if not self._open:
                raise
            self._fail(exc)
            return None

    def resume(self, cost: float | None, tokens: int) -> Reservation:
        """Take up a reservation that an earlier sitting left open, such as a batch that is still at the provider.

        Its bound counts as spent since then; from here on it is reserved, and can be settled or forfeited.

        Raises:
            RunDirectoryError: Nobody had recorded it, and now it cannot be.
        """
        need = _need(cost, tokens)
        self._spent, self._cut_off = _less(self._spent, need), _less(self._cut_off, need)
        return self._grant(need, lasting=True)

    async def wind_up(self, reason: Exception, patience_s: float = _LAST_ANSWERS_S) -> None:
        """Let nothing more in, for the run ends with that error, and wait until what is under way has come back, but not for ever."""
        self._over = True
        if not self._failure:
            self._fail(reason, patience_s)
        if self._open:
            ended: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
            self._waiting.append(((0, 0), False, ended))
            with suppress(type(reason), RunDirectoryError):
                await ended

    async def stop(self, tell: Callable[[str], None], patience_s: float = STOP_S) -> None:
        """Let nothing more in, for somebody stops the run, and wait until what is under way has come back, but not for ever.

        Whoever asks from now on waits until they are cancelled.

        Args:
            tell: Is told what is waited for, if anything is.
            patience_s: How long at most, in seconds.
        """
        if soon := self._open - self._lasting:
            tell(waiting_for(soon, patience_s))
        await self.finish_under_way(patience_s)

    async def finish_under_way(self, patience_s: float = STOP_S) -> None:
        """Let nothing more in until `go_on`, and wait until what is under way has come back, but not for ever.

        Whoever asks meanwhile waits.
        """
        self._stopped = asyncio.get_running_loop().create_future()
        if self._open > self._lasting:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped, patience_s)

    def go_on(self) -> None:
        """Let in again whoever asks, after `finish_under_way`."""
        self._stopped = None
        self._serve()

    def close(self) -> None:
        """Record the exact sum; what is still reserved counts as spent."""
        if self._calm:
            self._calm.cancel()
        self._record_exactly()

    def _fits(self, need: _Need) -> bool:
        cost, tokens = need
        max_cost, max_tokens = self._caps
        return (max_cost is None or not cost or self._spent[0] + self._reserved[0] + cost <= max_cost) and (
            max_tokens is None or not tokens or self._spent[1] + self._reserved[1] + tokens <= max_tokens
        )

    def _fail(self, exc: Exception, patience_s: float = _LAST_ANSWERS_S) -> None:
        self._failure, self._patient = exc, True
        asyncio.get_running_loop().call_later(patience_s, self._wait_no_longer, exc)

    def _wait_no_longer(self, exc: Exception) -> None:
        if self._failure is exc:
            self._patient = False
            self._serve()

    def _grant(self, need: _Need, *, lasting: bool = False) -> Reservation:
        if self._check:
            self._check()
        reserved = self._reserved[0] + need[0], self._reserved[1] + need[1]
        self._keep_record(self._spent[0] + reserved[0], self._spent[1] + reserved[1], need)
        self._reserved = reserved
        self._open += 1
        self._lasting += lasting
        self._note_change()
        return Reservation(self, need, lasting=lasting)

    def _give_back(self, need: _Need, took: _Need, *, lost: _Need, unreported: _Need) -> None:
        self._open -= 1
        self._reserved = self._reserved[0] - need[0], self._reserved[1] - need[1]
        self._spent = self._spent[0] + took[0], self._spent[1] + took[1]
        self._forfeited = _plus(self._forfeited, lost)
        self._unreported = _plus(self._unreported, unreported)
        self._note_change()
        if self._stopped:
            if self._open == self._lasting and not self._stopped.done():
                self._stopped.set_result(None)
        elif self._waiting or self._failure:
            self._serve()
        if took[0] > need[0] or took[1] > need[1]:  # a bound that did not hold: still never unrecorded
            self._keep_record(self._spent[0] + self._reserved[0], self._spent[1] + self._reserved[1], (0, 0))

    def _serve(self) -> None:
        """Let in whoever waits, in order; the first that does not fit holds up the others, or nobody large would ever get in."""
        while self._waiting and not self._stopped:
            need, lasting, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
            elif self._failure:
                if self._open > self._lasting and self._patient:
                    return
                self._waiting.popleft()
                future.set_exception(self._failure)
            elif not self._used_up and self._fits(need):
                try:
                    future.set_result(self._grant(need, lasting=lasting))
                except Exception as exc:  # noqa: BLE001 - not swallowed: whoever waits is given it
                    if self._open and isinstance(exc, RunDirectoryError):
                        self._fail(exc)
                        return
                    future.set_exception(exc)
                self._waiting.popleft()
            elif not self._used_up and self._open:
                return
            else:
                self._waiting.popleft()
                self._used_up = self._used_up or self._explain(need)
                future.set_exception(BudgetError(self._used_up))
        if not self._open and not self._over:
            self._failure = None  # there may be room by now

    def _keep_record(self, cost: int, tokens: int, need: _Need) -> None:
        """Record a sum that spending will not pass for the next calls like this one: as many as take half a second or so."""
        if self._record is None or (cost <= self._recorded[0] and tokens <= self._recorded[1]):
            return
        least, most = _CALLS_PER_RECORD
        now = time.monotonic()
        self._ahead = min(most, 2 * self._ahead) if now - self._recorded_at < _RECORDS_APART_S else max(least, self._ahead // 2)
        self._recorded_at = now
        total = cost, tokens
        ahead = [n + self._ahead * step + n // 100 for n, step in zip(total, need, strict=True)]
        capped = [a if cap is None else max(n, min(a, cap)) for n, a, cap in zip(total, ahead, self._caps, strict=True)]
        self._record(_amount((capped[0], capped[1])))
        self._recorded = (capped[0], capped[1])

    def _record_exactly(self) -> None:
        if self._record and self._recorded != (total := _plus(self._spent, self._reserved)):
            self._record(_amount(total))
            self._recorded = total

    def _note_change(self) -> None:
        """See to it that the exact sum is recorded once calm has come: a kill then would leave what was recorded ahead as spent."""
        self._changed_at = time.monotonic()
        if self._record and not self._calm:
            with suppress(RuntimeError):  # without an event loop nothing lasts
                self._calm = asyncio.get_running_loop().call_later(_CALM_S, self._look_for_calm)

    def _look_for_calm(self) -> None:
        self._calm = None
        if time.monotonic() - self._changed_at < _CALM_S:
            self._calm = asyncio.get_running_loop().call_later(_CALM_S, self._look_for_calm)
        else:
            with suppress(RunDirectoryError):  # the higher sum holds, too; whoever reserves next is told
                self._record_exactly()

    def _explain(self, need: _Need) -> str:
        amounts = self.spent, self.forfeited, self.unreported, self.cut_off, _amount(need)
        if self._caps[0] is not None and self._spent[0] + need[0] > self._caps[0]:
            name, cap = "max_cost", f"{show_usd(self.max_cost)} USD"
            used, unanswered, unreported, cut_off, next_ = (show_usd(amount.cost) if amount.cost else "" for amount in amounts)
        else:
            name, cap = "max_tokens", f"{self.max_tokens:,} tokens"
            used, unanswered, unreported, cut_off, next_ = (f"{amount.tokens:,}" if amount.tokens else "" for amount in amounts)
        note = f" ({unanswered} of it for calls whose answer never came: they may have been billed)" if unanswered else ""
        note += f" ({unreported} of it set aside for calls whose usage was not reported)" if unreported else ""
        note += f" ({cut_off} of it set aside in earlier sittings for calls of which the ledger knows no usage: they may have been billed)" if cut_off else ""
        return (
            f"budget of {cap} used up: {used or 'nothing'} spent{note}, and the next call may take up to {next_}; nothing is lost: "
            f"raise budget.{name} and give the same command again"
        )


def _less(amount: _Need, less: _Need) -> _Need:
    return max(0, amount[0] - less[0]), max(0, amount[1] - less[1])


def _need(cost: float | None, tokens: int) -> _Need:
    """Rounded up, but for the float's own last digits."""
    if not (cost is None or 0 <= cost < math.inf) or tokens < 0:
        raise ValueError(f"no amount: {cost} USD, {tokens} tokens")
    return math.ceil(round(cost * _NANO, 3)) if cost else 0, tokens


def _amount(need: _Need) -> Spent:
    return Spent(need[0] / _NANO, need[1])


def _plus(a: _Need, b: _Need) -> _Need:
    return a[0] + b[0], a[1] + b[1]
