"""The pass that wants input gradients alone, and how twins learn of it.

autograd.grad(scores, x) prunes what does not lead to x, but a Python Function is not told: its
needs_input_grad says yes for the weights as well, and it would compute gradients that nobody reads.
So a penalty announces itself: twins called inside `with InputPass(x):` ask for each weight whether
the first backward may skip it, and get the answer as a function to call in that backward (which may
run in another thread).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor


class InputPass:
    """One penalty's critic call, and then its backward to `x` (a leaf that requires grad).

    `running` is True during that backward only. What the twins record besides:

    "values"  what any later backward may want.
    "masks"   no activations: layers keep no input, piecewise linear functions their slope's mask.
              The one gradient of a weight is then the double backward's; any other raises.
    "shared"  the backward to x keeps each layer's input, so that the double backward can add the
              weights' gradient of a loss that gives sample n the derivative `score_weights[n]`.
    """

    _here = threading.local()

    def __init__(self, x: Tensor, keep: str = "values") -> None:
        self.running = False
        self.keep = keep
        self.score_weights: Tensor | None = None  # (B,), set when the loss's backward arrives
        self.hooked = False  # did the critic register a hook on a tensor?
        self.x = x
        self._clean: set[Any] = set()  # autograd nodes known not to lead to x

    def __enter__(self) -> InputPass:
        self._outer = getattr(self._here, "current", None)
        self._here.current = self
        return self

    def __exit__(self, *_: Any) -> None:
        self._here.current = self._outer
        self._clean.clear()

    @classmethod
    def current(cls) -> InputPass | None:
        """The penalty that is calling its critic, in this thread."""
        return getattr(cls._here, "current", None)

    @classmethod
    def keeping(cls, what: str) -> InputPass | None:
        """The current pass if it keeps `what`."""
        here = cls.current()
        return here if here is not None and here.keep == what else None

    @classmethod
    def prunes(cls, weight: Tensor | None) -> Callable[[], bool]:
        """A question to ask in backward: is the gradient of `weight` of no use just now?

        Never, where `weight` itself depends on x, as in a critic that predicts its filters.
        """
        current = cls.current()
        if current is None or weight is None or current._depends(weight):
            return _never
        return lambda: current.running

    def _depends(self, weight: Tensor) -> bool:
        if weight is self.x:
            return True
        return weight.grad_fn is not None and self._leads_to_x(weight.grad_fn)

    def _leads_to_x(self, root: Any) -> bool:
        """Depth first, without recursion: graphs are deep."""
        stack, seen = [root], set()
        while stack:
            node = stack.pop()
            if node in seen or node in self._clean:
                continue
            if getattr(node, "variable", None) is self.x:
                return True
            seen.add(node)
            stack.extend(n for n, _ in node.next_functions if n is not None)
        self._clean |= seen
        return False


def _never() -> bool:
    return False
