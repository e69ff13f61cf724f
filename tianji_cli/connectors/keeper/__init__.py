"""The keeper: a process on a host that starts commands and moves files there.

Whatever owns the host starts it (this machine, SSH, a cluster's manager), once; everything else
goes through its standard input and output. These modules are sent there as text and run alone:
Python 3.8 or newer, standard library only, nothing installed.

What is said there, as frames (`frames.py`). Each request has a number (`id`), which its answers
carry:

    spawn   words, env, directory, limit_s, has_input    out, err: bytes; eof: of; done: code
    read    path, offset, max_bytes                      out: bytes; done
    walk    path, max_depth, max_files                   out: size, path and a zero byte; done
    put     path                                         done
    exists  path                                         done: is_there

`done` has `error` and `text` instead if the system refuses. Until then `in` carries bytes of the
input, `end` is its end, `kill` ends a command with its session, `close` drops its streams. At most
a window of each stream is under way; `more` says how much was consumed. So neither a slow reader
nor a large file holds up anything else. A `beat` is answered by one: both ends are alive.

At the end of its own input, or after `lease_s` without a frame, the keeper kills the commands that
have a limit, drops the streams of the others, and ends when these have ended. A command that has
closed its output itself is on its own. Termination signals are ignored: a cluster's manager sends
them to every process of a job, whose files are still to be fetched then.
"""
