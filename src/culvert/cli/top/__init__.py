"""`culvert top`: a daemon live in the terminal.

`board` is what is shown and what keys do to it, without a terminal; `drawing` makes lines of it;
`sampling` asks the daemon in a thread of its own, so that keys are heeded while it does not answer;
`terminal` is the terminal's modes; `running` puts them together.
"""
