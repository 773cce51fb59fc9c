"""Types of options that commands share."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import UseAppendAction, arg

Repeated = UseAppendAction[tuple[str, ...]]
Flag = Annotated[bool, arg(help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
