"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """A mistake of the user's, told in one line: what was expected, what was found, and where.

    The command line prints the line and exits with code 2, without a traceback.

    Example:
        >>> wb.load_persona("no such persona")
        Traceback (most recent call last):
        workbench.errors.UserError: ...
    """
