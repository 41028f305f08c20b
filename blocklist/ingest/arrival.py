"""What a URL gives on its way into a body: straight on when it is the list, aside until whole when it is packed."""

from __future__ import annotations

import threading
from time import monotonic

from .body import Body, Scratch
from .reasons import Failure
from .unpack import HEAD, Packing, UnpackError, unpack


class Arrival:
    """One part of a snapshot. `write` what comes, then `settle`; where that leaves `packed`, also `unpack`.

    What is packed lies in a temporary file of its own meanwhile: a zip is read from its end, and a stream that
    breaks must not have cost the others their turn. All raise Failure with `where` in front.
    """

    def __init__(self, scratch: Scratch, feed: str, body: Body, packing: Packing, where: str) -> None:
        self._scratch = scratch
        self._body = body
        self._aside = Body(scratch, feed, limit=body.left)
        self._packing = packing
        self._where = where
        self._head: bytes | None = b""
        self._kind: str | None = None
        self.came = 0

    @property
    def left(self) -> int:
        """Bytes that may still come, packed or not."""
        return self._aside.left if self._kind else self._body.left

    @property
    def packed(self) -> bool:
        return self._kind is not None

    def write(self, data: bytes) -> None:
        self.came += len(data)
        self._pass(data)

    def _pass(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if len(self._head) >= HEAD:
                self._judge()
            return
        (self._aside if self._kind else self._body).write(data)

    def settle(self) -> None:
        """Nothing more comes."""
        if self._head is not None:
            self._judge()

    def _judge(self) -> None:
        assert self._head is not None
        head, self._head = self._head, None
        try:
            self._kind = self._packing.judge(head)
        except UnpackError as error:
            raise Failure(f"{self._where}: {error}", hint=error.hint) from None
        if self._kind is None and self._packing.member is not None and not head.lstrip().startswith(b"<"):
            # A web page goes on to the gate, which says that it is one.
            raise Failure(f"{self._where}: it is not an archive", hint="leave 'member' out, or check the URL")
        self._pass(head)

    def unpack(self, seconds: float, stop: threading.Event) -> None:
        """The list into the body, within `seconds`; runs in a thread. `TooLarge` passes."""
        assert self._kind is not None
        size = self._aside.size
        path = self._aside.close()
        deadline = monotonic() + seconds

        def check() -> None:
            if stop.is_set():
                raise Failure(f"{self._where}: interrupted")
            if monotonic() > deadline:
                raise Failure(f"{self._where}: unpacking was not finished after {seconds:g} s")

        try:
            with path.open("rb", buffering=0) as source:
                unpack(source, size, self._kind, self._packing, self._body.write, check)
        except UnpackError as error:
            raise Failure(f"{self._where}: {error}", hint=error.hint, again=error.again) from None
        except OSError as error:
            raise self._scratch.trouble(error) from None
        finally:
            self._aside.discard()

    def discard(self) -> None:
        self._aside.discard()
