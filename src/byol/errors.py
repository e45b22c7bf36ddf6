"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """One sentence: what was found, what is allowed, what to do.

    Raised at the border (command line, configuration, data, run folder). The command line prints
    it without a traceback and exits with code 2.
    """
