"""Fuzzing of the wire format: ``python -m bench.fuzz``.

- ``__main__``   the command: how many messages, in process and over a socket; tables, JSON, one case again.
- ``words``      what requests are made of: KMS's members with good and bad values.
- ``packing``    MessagePack as no library writes it: long forms, a key twice, extension types.
- ``seeds``      messages kept because they once were, or might be, read wrongly.
- ``cases``      a case by its seed and number: messages, grammar first, then damage; and how they are cut.
- ``reference``  another reading of the same bytes, slow and plain, to hold the product's against.
- ``inside``     one case against ``core.connection`` and the real dispatcher, in process.
- ``outside``    many cases at once against a daemon's socket.
- ``tally``      what was counted and found.
- ``campaign``   many cases on all CPUs, with the memory of those who run them.
- ``covered``    which branches of the wire format a run has been through.
- ``daemon``     the daemon that is fuzzed: its log, books and memory, and a good client beside it all.
"""
