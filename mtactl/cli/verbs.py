"""A group of verbs that knows what a mistyped one may have meant."""

from __future__ import annotations

from difflib import get_close_matches

import click

__all__ = ["VerbGroup"]


class VerbGroup(click.Group):
    """A group whose complaint about an unknown verb names the nearest ones, or all where there are few."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb. Raises UsageError."""
        name = args[0]
        # With an option-like word click itself says what is wrong.
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            verbs = self.list_commands(ctx)
            near = get_close_matches(name.lower(), verbs, n=3) or [verb for verb in verbs if verb.startswith(name[:3])]
            told = " or ".join(repr(verb) for verb in near[:3])
            hint = f"did you mean {told}?" if near else f"there is {', '.join(verbs)}."
            raise click.UsageError(f"There is no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)
